"""The batch of walkers of one step: new states K for all, then exact draws of x or chains carried
on."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from heg.config import SamplerConfig
from heg.gas.plane_waves import Orbitals
from heg.gas.system import System
from heg.model.density_matrix import Model
from heg.parallel.devices import map_walkers
from heg.sampling.exact_draws import Walkers, adapt_width, first_width, make_chain, make_draw


class Walk(NamedTuple):
    """Walkers of one step and how they came about.

    Attributes:
      walkers: the batch.
      width: of the next proposal of chains, bohr.
      acceptance: of the moves of chains; 1 for exact draws.
      redrawn, lost: draws repeated, draws given up.
    """

    walkers: Walkers
    width: jax.Array
    acceptance: jax.Array
    redrawn: jax.Array
    lost: jax.Array


class Walks(NamedTuple):
    """Ways to a batch, as pure functions.

    Attributes:
      draw: params, key -> Walk of exact draws.
      chain: params, Walkers, width, key -> Walk, the same walkers moved on at new K.
    """

    draw: Callable
    chain: Callable


def make_walks(
    system: System, orbitals: Orbitals, model: Model, config: SamplerConfig, chunk: int
) -> Walks:
    """Both ways, `chunk` walkers at a time."""
    none = jnp.zeros((), int)
    draw_x = make_draw(system, orbitals, model.flow, chunk)

    def new_states(params, key):
        sample = lambda key: model.occupations.sample(params.occupations, key)
        return map_walkers(sample, jax.random.split(key, config.batch), chunk)

    def draw(params, key):
        key_state, key_x = jax.random.split(key)
        state = new_states(params, key_state)
        draws = draw_x(params.flow, state, jax.random.split(key_x, config.batch))
        width = jnp.asarray(first_width(system))
        return Walk(Walkers(state, draws.x), width, jnp.ones(()), draws.redrawn, draws.lost)

    def chain(params, walkers, width, key):
        move = make_chain(config.sampler, model.log_psi, model.score)
        key_state, key_move = jax.random.split(key)
        state, keys = new_states(params, key_state), jax.random.split(key_move, config.batch)
        one = lambda walker: move(params.flow, walker[0], walker[1], width, walker[2], config.moves)
        x, accepted = map_walkers(one, (state, walkers.x, keys), chunk)
        acceptance = accepted.mean()
        width = adapt_width(width, acceptance, config.acceptance)
        return Walk(Walkers(state, jnp.mod(x, system.box)), width, acceptance, none, none)

    return Walks(draw, chain)


def anywhere(system: System, batch: int, key: jax.Array) -> Walk:
    """A batch at uniform positions: where no walker is carried from step to step, a run needs no
    better start."""
    shape = batch, system.electrons, system.dim
    walkers = Walkers(jnp.zeros(shape[:2], jnp.int32), system.box * jax.random.uniform(key, shape))
    none = jnp.zeros((), int)
    return Walk(walkers, jnp.asarray(first_width(system)), jnp.ones(()), none, none)
