r"""Samples of (K, x): exact draws, and Markov chains as the check.

An exact draw of x at given K takes two steps.  |det e^{ikz}|^2 is a projection determinantal point
process, so z is
drawn electron by electron: with e_1 ... e_j the orthonormalised vectors phi(z) of the electrons
already placed, phi the N plane waves, the next z is uniform in the box and accepted with
probability (N - sum_j |e_j^+ phi(z)|^2) / N (Hough, Krishnapur, Peres and Virag, Probab. Surveys 3,
206 (2006), doi:10.1214/154957806000000078).  Then x = f^-1(z), verified; a draw whose inverse is
not found is drawn again at the same K and counted.

The chains move all electrons of a walker at once: Metropolis by a Gaussian of width w, MALA by the
same about

.. math:: x + \tfrac{w^2}{2} \nabla \ln|\Psi|^2

with the drift shortened to the length of a typical Gaussian step, as near a node it diverges
(Roberts and Tweedie, Bernoulli 2, 341 (1996): Metropolis-adjusted Langevin, truncated).

Randomness belongs to the walker, not to its place in the batch or the machine that computes it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from heg.gas.plane_waves import Orbitals, make_waves
from heg.gas.system import System
from heg.model.flow import Flow
from heg.parallel.devices import map_walkers

CANDIDATES = 32  # positions tried at once
BLOCKS = 100  # of candidates for each electron at most; ln N + 1 candidates are enough on average.  Ends draws of NaN
ATTEMPTS = 20  # draws of one walker before it is given up


class Walkers(NamedTuple):
    """A batch of samples.

    Attributes:
      state: occupied orbitals K, increasing within a spin. [B, N] int32
      x: positions, bohr.                                   [B, N, d]
    """

    state: jax.Array
    x: jax.Array


class Draws(NamedTuple):
    """Exact draws of x.

    Attributes:
      x: bohr.                                              [B, N, d]
      redrawn: walkers whose inverse failed and that were drawn again.    [] int
      lost: walkers for which no draw succeeded: their x means nothing.   [] int
    """

    x: jax.Array
    redrawn: jax.Array
    lost: jax.Array


def draw_determinant(
    waves: Callable, box: float, shape: tuple[int, int], key: jax.Array
) -> jax.Array:
    """Exact draw of the positions of one spin from |det e^{i k_a z_b}|^2.

    Candidates come in blocks.  What is left of the chance of a candidate only falls as electrons
    are placed, so one that was refused stays refused, and those after the one taken serve the next
    electron.

    Args:
      waves: points [P, d] -> the N occupied plane waves there, each of modulus one.    [P, N]
      box: L, bohr.
      shape: N, d.
      key: of this walker and spin.
    Returns:
      z: bohr, in [0, L)^d.                                 [N, d]
    """
    electrons, dim = shape

    def block(carry):
        number, placed, z, basis = carry
        key_where, key_accept = jax.random.split(jax.random.fold_in(key, number))
        candidates = box * jax.random.uniform(key_where, (CANDIDATES, dim))
        threshold = electrons * jax.random.uniform(key_accept, (CANDIDATES,))
        phi = waves(candidates)
        left = electrons - jnp.sum(_squared(phi @ basis.conj().T), axis=1)

        def place(carry):
            left, placed, z, basis = carry
            first = jnp.argmax(threshold < left)
            vector = phi[first]
            for _ in range(2):  # twice, for rounding
                vector = vector - (basis.conj() @ vector) @ basis
            vector = vector / jnp.sqrt(jnp.sum(_squared(vector)))
            z, basis = z.at[placed].set(candidates[first]), basis.at[placed].set(vector)
            return left - _squared(phi @ vector.conj()), placed + 1, z, basis

        more = lambda carry: jnp.any(threshold < carry[0]) & (carry[1] < electrons)
        return number + 1, *lax.while_loop(more, place, (left, placed, z, basis))[1:]

    start = (0, 0, jnp.zeros((electrons, dim)), jnp.zeros((electrons, electrons), complex))
    unfinished = lambda carry: (carry[1] < electrons) & (carry[0] < BLOCKS * electrons)
    return lax.while_loop(unfinished, block, start)[2]


def _squared(amplitude):
    return jnp.real(amplitude) ** 2 + jnp.imag(amplitude) ** 2


def make_draw(system: System, orbitals: Orbitals, flow: Flow, chunk: int) -> Callable:
    """Exact draws of x as a function of (flow params, state [B, N], keys [B]) -> Draws, `chunk`
    walkers at a time."""
    waves = make_waves(system, orbitals)

    def attempt(params, state, key):
        keys = jax.random.split(key, len(system.spins))
        draw_spin = lambda spin, count, key: draw_determinant(
            lambda z: waves(z, state[spin]), system.box, (count, system.dim), key
        )
        return flow.inverse(
            params, jnp.concatenate(list(map(draw_spin, system.parts, system.spins, keys)))
        )

    def draw_one(params, state, key):
        def again(carry):
            number, _ = carry
            return number + 1, attempt(params, state, jax.random.fold_in(key, number))

        unverified = lambda carry: ~carry[1].verified & (carry[0] < ATTEMPTS)
        return lax.while_loop(
            unverified, again, (1, attempt(params, state, jax.random.fold_in(key, 0)))
        )

    def draw(params, state, keys):
        attempts, inverse = map_walkers(
            lambda walker: draw_one(params, *walker), (state, keys), chunk
        )
        return Draws(inverse.x, jnp.sum(attempts > 1), jnp.sum(~inverse.verified))

    return draw


class Chain(NamedTuple):
    """Where the chain of one walker ended.

    Attributes:
      x: bohr.                                              [N, d]
      acceptance: share of the moves accepted.              []
    """

    x: jax.Array
    acceptance: jax.Array


def metropolis(
    log_prob: Callable, x: jax.Array, width: jax.Array, key: jax.Array, moves: int
) -> Chain:
    """Moves of one walker with a symmetric Gaussian proposal.

    Args:
      log_prob: x [N, d] -> ln |Psi|^2.
      x: start, bohr.                                       [N, d]
      width: of the proposal, bohr.                         []
      key: of this walker.
      moves: how many.
    """
    return mala(lambda x: (log_prob(x), jnp.zeros_like(x)), x, width, key, moves)


def mala(
    log_prob_and_gradient: Callable, x: jax.Array, width: jax.Array, key: jax.Array, moves: int
) -> Chain:
    """Moves of one walker along the gradient of ln |Psi|^2; with a gradient of zero they are those
    of Metropolis.

    Args:
      log_prob_and_gradient: x [N, d] -> ln |Psi|^2 [] and its gradient [N, d].
      x, width, key, moves: as in `metropolis`.
    """
    longest = width * np.sqrt(x.size)

    def look(x):
        log_prob, gradient = log_prob_and_gradient(x)
        drift = width**2 / 2 * gradient
        return log_prob, drift * jnp.minimum(
            1, longest / jnp.maximum(jnp.linalg.norm(drift), 1e-300)
        )

    def move(carry, key):
        x, log_prob, drift = carry
        key_move, key_accept = jax.random.split(key)
        noise = jax.random.normal(key_move, x.shape)
        proposed = x + drift + width * noise
        new_log_prob, new_drift = look(proposed)
        back = (x - proposed - new_drift) / width
        log_ratio = new_log_prob - log_prob - (jnp.sum(back**2) - jnp.sum(noise**2)) / 2
        accept = jnp.log(jax.random.uniform(key_accept)) < log_ratio
        choose = lambda new, old: jnp.where(accept, new, old)
        return jax.tree.map(choose, (proposed, new_log_prob, new_drift), carry), accept

    (x, _, _), accepted = lax.scan(move, (x, *look(x)), jax.random.split(key, moves))
    return Chain(x, accepted.mean())


def make_chain(kind: str, log_psi: Callable, score: Callable) -> Callable:
    """Chain of one walker as a function of (flow params, state [N], x [N, d], width, key, moves).

    Args:
      kind: "metropolis" or "mala".
      log_psi, score: of heg.model.wavefunction, functions of (flow params, x, state).
    """

    def chain(params, state, x, width, key, moves):
        log_prob = lambda x: 2 * jnp.real(log_psi(params, x, state))
        if kind == "metropolis":
            return metropolis(log_prob, x, width, key, moves)
        return mala(
            lambda x: (log_prob(x), 2 * jnp.real(score(params, x, state).x)), x, width, key, moves
        )

    return chain


def adapt_width(width: jax.Array, acceptance: jax.Array, target: float) -> jax.Array:
    """A wider proposal when more is accepted than the target, a narrower one when less, by a tenth
    at most."""
    return width * jnp.clip(acceptance / target, 1 / 1.1, 1.1)


def first_width(system: System) -> float:
    """Width of the proposal before it is adapted, bohr: a move is about r_s long in the space of
    all coordinates."""
    return system.rs / np.sqrt(system.electrons * system.dim)
