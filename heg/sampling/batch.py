"""The batch of walkers of one step: new states K for all, then exact draws or chains of x."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from heg.config import SamplerConfig
from heg.gas.plane_waves import Orbitals
from heg.gas.system import System
from heg.model.density_matrix import Model, Params
from heg.parallel.devices import map_walkers
from heg.sampling.chains import adapt_width, first_width, make_chain
from heg.sampling.exact_draws import make_draw


class Walkers(NamedTuple):
    """A batch of samples.

    Attributes:
      state: occupied orbitals K, increasing within a spin, int32.
      x: positions, bohr.
    """

    state: Int[Array, "batch electrons"]
    x: Float[Array, "batch electrons dim"]


class Walk(NamedTuple):
    """The walkers of one step, with the record of their drawing.

    Attributes:
      walkers: the batch.
      width: of the next proposal of chains, bohr.
      acceptance: of the moves of chains; 1 for exact draws.
      redrawn: number of draws repeated.
      lost: number of draws given up.
    """

    walkers: Walkers
    width: jax.Array
    acceptance: jax.Array
    redrawn: jax.Array
    lost: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Walks:
    """The two ways to a batch, as pure functions: new K, then exact draws or chains of x.

    Attributes:
      system: the gas.
      orbitals: the plane waves of p(K).
      model: its density matrix.
      config: batch, kind of chain, moves and acceptance.
      chunk: walkers computed at once.
    """

    system: System
    orbitals: Orbitals
    model: Model
    config: SamplerConfig
    chunk: int

    def states(self, params: Params, key: jax.Array) -> Int[Array, "batch electrons"]:
        """New K, exact draws.  The same key may serve for what follows."""
        # the order of the random streams here and below is part of reproducibility
        key_states, _ = jax.random.split(key)
        keys = jax.random.split(key_states, self.config.batch)

        def sample(key):
            return self.model.occupations.sample(params.occupations, key)

        return map_walkers(sample, keys, self.chunk)

    def draw(self, params: Params, states: Int[Array, "batch electrons"], key: jax.Array) -> Walk:
        """Exact draws of x at given K."""
        _, key_x = jax.random.split(key)
        # a key for each walker: what it draws does not depend on the others
        keys = jax.random.split(key_x, self.config.batch)
        draw_positions = make_draw(self.system, self.orbitals, self.model.flow, self.chunk)
        draws = draw_positions(params.flow, states, keys)
        return Walk(
            walkers=Walkers(states, draws.x),
            width=jnp.asarray(first_width(self.system)),
            acceptance=jnp.ones(()),
            redrawn=draws.redrawn,
            lost=draws.lost,
        )

    def chain(self, params: Params, walkers: Walkers, width: jax.Array, key: jax.Array) -> Walk:
        """Chains at the K of the walkers, from where these are."""
        config = self.config
        move = make_chain(config.sampler, self.model.log_psi, self.model.score)
        _, key_move = jax.random.split(key)
        # a key for each walker, as in `draw`
        keys = jax.random.split(key_move, config.batch)

        def one(walker):
            state, x, key = walker
            return move(params.flow, state, x, width, key, config.moves)

        # each walker goes on at a new K; the moves must bring it to equilibrium there
        x, accepted = map_walkers(one, (walkers.state, walkers.x, keys), self.chunk)
        acceptance = accepted.mean()
        # back into the box: far from it, differences of positions lose digits
        x = jnp.mod(x, self.system.box)
        return Walk(
            walkers=Walkers(walkers.state, x),
            width=adapt_width(width, acceptance, config.acceptance),
            acceptance=acceptance,
            redrawn=_none(),
            lost=_none(),
        )


def make_walks(
    system: System, orbitals: Orbitals, model: Model, config: SamplerConfig, chunk: int
) -> Walks:
    """Both ways to a batch, `chunk` walkers at a time."""
    return Walks(
        system=system,
        orbitals=orbitals,
        model=model,
        config=config,
        chunk=chunk,
    )


def anywhere(system: System, batch: int, key: jax.Array) -> Walk:
    """A batch at uniform positions.

    Where no walker is carried from step to step, a run needs no better start.
    """
    shape = (batch, system.electrons, system.dim)
    # the state means nothing yet: the first step draws another
    state = jnp.zeros(shape[:2], jnp.int32)
    x = system.box * jax.random.uniform(key, shape)
    return Walk(
        walkers=Walkers(state, x),
        width=jnp.asarray(first_width(system)),
        acceptance=jnp.ones(()),
        redrawn=_none(),
        lost=_none(),
    )


def _none():
    return jnp.zeros((), int)
