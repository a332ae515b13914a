"""Second-order screened exchange of the waves that a cell lacks, by its limits."""

import dataclasses

import numpy as np
import pytest

from heg.gas import screened_exchange
from heg.gas.coulomb import madelung
from heg.gas.ideal_infinite import thermodynamics
from heg.gas.system import System

WEAK = 1e-6  # a coupling at which nothing is screened


def compressibility(system):
    """-chi_0(q -> 0, w = 0) = dn/dmu at fixed temperature, by a difference."""
    step = 1e-3

    def chemical_potential(factor):
        rs = system.rs * factor ** (-1 / system.dim)
        moved = dataclasses.replace(system, rs=rs)
        gas = dataclasses.replace(moved, theta=system.temperature / moved.fermi_energy)
        # mu = f + p / n, and p / n = 2 e / d of the ideal gas
        ideal = thermodynamics(gas)
        free_energy = ideal.energy - gas.temperature * ideal.entropy
        return free_energy + 2 * ideal.energy / gas.dim

    rise = chemical_potential(1 + step) - chemical_potential(1 - step)
    return 2 * step * system.density / rise


@pytest.mark.parametrize("spins", [(7, 0), (7, 7)], ids=["polarised", "unpolarised"])
def test_kernel_of_the_cold_gas_is_that_of_its_exchange_energy(spins):
    """n e_x of each spin is -(3 / 4 pi) k_F n with k_F^3 = 6 pi^2 n: Giuliani and Vignale (2005),
    section 1.5. It goes as n^(4/3), so that its second derivative is 4 / 9 n of e_x."""
    gas = System(*spins, 3, 2.0, 0.02, coupling=WEAK)
    for kernel, count in zip(screened_exchange.kernels(gas), gas.spins):
        density = gas.density * count / gas.electrons
        energy = -3 / (4 * np.pi) * (6 * np.pi**2 * density) ** (1 / 3)
        assert kernel == pytest.approx(WEAK * 4 / 9 * energy / density, rel=1e-2)


def test_kernel_of_the_classical_gas_is_that_of_its_exchange_energy():
    """Of one spin |rho(r)|^2 = n^2 exp(-T r^2), so that the exchange energy per volume is
    -(1/2) n^2 int d^3r exp(-T r^2) / r = -pi n^2 / T."""
    gas = System(7, 0, 3, 2.0, 100.0, coupling=WEAK)
    (kernel,) = screened_exchange.kernels(gas)
    assert kernel == pytest.approx(-WEAK * 2 * np.pi / gas.temperature, rel=2e-2)


@pytest.mark.parametrize("dim", [2, 3])
def test_screening_weakens_the_kernel(dim):
    per_coupling = []
    for coupling in (WEAK, 0.1, 1.0, 10.0):
        gas = System(7, 7, dim, 1.0, 1.0, coupling=coupling)
        per_coupling.append(screened_exchange.kernels(gas)[0] / coupling)
    assert np.all(np.diff(per_coupling) > 0)  # towards zero
    assert per_coupling[-1] < 0


@pytest.mark.parametrize("dim", [2, 3])
def test_without_screening_a_large_cell_lacks_the_madelung_energy_of_the_static_change(dim):
    """[int - sum] v is -v_M, and only w = 0 changes at q -> 0: T / 2n K chi_0^2 v_M is left, up to
    1 / N."""
    gas = System(800, 0, dim, 1.0, 1.0, coupling=WEAK)
    (kernel,) = screened_exchange.kernels(gas)
    changed = kernel * compressibility(gas) ** 2
    expected = gas.temperature / (2 * gas.density) * changed * WEAK * madelung(gas)
    missing = screened_exchange.missing(gas)
    assert missing.free_energy == pytest.approx(expected, rel=2e-2)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("theta", [0.1, 1.0, 4.0])
def test_potential_energy_belongs_to_the_free_energy(dim, theta):
    """F goes as phi(Theta, coupling r_s) / r_s^2: twice F and the slope by r_s is the slope by the
    coupling."""
    gas = System(7, 7, dim, 3.0, theta)
    step = 1e-2
    denser = dataclasses.replace(gas, rs=3.0 - step)
    thinner = dataclasses.replace(gas, rs=3.0 + step)
    rise = (
        screened_exchange.missing(thinner).free_energy
        - screened_exchange.missing(denser).free_energy
    )
    here = screened_exchange.missing(gas)
    assert here.free_energy > 0
    slope = rise / (2 * step)
    assert here.potential == pytest.approx(2 * here.free_energy + 3.0 * slope, rel=2e-3)
    # quadratic in the interaction where nothing is screened
    weak = screened_exchange.missing(dataclasses.replace(gas, coupling=WEAK))
    assert weak.potential == pytest.approx(2 * weak.free_energy, rel=1e-3)


def test_without_interaction_nothing_is_lacked():
    gas = System(7, 7, 3, 1.0, 1.0, coupling=0.0)
    assert screened_exchange.missing(gas) == (0.0, 0.0)
