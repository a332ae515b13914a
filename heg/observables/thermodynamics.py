r"""Everything that a density matrix says of the gas, from means over samples of blocks.

Energies per electron, with s = -ln p(K) / N and e = E_loc / N:

.. math:: P = \frac{N (2 k + v)}{d L^d}, \qquad
          C = \beta N \mathrm{Cov}(e, s) \;\text{or}\; N \mathrm{Var}(s) \;\text{or}\; \beta^2 N
          \mathrm{Var}(e)

The virial pressure equals -dF/dL^d at fixed N and T: when the cell is scaled with dimensionless
parameters fixed, the kinetic energy goes as L^-2, the potential energy as L^-1 and the entropy not
at all; at the minimum of F the parameters do not matter.  Theta scales as r_s^2 then.

The isochoric heat capacity C, k_B per electron, is the same three times if rho is exact.  Of a
variational one, the first is the change of E, the second T times that of S, when T changes and p(K)
goes as a power of itself at fixed
wavefunctions: both neglect how the flow and the energies of the states change with T.  The third,
from the variance
of H, counts the variance of E_loc within each K, which is an error of the wavefunctions: the
largest of the three.

Errors come from the blocks, which are independent; of derived quantities by the jackknife
(heg.statistics).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from heg.gas.plane_waves import Orbitals
from heg.gas.plasmon import plasmon_structure
from heg.gas.system import System
from heg.model.density_matrix import Model, Params
from heg.observables.momentum import (
    Momentum,
    control_weight,
    make_momentum,
    momentum_distribution,
    momentum_shells,
)
from heg.observables.structure import Grid, Structure, make_structure, total
from heg.sampling.batch import Walkers
from heg.statistics import Derived, Estimate, jackknife
from heg.training.control_variates import make_controls
from heg.training.free_energy import Samples, per_electron, sample_of

CONTACT = 0.7  # g is fitted up to CONTACT r_s for its value at contact


class Observed(NamedTuple):
    """Of samples along the first axis, or means over blocks of them.

    Attributes:
      energies: F, E, kinetic, potential, S per electron, as in heg.training.free_energy.
      moments: products e s, s s, and e e of the uncontrolled |E_loc|.
      structure, momentum: of heg.observables.structure and heg.observables.momentum.
    """

    energies: dict[str, jax.Array]
    moments: dict[str, jax.Array]
    structure: Structure
    momentum: Momentum


class Quantity(NamedTuple):
    """A result.

    Attributes:
      value, error: of equal shape.
      covariance: of the flattened value; None where errors are independent or it is one number.
      unit: in words.
    """

    value: np.ndarray
    error: np.ndarray
    covariance: np.ndarray | None
    unit: str

    def __repr__(self) -> str:
        """A line: the number or the shape of the array, and the unit."""
        single = np.ndim(self.value) == 0
        number = (
            Estimate(float(self.value), float(self.error))
            if single
            else f"array {np.shape(self.value)}"
        )
        return f"<Quantity {number}, {self.unit}>"


def make_sample(system: System, orbitals: Orbitals, model: Model, grid: Grid) -> Callable:
    """(params, walker, key) -> Samples, Structure, Momentum of one walker."""
    structure = make_structure(system, grid)
    momentum = make_momentum(system, orbitals, model.log_psi)
    controls = make_controls(system, orbitals)

    def sample(params: Params, walker: Walkers, key):
        samples, z = sample_of(model, controls, params, walker)
        return (
            samples,
            structure(walker.x, z),
            momentum(params.flow, walker.x, z, walker.state, key),
        )

    return sample


def observe(
    samples: Samples, structure: Structure, momentum: Momentum, regression, system: System
) -> Observed:
    """What is kept of each sample.  All have the samples along the first axis."""
    energies = per_electron(samples, regression, system)
    e, s = energies["E"], energies["S"]
    squared = jnp.abs(samples.energy.total / system.electrons) ** 2
    return Observed(energies, {"e s": e * s, "s s": s * s, "e e": squared}, structure, momentum)


def thermodynamics(system: System, blocks: Observed) -> dict[str, Quantity]:
    """Energies, S, pressure, heat capacities of a cell, per electron.

    Args:
      blocks: means over blocks.                            [blocks, ...]
    """
    units = {"S": "k_B per electron"}
    found = {}
    for name in blocks.energies:
        found[name] = _quantity(
            jackknife(blocks.energies[name], lambda mean: mean),
            units.get(name, "hartree per electron"),
        )
    found["pressure"] = _quantity(
        jackknife(
            blocks.energies, lambda mean: pressure(system, mean["kinetic"], mean["potential"])
        ),
        f"hartree per bohr^{system.dim}",
    )
    capacities = jackknife(
        blocks._replace(structure=None, momentum=None), lambda mean: heat_capacities(system, mean)
    )
    for place, kind in enumerate(("", "_of_entropy", "_of_energy")):
        part = Derived(
            capacities.value[place], capacities.covariance[place : place + 1, place : place + 1]
        )
        found["heat_capacity" + kind] = _quantity(part, "k_B per electron")
    return found


def pressure(system: System, kinetic, potential):
    """Virial pressure, hartree / bohr^d, from energies per electron."""
    return system.electrons * (2 * kinetic + potential) / (system.dim * system.box**system.dim)


def heat_capacities(system: System, mean: Observed) -> np.ndarray:
    """C by the covariance of energy and entropy, the variance of the entropy, that of the energy,
    k_B per electron."""
    e, s, moments = mean.energies["E"], mean.energies["S"], mean.moments
    covariances = moments["e s"] - e * s, moments["s s"] - s * s, moments["e e"] - e * e
    return system.electrons * np.array([system.beta, 1.0, system.beta**2]) * np.array(covariances)


def distributions(
    system: System, orbitals: Orbitals, grid: Grid, blocks: Observed
) -> dict[str, Quantity]:
    """S(q), g(r), that of z, displacement, n(k), with their grids, by pairs of spins uu, ud, dd or
    spin u, d."""
    shells, _ = momentum_shells(system, orbitals)
    weight = control_weight(blocks.momentum)
    middle = (grid.edges[1:] + grid.edges[:-1]) / 2
    n_of = lambda mean: momentum_distribution(mean, weight)
    structure = blocks.structure
    displacement = jackknife(
        structure, lambda mean: mean.displaced / np.where(mean.g > 0, mean.g, np.inf)
    )
    of = lambda values: jackknife(values, lambda mean: mean)
    return {
        "q": _exact(grid.shells.length, "1/bohr"),
        "S_q": _quantity(of(structure.s), "per electron"),
        "r": _exact(middle, "bohr"),
        "g_r": _quantity(of(structure.g), "none"),
        "g_bare": _quantity(of(structure.g_bare), "none"),
        "displacement": _quantity(displacement, "bohr"),
        "k": _exact(shells.length, "1/bohr"),
        "k_count": _exact(shells.count, "wavevectors in the shell"),
        "n_k": _quantity(jackknife(blocks.momentum, n_of), "electrons per wavevector"),
        "electrons_counted": _quantity(
            jackknife(blocks.momentum, lambda mean: n_of(mean) @ shells.count), "electrons"
        ),
    }


def limits(system: System, grid: Grid, blocks: Observed) -> dict[str, Quantity]:
    """S of the longest waves against the plasmon's, which is exact in the limit, and g(0) of
    opposite spins."""
    found = {}
    if system.coupling:
        plasmon = plasmon_structure(system, grid.shells.length[:1])
        ratio = jackknife(blocks.structure.s, lambda mean: total(mean)[:1] / plasmon)
        found["S_q_over_plasmon"] = _quantity(ratio, "none")
    if system.n_down:
        found["contact"] = _quantity(
            jackknife(blocks.structure.g, lambda g: contact(system, grid, g[1])), "none"
        )
    return found


def contact(system: System, grid: Grid, g: np.ndarray) -> np.ndarray:
    r"""g(0) of opposite spins from a fit a (1 + 2 coupling r / (d - 1)) + b r^2 + c r^3 up to
    CONTACT r_s.

    The slope is Kato's: Commun. Pure Appl. Math. 10, 151 (1957), doi:10.1002/cpa.3160100201.

    Args:
      g: of the bins.                                       [bins]
    """
    r = (grid.edges[1:] + grid.edges[:-1]) / 2
    near = r < CONTACT * system.rs
    r, weight = r[near], np.sqrt(grid.share[near])
    regressors = np.stack([1 + 2 * system.coupling * r / (system.dim - 1), r**2, r**3], axis=1)
    return np.linalg.lstsq(regressors * weight[:, None], g[near] * weight)[0][0]


def _quantity(derived, unit):
    size = derived.value.size
    return Quantity(derived.value, derived.error, derived.covariance if size > 1 else None, unit)


def _exact(value, unit):
    return Quantity(np.asarray(value), np.zeros(np.shape(value)), None, unit)
