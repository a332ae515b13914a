r"""Samples of (K, x): exact draws, and Metropolis chains as the check.

An exact draw of x at given K takes two steps.  |det e^{ikz}|^2 is a projection determinantal point process, so z is
drawn electron by electron: with e_1 ... e_j the orthonormalised vectors phi(z) of the electrons already placed, phi
the N plane waves, the next z is uniform in the box and accepted with probability (N - sum_j |e_j^+ phi(z)|^2) / N
(Hough, Krishnapur, Peres and Virag, Probab. Surveys 3, 206 (2006), doi:10.1214/154957806000000078).  Then
x = f^-1(z), verified; a draw whose inverse is not found is drawn again at the same K and counted.

Everything here acts on a batch of walkers: randomness belongs to the walker, not to the machine that computes it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from heg.flow import Flow
from heg.orbitals import Orbitals
from heg.system import System

CANDIDATES = 16  # positions tried at once for one electron
ATTEMPTS = 20  # draws of one walker before it is given up


class Walkers(NamedTuple):
    """A batch of samples.

    Attributes:
      state: occupied orbitals K, increasing within a spin. [B, N] int32
      x: positions, bohr.                                   [B, N, d]
      log_prob: ln |Psi_K(x)|^2 up to a constant.           [B]
    """

    state: jax.Array
    x: jax.Array
    log_prob: jax.Array


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


def draw_determinant(k: jax.Array, box: float, key: jax.Array) -> jax.Array:
    """Exact draw of the positions of one spin from |det e^{i k_a z_b}|^2.

    Args:
      k: occupied wavevectors, 1/bohr.                      [N, d]
      box: L, bohr.
      key: of this walker and spin.
    Returns:
      z: bohr, in [0, L)^d.                                 [N, d]
    """
    electrons, dim = k.shape

    def place(carry):
        placed, step, z, basis = carry
        key_where, key_accept = jax.random.split(jax.random.fold_in(key, step))
        candidates = box * jax.random.uniform(key_where, (CANDIDATES, dim))
        phi = jnp.exp(1j * candidates @ k.T)
        overlap = phi @ basis.conj().T
        accepted = electrons * jax.random.uniform(key_accept, (CANDIDATES,)) < electrons - jnp.sum(
            jnp.abs(overlap) ** 2, 1
        )
        first = jnp.argmax(accepted)
        vector = phi[first] - overlap[first] @ basis
        vector = vector - (basis.conj() @ vector) @ basis  # twice, for rounding
        row = (jnp.arange(electrons) == placed)[:, None] & accepted[first]
        z = jnp.where(row, candidates[first], z)
        basis = jnp.where(row, vector / jnp.maximum(jnp.linalg.norm(vector), 1e-300), basis)
        return placed + accepted[first], step + 1, z, basis

    start = (0, 0, jnp.zeros((electrons, dim)), jnp.zeros((electrons, electrons), complex))
    return lax.while_loop(lambda carry: carry[0] < electrons, place, start)[2]


def make_draw(system: System, orbitals: Orbitals, flow: Flow) -> Callable:
    """Exact draws of x as a function of (flow params, state [B, N], keys [B]) -> Draws."""
    wavevectors = jnp.asarray(orbitals.k)

    def attempt(params, state, key):
        k = wavevectors[state]
        keys = jax.random.split(key, len(system.spins))
        parts = (k[: system.n_up], k[system.n_up :])
        z = jnp.concatenate([draw_determinant(part, system.box, key) for part, key in zip(parts, keys)])
        return flow.inverse(params, z)

    def draw_one(params, state, key):
        def again(carry):
            number, _ = carry
            return number + 1, attempt(params, state, jax.random.fold_in(key, number))

        unverified = lambda carry: ~carry[1].verified & (carry[0] < ATTEMPTS)
        return lax.while_loop(unverified, again, (1, attempt(params, state, jax.random.fold_in(key, 0))))

    def draw(params, state, keys):
        attempts, inverse = jax.vmap(draw_one, (None, 0, 0))(params, state, keys)
        return Draws(inverse.x, jnp.sum(attempts > 1), jnp.sum(~inverse.verified))

    return draw


def metropolis_step(log_prob: Callable, walkers: Walkers, width: jax.Array, key: jax.Array):
    """One all-electron move of every walker with a symmetric Gaussian proposal.

    Args:
      log_prob: x [N, d], state [N] -> ln |Psi|^2 of one walker.
      walkers: the batch.
      width: of the proposal, bohr.                         []
      key: of this step.
    Returns:
      Walkers and the share of accepted moves.
    """
    key_move, key_accept = jax.random.split(key)
    x = walkers.x + width * jax.random.normal(key_move, walkers.x.shape)
    proposal = walkers._replace(x=x, log_prob=jax.vmap(log_prob)(x, walkers.state))
    log_uniform = jnp.log(jax.random.uniform(key_accept, walkers.log_prob.shape))
    accept = log_uniform < proposal.log_prob - walkers.log_prob
    choose = lambda new, old: jnp.where(accept.reshape(-1, *(1,) * (new.ndim - 1)), new, old)
    return jax.tree.map(choose, proposal, walkers), accept.mean()


def metropolis(log_prob: Callable, walkers: Walkers, width: jax.Array, key: jax.Array, moves: int):
    """`moves` steps of every walker; log_prob of the walkers given is computed afresh.

    Returns:
      Walkers, wrapped into the box by the caller, and the mean acceptance.
    """
    walkers = walkers._replace(log_prob=jax.vmap(log_prob)(walkers.x, walkers.state))

    def move(walkers, key):
        return metropolis_step(log_prob, walkers, width, key)

    walkers, acceptance = lax.scan(move, walkers, jax.random.split(key, moves))
    return walkers, acceptance.mean()


def adapt_width(width: jax.Array, acceptance: jax.Array, target: float) -> jax.Array:
    """A wider proposal when more is accepted than the target, a narrower one when less, by a tenth at most."""
    return width * jnp.clip(acceptance / target, 1 / 1.1, 1.1)


def first_width(system: System) -> float:
    """Width of the proposal before it is adapted, bohr: a move is about r_s long in the space of all coordinates."""
    return system.rs / np.sqrt(system.electrons * system.dim)
