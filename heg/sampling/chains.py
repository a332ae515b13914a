r"""Markov chains of x at given K, the check of the exact draws.

The chains move all electrons of a walker at once.  Metropolis proposes a Gaussian of width w; MALA
proposes the same about

.. math:: x + \tfrac{w^2}{2} \nabla \ln|\Psi|^2 .

The drift is shortened to the length of a typical Gaussian step, as it diverges near a node (Roberts
and Tweedie, Bernoulli 2, 341 (1996): Metropolis-adjusted Langevin, truncated).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from heg.gas.system import System

# an equal bound on a rise and a fall of the width, so that two opposite corrections cancel
LARGEST_CHANGE = 1.1


class Chain(NamedTuple):
    """The end of the chain of one walker.

    Attributes:
      x: bohr.
      acceptance: share of the moves accepted.
    """

    x: Float[Array, "electrons dim"]
    acceptance: Float[Array, ""]


class _Place(NamedTuple):
    """A configuration with ln |Psi|^2 and the drift of the next proposal there."""

    x: jax.Array
    log_prob: jax.Array
    drift: jax.Array


def metropolis(
    log_prob: Callable,
    x: Float[Array, "electrons dim"],
    width: jax.Array,
    key: jax.Array,
    moves: int,
) -> Chain:
    """Moves of one walker with a symmetric Gaussian proposal.

    Args:
      log_prob: x [N, d] -> ln |Psi|^2.
      x: start, bohr.
      width: of the proposal, bohr.
      key: of this walker.
      moves: their number.
    """

    def without_gradient(x):
        return log_prob(x), jnp.zeros_like(x)

    return mala(without_gradient, x, width, key, moves)


def mala(
    log_prob_and_gradient: Callable,
    x: Float[Array, "electrons dim"],
    width: jax.Array,
    key: jax.Array,
    moves: int,
) -> Chain:
    """Moves of one walker along the gradient of ln |Psi|^2.

    With a gradient of zero they are those of Metropolis.

    Args:
      log_prob_and_gradient: x [N, d] -> ln |Psi|^2 [] and its gradient [N, d].
      x, width, key, moves: as in `metropolis`.
    """
    longest = width * np.sqrt(x.size)  # length of a typical Gaussian step

    def look_at(x):
        log_prob, gradient = log_prob_and_gradient(x)
        # Langevin's step of time w^2 / 2
        drift = width**2 / 2 * gradient
        # the bound keeps a drift of zero from 0 / 0
        length = jnp.maximum(jnp.linalg.norm(drift), 1e-300)
        shortened = drift * jnp.minimum(1, longest / length)
        return _Place(x, log_prob, shortened)

    def move(here, key):
        key_move, key_accept = jax.random.split(key)
        noise = jax.random.normal(key_move, here.x.shape)
        proposed = here.x + here.drift + width * noise
        there = look_at(proposed)
        # the noise that would bring the walker back: its chance makes up for the asymmetry
        noise_back = (here.x - there.x - there.drift) / width
        back = jnp.sum(noise_back**2)
        forth = jnp.sum(noise**2)
        asymmetry = back - forth
        # accepted with probability min(1, ratio)
        log_ratio = there.log_prob - here.log_prob - asymmetry / 2
        uniform = jax.random.uniform(key_accept)
        log_uniform = jnp.log(uniform)
        accept = log_uniform < log_ratio

        def choose(new, old):
            return jnp.where(accept, new, old)

        return jax.tree.map(choose, there, here), accept

    keys = jax.random.split(key, moves)
    end, accepted = lax.scan(move, look_at(x), keys)
    return Chain(end.x, accepted.mean())


def make_chain(kind: str, log_psi: Callable, score: Callable) -> Callable:
    """Chain of one walker as a function of (flow params, state [N], x [N, d], width, key, moves).

    Args:
      kind: "metropolis" or "mala".
      log_psi, score: of heg.model.wavefunction, functions of (flow params, x, state).
    """

    def chain(params, state, x, width, key, moves):
        # ln |Psi|^2 = 2 Re ln Psi, and so its gradient
        def log_prob(x):
            return 2 * jnp.real(log_psi(params, x, state))

        def log_prob_and_gradient(x):
            value = log_prob(x)
            of_psi = score(params, x, state)
            gradient = 2 * jnp.real(of_psi.x)
            return value, gradient

        if kind == "metropolis":
            return metropolis(log_prob, x, width, key, moves)
        return mala(log_prob_and_gradient, x, width, key, moves)

    return chain


def adapt_width(width: jax.Array, acceptance: jax.Array, target: float) -> jax.Array:
    """A wider proposal when more than the target is accepted, a narrower one when less.

    The change is a tenth at most.
    """
    change = acceptance / target
    return width * jnp.clip(change, 1 / LARGEST_CHANGE, LARGEST_CHANGE)


def first_width(system: System) -> float:
    """Width of the proposal before it is adapted, bohr.

    A move is then about r_s long in the space of all coordinates.
    """
    return system.rs / np.sqrt(system.electrons * system.dim)
