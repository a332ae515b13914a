"""Energy of a classical plasma by a plain Metropolis chain, which knows nothing of the flow.

    python scripts/check_plasma.py --dim 2 --electrons 16 --gamma 1 5 10 20

It prints beta u per electron of the cell, to stand beside the reweighted energy of heg-solve
(docs/theory.md, section 19).  Walkers start from uniform positions; a quarter of the sweeps is for
equilibrium and for the width of the moves.

Source: Metropolis et al., J. Chem. Phys. 21, 1087 (1953), doi:10.1063/1.1699114.
"""

from typing import Annotated, Literal, NamedTuple

import cyclopts
import jax
import jax.numpy as jnp
import numpy as np

from heg import plasma
from heg.gas.coulomb import coulomb_energy
from heg.statistics import Estimate, independent

EQUILIBRIUM = 0.25  # share of the sweeps before energies are taken
ACCEPTANCE = 0.4  # of the moves, aimed at by their width
app = cyclopts.App(help=__doc__)


class Walker(NamedTuple):
    """Positions in units of r_s, and beta times their Coulomb energy."""

    x: jax.Array
    energy: jax.Array


def make_chains(gas):
    """Two functions: start of (key, number of walkers), and sweep of (walkers, keys, width).

    A sweep has as many moves of one electron as there are electrons.
    """

    def energy(x):
        return gas.coupling * coulomb_energy(x, gas)

    def move(walker, key, width):
        key_electron, key_step, key_toss = jax.random.split(key, 3)
        electron = jax.random.randint(key_electron, (), 0, gas.electrons)
        step = width * jax.random.normal(key_step, (gas.dim,))
        moved = walker.x.at[electron].add(step)
        proposed = Walker(moved, energy(moved))
        chance = walker.energy - proposed.energy
        accepted = jnp.log(jax.random.uniform(key_toss)) < chance
        choose = lambda new, old: jnp.where(accepted, new, old)
        return jax.tree.map(choose, proposed, walker), accepted

    def sweep(walker, key, width):
        keys = jax.random.split(key, gas.electrons)
        walker, accepted = jax.lax.scan(lambda w, key: move(w, key, width), walker, keys)
        inside = jnp.mod(walker.x, gas.box)
        return walker._replace(x=inside), accepted.mean()

    def start(key, walkers):
        x = gas.box * jax.random.uniform(key, (walkers, gas.electrons, gas.dim))
        return Walker(x, jax.vmap(energy)(x))

    return start, jax.jit(jax.vmap(sweep, in_axes=(0, 0, None)))


def energy_of(gas, walkers: int, sweeps: int, seed: int) -> Estimate:
    """beta u per electron of the cell, its error from the walkers, which are independent."""
    start, sweep = make_chains(gas)
    key = jax.random.key(seed)
    walker = start(key, walkers)
    width = gas.rs
    first = int(EQUILIBRIUM * sweeps)
    total = np.zeros(walkers)
    for number in range(sweeps):
        keys = jax.random.split(jax.random.fold_in(key, number), walkers)
        walker, accepted = sweep(walker, keys, width)
        if number < first:
            excess = float(accepted.mean()) - ACCEPTANCE
            width *= np.exp(excess / 2)
        else:
            total += np.asarray(walker.energy)
    return independent(total / (sweeps - first) / gas.electrons)


@app.default
def main(
    *,
    gamma: Annotated[list[float], cyclopts.Parameter(consume_multiple=True)],
    dim: Literal[2, 3] = 3,
    electrons: int = 16,
    walkers: int = 64,
    sweeps: int = 1200,
    seed: int = 0,
) -> None:
    """Prints a line for each coupling.

    Args:
      gamma: coupling parameters.
      dim: dimensions.
      electrons: in the cell.
      walkers: independent chains.
      sweeps: of each.
      seed: of the random numbers.
    """
    for coupling in gamma:
        energy = energy_of(plasma(electrons, dim, coupling), walkers, sweeps, seed)
        print(f"{dim}D, N = {electrons}, Gamma {coupling:g}: beta u / N = {energy}", flush=True)


if __name__ == "__main__":
    app()
