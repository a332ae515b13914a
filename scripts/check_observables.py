"""Every observable of the untrained ideal gas beside its exact canonical value, with its error.

    python scripts/check_observables.py                     # about ten minutes on two cores

Three gases with coupling 0 and no flow: no point should be farther off than 5 errors, chi^2 per
point should be 1 within 3 of its own errors (points of one function are correlated: from their
covariance), errors at most 1 % of the function's largest value.  Then many small measurements of a
small gas: the share of results within one error, pooled over all observables, should be 0.683; its
error is that of independent measurements.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import cyclopts
import jax
import numpy as np

from heg.config import Config, ModelConfig, RunConfig, SamplerConfig, SystemConfig
from heg.gas.ideal import choose_cutoff, ideal_values
from heg.observables.momentum import ideal_momentum, momentum_shells
from heg.observables.programs import instruments
from heg.observables.quantities import Quantity
from heg.observables.structure import ideal_structure
from heg.observables.thermodynamics import distributions, thermodynamic_quantities
from heg.parallel import processes
from heg.training.step import build

GASES = {
    "2D N = 29": (
        SystemConfig(29, 2, rs=1.0, theta=0.5, polarization="1", twist=(0.25, 0.25), coupling=0.0),
        32_768,
    ),
    "3D N = 33": (SystemConfig(33, 3, rs=1.0, theta=0.5, polarization="1", coupling=0.0), 32_768),
    # g of opposite spins needs many: few pairs are close
    "3D 7 + 7": (SystemConfig(14, 3, rs=1.0, theta=1.0, polarization="0", coupling=0.0), 425_984),
}
SMALL = SystemConfig(5, 2, rs=1.0, theta=0.5, polarization="1/5", twist=(0.1, 0.2), coupling=0.0)
TOLERANCE = 1e-9  # of the orbital cutoff: exact values are those of the whole gas
FEWEST = 100  # events in a bin or shell, for an error that is Gaussian
WITHIN = math.erf(math.sqrt(0.5))  # share of a Gaussian within one standard deviation


class Case(NamedTuple):
    """A gas made ready.

    Attributes:
      measure: number of a batch -> means of blocks.
      exact: values by name.
      evaluate: means of blocks -> Quantity by name, of those with an exact value.
      counts: of events in a sample by name: pairs in each bin of g, electrons in each shell of
        n(k).
    """

    measure: Callable
    exact: dict[str, np.ndarray]
    evaluate: Callable
    counts: dict[str, np.ndarray]


def make_case(gas: SystemConfig, batch: int, seed: int) -> Case:
    """A gas without flow, sampled and evaluated as heg-measure does."""
    model = ModelConfig(TOLERANCE, flow_layers=0)
    config = Config(gas, RunConfig("none"), model, SamplerConfig(batch=batch))
    solver = build(config)
    system = gas.build()
    tools = instruments(solver, config.sampler)
    state = solver.init(jax.random.key(seed))
    orbitals = solver.cutoff.orbitals
    key = jax.random.key(seed + 1)

    def measure(number):
        batch_key = jax.random.fold_in(key, number)
        means, _, _ = tools.observe(state.average, state.regression, batch_key)
        return jax.tree.map(np.asarray, means)

    exact = _exact(system, orbitals, tools.grid)

    def evaluate(blocks) -> dict[str, Quantity]:
        result = thermodynamic_quantities(system, blocks)
        result |= distributions(system, orbitals, tools.grid, blocks)
        return {name: result[name] for name in exact}

    up = system.n_up
    down = system.n_down
    # each pair is one event, not two
    pairs = np.array([up**2 / 2, up * down, down**2 / 2][: len(exact["g_r"])])
    shells, _ = momentum_shells(system, orbitals)
    counts = {
        "g_r": pairs[:, None] * exact["g_r"] * tools.grid.share,
        "n_k": shells.count * exact["n_k"],
    }
    return Case(measure, exact, evaluate, counts)


def _exact(system, orbitals, grid) -> dict[str, np.ndarray]:
    """Exact values by name; F and the potential energy have no error to look at."""
    everything = choose_cutoff(system, 1e-12).orbitals
    structure = ideal_structure(system, everything, grid)
    values = {
        **ideal_values(system),
        "S_q": structure.s,
        "g_r": structure.g,
        "n_k": ideal_momentum(system, orbitals),
    }
    del values["F"], values["potential"]
    return {name: np.asarray(value) for name, value in values.items()}


def joined(parts):
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def flat(arrays) -> np.ndarray:
    """All values of several arrays in one row."""
    return np.concatenate([np.ravel(array) for array in arrays])


def counted(name: str, case: Case, samples: int) -> np.ndarray:
    """The points of which FEWEST events are expected; the fluctuations of fewer are not
    Gaussian."""
    everywhere = np.full(np.shape(case.exact[name]), np.inf)
    events = case.counts.get(name, everywhere) * samples
    return np.ravel(events > FEWEST)


def compare(name: str, case: Case, quantity: Quantity, samples: int) -> str:
    """A row: the farthest point in errors, chi^2 per point and its error, the largest error beside
    the function."""
    exact = case.exact[name]
    # n(k) is compared everywhere; errors of zero are those of identities
    keep = quantity.error.ravel() > 1e-12
    if name == "g_r":
        keep &= counted(name, case, samples)
    deviation = (quantity.value - exact).ravel()[keep]
    error = quantity.error.ravel()[keep]
    if not len(error):
        farthest = np.max(np.abs(quantity.value - exact))
        return f"{name:26} exact in every sample, to {farthest:.0e}"
    pulls = deviation / error
    chi2 = np.mean(pulls**2)
    chi2_error = np.sqrt(2 * np.sum(_correlation(quantity, keep) ** 2)) / len(error)
    largest = np.max(error) / np.max(np.abs(exact))
    return (
        f"{name:26}{len(error):7d}{np.max(np.abs(pulls)):10.2f}"
        f"{chi2:12.2f} +- {chi2_error:.2f}{largest:12.2%}"
    )


def _correlation(quantity, keep):
    """Correlations between the points that are kept."""
    covariance = quantity.covariance
    if covariance is None:
        covariance = quantity.error**2
    error = quantity.error.ravel()[keep]
    return np.atleast_2d(covariance)[np.ix_(keep, keep)] / error[:, None] / error


def main(*, repetitions: int = 400, batch: int = 4096, seed: int = 0) -> None:
    """Prints the tables.

    Args:
      repetitions: of the small measurement, a batch each.
      batch: samples drawn at once.
      seed: of all random numbers.
    """
    processes.start()
    for title, (gas, samples) in GASES.items():
        case = make_case(gas, batch, seed)
        # whole batches, as in heg-measure
        batches = -(-samples // batch)
        blocks = joined([case.measure(number) for number in range(batches)])
        state = f"r_s {gas.rs:g}, Theta {gas.theta:g}"
        print(f"\n{title}, {state}, {samples} samples")
        print(f"{'':26}{'points':>7}{'farthest':>10}{'chi^2/point':>20}{'error/max':>12}")
        for name, quantity in case.evaluate(blocks).items():
            print(compare(name, case, quantity, samples), flush=True)
    coverage(make_case(SMALL, batch, seed), repetitions, batch)


def coverage(case: Case, repetitions: int, batch: int) -> None:
    """Prints the share of results within one error, of each function and of all, with and without
    rare events."""
    names = list(case.exact)
    within = []
    kept = []
    for number in range(repetitions):
        result = case.evaluate(case.measure(number))
        deviation = flat(np.abs(result[name].value - case.exact[name]) for name in names)
        error = flat(result[name].error for name in names)
        within.append(deviation < error)
        kept.append(error > 1e-12)
    within = np.array(within)
    kept = np.array(kept)
    often = np.concatenate([counted(name, case, batch) for name in names])
    owner = np.repeat(names, [np.size(case.exact[name]) for name in names])
    print(
        f"\n{repetitions} measurements of {batch} samples, 3 up + 2 down in 2D: "
        "share of results within one error;"
    )
    print(f"{WITHIN:.4f} if errors are right.  Frequent: {FEWEST} events or more are expected.")
    for name in [*names, "all"]:
        own = np.ones(len(owner), bool) if name == "all" else owner == name
        every_point = _share(within, kept & own)
        frequent = _share(within, kept & own & often)
        print(f"{name:26}{every_point}   frequent {frequent}")


def _share(within, kept):
    """Pooled over points in each measurement; the error is that of independent measurements."""
    shares = np.sum(within & kept, axis=1) / np.sum(kept, axis=1)
    error = np.std(shares, ddof=1) / np.sqrt(len(shares))
    return f"{np.mean(shares):.4f} +- {error:.4f}"


if __name__ == "__main__":
    cyclopts.run(main)
