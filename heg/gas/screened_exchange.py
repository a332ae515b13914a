r"""What the size of the cell takes from exchange beyond first order.

The rings of `heg.gas.rpa` have no exchange.  In the skeleton expansion of the free energy the next
part after them is second-order exchange, quadratic in the screened interaction W,

.. math:: \Phi = -\frac{T}{4} \sum_q \sum_n W \Pi_1, \qquad W = \frac{v}{1 - v \chi_0}, \qquad
          \Pi_1 = \sum_\sigma K_\sigma \chi_\sigma^2 ,

with Pi_1 the change of the response by one exchanged W.  A cell lacks the wave q = 0 in either of
the two W, and both lacks are the same by symmetry.  So

.. math:: f_\infty - f_N \approx \frac{T}{2n} \Big[ \int \frac{d^dq}{(2\pi)^d} - \frac{1}{L^d}
          \sum_{q \ne 0} \Big] \sum_n W(q, i\omega_n)\, (-\Pi_1) .

The bracket needs Pi_1 at small q alone, where the exact change of the compressibility gives it:

.. math:: K_\sigma = \frac{\partial^2}{\partial n_\sigma^2}\, \frac12 \int \frac{d^dq}{(2\pi)^d}
          W(q, 0)\, n_\sigma \big(S_\sigma(q) - 1\big)

at fixed T and W, n_sigma (S_sigma - 1) that of the ideal gas.  K < 0: exchange makes the gas more
compressible, and what the cell lacks is positive.  Without screening this is the leading order, as
N^(-1/3) in three dimensions, of what a cell lacks to second order in the interaction, apart from
its rings.

Sources: the skeleton expansion, Luttinger and Ward, Phys. Rev. 118, 1417 (1960),
doi:10.1103/PhysRev.118.1417; second-order screened exchange, Freeman, Phys. Rev. B 15, 5512 (1977),
doi:10.1103/PhysRevB.15.5512; the compressibility at small q, Giuliani and Vignale, Quantum Theory
of the Electron Liquid (Cambridge, 2005), chapter 5.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from heg.gas.coulomb import fourier_transform
from heg.gas.ideal_infinite import reduced_structure_factor
from heg.gas.matsubara import frequencies
from heg.gas.missing_waves import missing_waves
from heg.gas.quadrature import gauss_legendre, radial_measure
from heg.gas.response import infinite_response
from heg.gas.rpa import Energies, natural
from heg.gas.system import System

NODES = 120  # of the integral over q in K
REACH = 24.0  # the last q of that integral, in units of thermal energies over that of Fermi
FREQUENCY_REACH = 4.0  # the largest frequency over the largest energy of an excitation
DENSITY_STEP = 0.1  # relative, of the second derivative with respect to the density
COUPLING_STEP = 1e-3  # relative, of the derivative with respect to the coupling


def missing(system: System) -> Energies:
    """Energies that the cell lacks of second-order screened exchange; the twist does not matter.

    Accuracy: numbers to 1e-2; for what they stand for, see `heg.gas.size_correction.uncertainty`.
    """
    gas = _untwisted(system)
    # at fixed Theta all that is dimensionless depends on coupling times r_s alone
    strength = system.coupling * system.rs / gas.rs
    energy = lambda factor: system.temperature * _missing(gas, factor * strength)
    stronger = energy(1 + COUPLING_STEP)
    weaker = energy(1 - COUPLING_STEP)
    return Energies(
        free_energy=energy(1.0),
        potential=(stronger - weaker) / (2 * COUPLING_STEP),
    )


def kernels(system: System) -> list[float]:
    """K of each spin that is present, hartree bohr^d.

    Accuracy: 1e-2 relative (tests/gas/test_screened_exchange.py).
    """
    gas = _untwisted(system)
    strength = system.coupling * system.rs / gas.rs
    # an energy times a volume: 1 / k_F^2 times 1 / k_F^-d
    unit = system.fermi_wavevector ** (2 - system.dim)
    return [unit * kernel for kernel in _kernels(gas, strength)]


def _untwisted(system):
    """The gas where k_F = 1 / bohr; without its twist, so that all twists share what is cached."""
    return dataclasses.replace(natural(system), twist=(0.0,) * system.dim)


def _missing(gas, strength):
    """What the cell lacks, in units of T."""
    lacked = _lacked_waves(gas)
    kernel = np.array(_kernels(gas, strength))
    # Pi_1, and 1 - v chi_0: [Q, F]
    changed = np.tensordot(kernel, lacked.chi**2, axes=1)
    screening = 1 - strength * lacked.v[:, None] * lacked.chi.sum(axis=0)
    by_wave = (-changed / screening) @ lacked.frequency_weight
    return float(strength / gas.density * lacked.weight @ by_wave)


def _kernels(gas, strength):
    """K of each spin at k_F = 1 / bohr."""
    waves = _exchange_waves(gas)
    screened = strength * waves.v / (1 - strength * waves.v * waves.chi)
    return [float(waves.weight @ (screened * change) / 2) for change in waves.change]


class _LackedWaves(NamedTuple):
    """Waves that a cell lacks, at k_F = 1 / bohr and coupling 1.

    Attributes:
      weight: of `heg.gas.missing_waves.missing_waves`, half of v in it.    [Q]
      v: Fourier transform of the interaction.              [Q]
      chi: chi_0 of each spin.                              [spins, Q, F]
      frequency_weight: of each frequency in a sum over both signs.    [F]
    """

    weight: Float[np.ndarray, " waves"]
    v: Float[np.ndarray, " waves"]
    chi: Float[np.ndarray, "spins waves frequencies"]
    frequency_weight: Float[np.ndarray, " frequencies"]


class _ExchangeWaves(NamedTuple):
    """Waves of the integral in K, at k_F = 1 / bohr and coupling 1.

    Attributes:
      weight: of d^dq / (2 pi)^d.                           [Q]
      v: Fourier transform of the interaction.              [Q]
      chi: chi_0 of all electrons at no frequency.          [Q]
      change: of each spin, the second derivative of n (S_0 - 1) by n.    [spins, Q]
    """

    weight: Float[np.ndarray, " waves"]
    v: Float[np.ndarray, " waves"]
    chi: Float[np.ndarray, " waves"]
    change: Float[np.ndarray, "spins waves"]


@functools.lru_cache(maxsize=64)
def _lacked_waves(gas: System) -> _LackedWaves:
    q, weight = missing_waves(gas)
    # frequencies up to where the response is that of free electrons
    last = q.max()
    thermal = np.sqrt(1 + gas.theta)
    excitation = last**2 / 2 + last * thermal
    nodes = frequencies(FREQUENCY_REACH * excitation / (2 * np.pi * gas.temperature))
    omega = 2 * np.pi * gas.temperature * nodes.n
    return _LackedWaves(
        weight=weight,
        v=fourier_transform(q, gas.dim),
        chi=np.array(_of_spins(gas, lambda spin: spin.response(q, omega))),
        frequency_weight=nodes.weight,
    )


@functools.lru_cache(maxsize=64)
def _exchange_waves(gas: System) -> _ExchangeWaves:
    # q = last t^2: dense at q = 0, where W varies most; S_0 is 1 beyond the last q
    t, weights = gauss_legendre(NODES)
    last = 2 * np.sqrt(1 + REACH * gas.theta)
    q = last * t**2
    dq = 2 * last * t * weights
    static = np.zeros(1)
    responses = _of_spins(gas, lambda spin: spin.response(q, static)[:, 0])
    return _ExchangeWaves(
        weight=radial_measure(gas.dim) * q ** (gas.dim - 1) * dq,
        v=fourier_transform(q, gas.dim),
        chi=sum(responses),
        change=np.array(_of_spins(gas, lambda spin: spin.second_derivative(q))),
    )


class _Spin(NamedTuple):
    """The electrons of one spin, at k_F = 1 / bohr of the majority.

    Attributes:
      dim: 2 or 3.
      density: 1/bohr^d.
      fermi_wavevector: 1/bohr.
      temperature: hartree.
    """

    dim: int
    density: float
    fermi_wavevector: float
    temperature: float

    @property
    def theta(self) -> float:
        """T over the Fermi energy of this spin."""
        return 2 * self.temperature / self.fermi_wavevector**2

    def at_density(self, factor: float) -> "_Spin":
        """The same at a density larger by a factor, at the same temperature."""
        return self._replace(
            density=factor * self.density,
            fermi_wavevector=factor ** (1 / self.dim) * self.fermi_wavevector,
        )

    def response(self, q, omega):
        """chi_0.  [Q, F]"""
        unit = self.fermi_wavevector
        gas = (self.dim, 1.0, self.theta)
        reduced = infinite_response(gas, q / unit, omega / unit**2)
        # 1 / (energy volume)
        return reduced * unit ** (self.dim - 2)

    def second_derivative(self, q):
        """d^2/dn^2 of n (S_0(q) - 1) at fixed temperature.  [Q]"""

        def hole(factor):
            spin = self.at_density(factor)
            reduced = q / spin.fermi_wavevector
            structure = reduced_structure_factor(spin.dim, 1.0, spin.theta, reduced)
            return spin.density * (structure - 1)

        bend = hole(1 + DENSITY_STEP) - 2 * hole(1) + hole(1 - DENSITY_STEP)
        return bend / (DENSITY_STEP * self.density) ** 2


def _of_spins(gas, function):
    """A function of each spin by itself."""
    majority = _Spin(
        dim=gas.dim,
        density=gas.density * gas.n_up / gas.electrons,
        fermi_wavevector=gas.fermi_wavevector,
        temperature=gas.temperature,
    )
    # spins of the same density are alike
    by_count = {}
    for count in set(gas.spins):
        spin = majority.at_density(count / gas.n_up)
        by_count[count] = function(spin)
    return [by_count[count] for count in gas.spins]
