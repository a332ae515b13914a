r"""Thermodynamics and distributions of a density matrix, from means over blocks of samples.

With energies per electron, s = -ln p(K) / N and e = E_loc / N,

.. math:: P = \frac{N (2 k + v)}{d L^d}, \qquad
          C = \beta N \mathrm{Cov}(e, s) \;\text{or}\; N \mathrm{Var}(s) \;\text{or}\; \beta^2 N
          \mathrm{Var}(e)

The virial pressure equals -dF/dL^d at fixed N and T.  When the cell is scaled with dimensionless
parameters fixed, the kinetic energy goes as L^-2, the potential energy as L^-1 and the entropy not
at all; Theta scales as r_s^2 then.  At the minimum of F the parameters do not matter.

The three forms of the isochoric heat capacity C, k_B per electron, agree if rho is exact.  Of a
variational rho, the first is the change of E with T, the second T times the change of S, when p(K)
goes as a power of itself at fixed wavefunctions.  Both neglect how the flow and the energies of the
states change with T.  The third, from the variance of H, counts the variance of E_loc within each K
too, which is an error of the wavefunctions: it is the largest of the three.

The blocks are independent, and errors come from them by the jackknife (`heg.statistics`).
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from heg.gas.plane_waves import Orbitals
from heg.gas.plasma import Plasma
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
from heg.observables.quantities import Quantity, Result, with_units
from heg.observables.structure import Grid, Structure, make_structure, total
from heg.sampling.batch import Walkers
from heg.statistics import Derived, jackknife
from heg.training.control_variates import Regression
from heg.training.free_energy import Samples, per_electron

CONTACT_RANGE = 0.7  # g is fitted up to CONTACT_RANGE r_s for its value at contact


class Observed(NamedTuple):
    """Observables of samples along the first axis, or their means over blocks.

    Attributes:
      energies: F, E, kinetic, potential, S per electron, as in heg.training.free_energy.
      moments: products e s, s s, and e e of |E_loc| without control variates.
      structure: S(q) and g(r).
      momentum: n(k) and its control variate.
    """

    energies: Mapping[str, jax.Array | np.ndarray]
    moments: Mapping[str, jax.Array | np.ndarray]
    structure: Structure
    momentum: Momentum


def make_look(system: System, orbitals: Orbitals, model: Model, grid: Grid) -> Callable:
    """Distributions of one walker: a function (params, walker, key) -> Structure, Momentum.

    Args:
      system: the gas.
      orbitals: plane waves of p(K).
      model: the density matrix.
      grid: of S and g.
    """
    structure = make_structure(system, grid)
    momentum = make_momentum(system, orbitals, model.log_psi)

    def look(params: Params, walker: Walkers, key: jax.Array) -> tuple[Structure, Momentum]:
        z, _ = model.flow.forward(params.flow, walker.x)
        return (
            structure(walker.x, z),
            momentum(params.flow, walker.x, z, walker.state, key),
        )

    return look


def observe(
    samples: Samples,
    structure: Structure,
    momentum: Momentum,
    regression: Regression,
    system: System,
) -> Observed:
    """Observables of each sample, the samples along the first axis.

    Args:
      samples: energies of each sample.
      structure, momentum: of each, from what `make_look` gives.
      regression: of other samples, for the control variates of the energies.
      system: the gas.
    """
    # with control variates, without which only |E_loc|^2 is taken
    energies = per_electron(samples, regression, system)
    moments = fluctuations(system, samples, energies)
    return Observed(energies, moments, structure, momentum)


@functools.singledispatch
def fluctuations(
    system: System, samples: Samples, energies: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """Products e s, s s and e e of each sample, from which the heat capacities come.

    Args:
      system: the gas.
      samples: of it.
      energies: F, E, ... of each, per electron.
    """
    e = energies["E"]
    s = energies["S"]
    return {
        "e s": e * s,
        "s s": s * s,
        # |E_loc| as it is: the heat capacity from Var(e) is to show the error of the wavefunctions
        "e e": jnp.abs(samples.energy.total / system.electrons) ** 2,
    }


@fluctuations.register
def _(system: Plasma, samples: Samples, energies: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The same and e and s, as they are: control variates would take the fluctuations out."""
    totals = samples.energy.totals(system.temperature, samples.log_p)
    e = totals["E"] / system.electrons
    s = totals["S"] / system.electrons
    return {"e": e, "s": s, "e s": e * s, "s s": s * s, "e e": e * e}


def thermodynamic_quantities(system: System, blocks: Observed) -> dict[str, Quantity]:
    """Energies, entropy, pressure and heat capacities, per electron, with errors.

    Args:
      system: the gas.
      blocks: means over blocks.                            [blocks, ...]
    """
    results: dict[str, Result] = {}
    for name, values in blocks.energies.items():
        results[name] = jackknife(values, _mean)

    def virial_pressure(energies):
        return pressure(system, energies["kinetic"], energies["potential"])

    def capacities(means):
        energies, moments = means
        return heat_capacities(system, energies, moments)

    results["pressure"] = jackknife(blocks.energies, virial_pressure)
    # together, so that one pass over the blocks serves for all three
    three = jackknife((blocks.energies, blocks.moments), capacities)
    results["heat_capacity"] = _element(three, 0)
    results["heat_capacity_of_entropy"] = _element(three, 1)
    results["heat_capacity_of_energy"] = _element(three, 2)
    return with_units(results, system.dim)


def pressure(system: System, kinetic, potential):
    """Virial pressure, hartree / bohr^d, from energies per electron, hartree."""
    virial = 2 * kinetic + potential
    return system.electrons * virial / (system.dim * system.volume)


def heat_capacities(system: System, energies: Mapping, moments: Mapping) -> Float[np.ndarray, "3"]:
    """Heat capacity from Cov(e, s), from Var(s) and from Var(e), k_B per electron.

    Args:
      system: the gas.
      energies, moments: means of the fields of `Observed`.
    """
    # the means of e and s that belong to the moments, where they have some of their own
    e = moments.get("e", energies["E"])
    s = moments.get("s", energies["S"])
    # Cov(e, s), Var(s) and Var(e) from means of products
    covariance = moments["e s"] - e * s
    variance_s = moments["s s"] - s * s
    variance_e = moments["e e"] - e * e
    beta = system.beta
    electrons = system.electrons
    return np.array(
        [
            electrons * beta * covariance,
            electrons * variance_s,
            electrons * beta**2 * variance_e,
        ]
    )


@functools.singledispatch
def distributions(
    system: System, orbitals: Orbitals, grid: Grid, blocks: Observed
) -> dict[str, Quantity]:
    """S(q), g(r), g of z, displacement and n(k), with the grids q, r and k.

    The rows of an array are the pairs of spins uu, ud, dd, or the spins u, d.

    Args:
      system: the gas.
      orbitals: plane waves of p(K).
      grid: of S and g.
      blocks: means over blocks.                            [blocks, ...]
    """
    shells, _ = momentum_shells(system, orbitals)
    # fitted once to all blocks, not anew for each group that the jackknife leaves out
    weight = control_weight(blocks.momentum)
    structure = blocks.structure

    def displacement(mean):
        # zero in bins without pairs
        return mean.displaced / np.where(mean.g > 0, mean.g, np.inf)

    def n_k(mean):
        return momentum_distribution(mean, weight)

    def electrons(mean):
        return n_k(mean) @ shells.count

    results: dict[str, Result] = {
        "q": grid.shells.length,
        "S_q": jackknife(structure.s, _mean),
        "r": grid.middles,
        "g_r": jackknife(structure.g, _mean),
        "g_bare": jackknife(structure.g_bare, _mean),
        "displacement": jackknife(structure, displacement),
        "k": shells.length,
        "k_count": shells.count,
        "n_k": jackknife(blocks.momentum, n_k),
        "electrons_counted": jackknife(blocks.momentum, electrons),
    }
    return with_units(results, system.dim)


@distributions.register
def _(system: Plasma, orbitals: Orbitals, grid: Grid, blocks: Observed) -> dict[str, Quantity]:
    """Those of positions alone: classical momenta are Maxwell's."""
    all_of_them = distributions.dispatch(System)(system, orbitals, grid, blocks)
    of_momenta = ("k", "k_count", "n_k", "electrons_counted")
    return {name: value for name, value in all_of_them.items() if name not in of_momenta}


def limits(system: System, grid: Grid, blocks: Observed) -> dict[str, Quantity]:
    """Limits of the distributions that theory knows or constrains.

    They are S of the longest waves over that of the plasmon, which is exact for q -> 0, and g(0) of
    opposite spins.  Each is left out where the gas has no such limit.
    """
    results: dict[str, Result] = {}
    structure = blocks.structure

    def over_plasmon(s):
        # the first shell has the longest waves
        longest = grid.shells.length[:1]
        plasmon = plasmon_structure(system, longest)
        measured = total(s)[:1]
        return measured / plasmon

    def contact_of_opposite_spins(g):
        _, up_down, _ = g
        return contact(system, grid, up_down)

    if system.coupling:
        results["S_q_over_plasmon"] = jackknife(structure.s, over_plasmon)
    if system.n_down:
        results["contact"] = jackknife(structure.g, contact_of_opposite_spins)
    return with_units(results, system.dim)


def contact(system: System, grid: Grid, g: Float[np.ndarray, " bins"]) -> float:
    r"""Value g(0) of opposite spins from a fit to g(r) up to CONTACT_RANGE r_s.

    The fit is a (1 + 2 coupling r / (d - 1)) + b r^2 + c r^3.  The slope at contact is Kato's:
    Commun. Pure Appl. Math. 10, 151 (1957), doi:10.1002/cpa.3160100201.

    Args:
      system: the gas.
      grid: its bins.
      g: of opposite spins, mean in each bin.
    """
    middles = grid.middles
    near = middles < CONTACT_RANGE * system.rs
    r = middles[near]
    # Kato's slope of g is twice that of Psi
    cusp = 1 + 2 * system.coupling * r / (system.dim - 1)
    # the quadratic term of the cusp's expansion is not known: it is fitted
    terms = np.stack([cusp, r**2, r**3], axis=1)
    # the number of pairs in a bin, and with it 1 / variance of g, goes as the volume of the bin
    share = grid.share[near]
    weight = np.sqrt(share)
    weighted_terms = terms * weight[:, None]
    weighted_g = g[near] * weight
    # the first coefficient is g(0) itself
    coefficients, *_ = np.linalg.lstsq(weighted_terms, weighted_g)
    return coefficients[0]


def _mean(mean):
    """The mean itself, for the jackknife of quantities that are means."""
    return mean


def _element(derived, index):
    """One quantity of several derived together."""
    part = slice(index, index + 1)
    return Derived(derived.value[index], derived.covariance[part, part])
