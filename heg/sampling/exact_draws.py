r"""Exact draws of x at given K.

A draw takes two steps.  |det e^{ikz}|^2 is a projection determinantal point process, so that z is
drawn electron by electron.  Let phi(z) be the N plane waves at z, and e_1 ... e_j the
orthonormalised vectors phi of the electrons already placed.  The next z is uniform in the box and
accepted with probability (N - sum_j |e_j^+ phi(z)|^2) / N (Hough, Krishnapur, Peres and Virag,
Probab. Surveys 3, 206 (2006), doi:10.1214/154957806000000078).

Then x = f^-1(z), verified.  A draw whose inverse is not found is drawn again at the same K and
counted.

Randomness belongs to the walker, not to its place in the batch or the machine that computes it.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from heg.gas.plane_waves import Orbitals, make_waves
from heg.gas.plasma import Plasma
from heg.gas.system import System
from heg.model.flow import Flow
from heg.model.inverse import Inverse
from heg.parallel.devices import map_walkers

CANDIDATES = 32  # positions tried at once
# Blocks of candidates for each electron at most.  ln N + 1 candidates are enough on average; the
# bound ends draws of NaN.
BLOCKS = 100
ATTEMPTS = 20  # draws of one walker before it is given up


class Draws(NamedTuple):
    """Exact draws of x.

    Attributes:
      x: bohr.
      redrawn: number of walkers whose inverse failed and that were drawn again.
      lost: number of walkers for which no draw succeeded; their x means nothing.
    """

    x: Float[Array, "batch electrons dim"]
    redrawn: Int[Array, ""]
    lost: Int[Array, ""]


class _Placed(NamedTuple):
    """The electrons placed so far.

    Attributes:
      number: of them.
      z: their positions, zero for the others.              [N, d]
      basis: their plane waves, orthonormalised.            [N, N]
    """

    number: jax.Array | int
    z: jax.Array
    basis: jax.Array


class _Block(NamedTuple):
    """The number of the next block of candidates, and the electrons placed so far."""

    number: jax.Array | int
    placed: _Placed


class _Thinned(NamedTuple):
    """The electrons placed so far, and the chance left to each candidate times N."""

    chance: jax.Array
    placed: _Placed


def draw_determinant(
    waves: Callable, box: float, shape: tuple[int, int], key: jax.Array
) -> Float[Array, "electrons dim"]:
    """Exact draw of the positions of one spin from |det e^{i k_a z_b}|^2.

    Candidates come in blocks.  The chance of a candidate only falls as electrons are placed, so
    that one that was refused stays refused.  Those after the one taken serve the next electron.

    Args:
      waves: points [P, d] -> the N occupied plane waves there, each of modulus one.    [P, N]
      box: L, bohr.
      shape: N, d.
      key: of this walker and spin.
    Returns:
      z: bohr, in [0, L)^d.
    """
    electrons, dim = shape

    def unfinished(block):
        missing = block.placed.number < electrons
        return missing & (block.number < BLOCKS * electrons)

    def try_block(block):
        # a key for each block: the candidates do not depend on how many were needed before
        block_key = jax.random.fold_in(key, block.number)
        key_where, key_accept = jax.random.split(block_key)
        candidates = box * jax.random.uniform(key_where, (CANDIDATES, dim))
        threshold = electrons * jax.random.uniform(key_accept, (CANDIDATES,))
        phi = waves(candidates)
        # those that are left over are thrown away with the block
        placed = _place_candidates(candidates, threshold, phi, block.placed)
        return _Block(block.number + 1, placed)

    nobody = _Placed(
        number=0,
        z=jnp.zeros((electrons, dim)),
        basis=jnp.zeros((electrons, electrons), complex),
    )
    end = lax.while_loop(unfinished, try_block, _Block(0, nobody))
    return end.placed.z


def _place_candidates(candidates, threshold, phi, placed):
    """The electrons placed once a block of candidates is used up.

    Args:
      candidates: positions, bohr.                          [P, d]
      threshold: N times a uniform number; a candidate is accepted below N times its chance. [P]
      phi: plane waves at the candidates.                   [P, N]
      placed: the electrons placed before.
    """
    electrons = phi.shape[1]

    def any_accepted(thinned):
        accepted = jnp.any(threshold < thinned.chance)
        return accepted & (thinned.placed.number < electrons)

    def place(thinned):
        chance, placed = thinned
        number = placed.number
        # the first candidate that is accepted
        accepted = threshold < chance
        first = jnp.argmax(accepted)
        vector = _orthonormalised(phi[first], placed.basis)
        placed = _Placed(
            number=number + 1,
            z=placed.z.at[number].set(candidates[first]),
            basis=placed.basis.at[number].set(vector),
        )
        # N - sum_j |e_j^+ phi|^2 has one term more
        overlap = phi @ vector.conj()
        chance = chance - _squared_modulus(overlap)
        return _Thinned(chance, placed)

    # the electrons of earlier blocks; rows of the basis that are still empty are zero
    overlaps = phi @ placed.basis.conj().T
    taken = jnp.sum(_squared_modulus(overlaps), axis=1)
    start = _Thinned(electrons - taken, placed)
    return lax.while_loop(any_accepted, place, start).placed


def _orthonormalised(vector, basis):
    for _ in range(2):  # twice, for rounding
        # Gram and Schmidt
        along = basis.conj() @ vector
        vector = vector - along @ basis
    squared_norm = jnp.sum(_squared_modulus(vector))
    return vector / jnp.sqrt(squared_norm)


def _squared_modulus(amplitude):
    return jnp.real(amplitude) ** 2 + jnp.imag(amplitude) ** 2


class _Attempts(NamedTuple):
    """The number of draws of one walker and the last of them."""

    number: jax.Array | int
    inverse: Inverse


@functools.singledispatch
def make_draw_of_z(system: System, orbitals: Orbitals) -> Callable:
    """Exact draws of z of one walker, a function of (state [N], key), in bohr.  [N, d]"""
    waves = make_waves(system, orbitals)

    def draw_spin(state, spin, count, key):
        def occupied_waves(z):
            return waves(z, state[spin])

        shape = (count, system.dim)
        return draw_determinant(occupied_waves, system.box, shape, key)

    def draw(state, key):
        # the spins share the flow alone: their determinants are drawn independently
        keys = jax.random.split(key, len(system.spins))
        parts = []
        for spin, count, spin_key in zip(system.parts, system.spins, keys):
            parts.append(draw_spin(state, spin, count, spin_key))
        return jnp.concatenate(parts)

    return draw


@make_draw_of_z.register
def _(system: Plasma, orbitals: Orbitals) -> Callable:
    """z of a classical plasma are uniform in the cell."""

    def draw(state, key):
        return system.box * jax.random.uniform(key, (system.electrons, system.dim))

    return draw


def make_draw(system: System, orbitals: Orbitals, flow: Flow, chunk: int) -> Callable:
    """Exact draws of x, `chunk` walkers at a time.

    Returns:
      A function of (flow params, state [B, N], keys [B]) whose value is a Draws.
    """
    draw_z = make_draw_of_z(system, orbitals)

    def attempt(params, state, key):
        z = draw_z(state, key)
        return flow.inverse(params, z)

    def draw_one(params, state, key):
        def unfinished(attempts):
            return ~attempts.inverse.verified & (attempts.number < ATTEMPTS)

        def again(attempts):
            # the same K: another one would favour those that are easy to invert
            number = attempts.number
            attempt_key = jax.random.fold_in(key, number)
            return _Attempts(number + 1, attempt(params, state, attempt_key))

        first_key = jax.random.fold_in(key, 0)
        first = attempt(params, state, first_key)
        return lax.while_loop(unfinished, again, _Attempts(1, first))

    def draw(params, state, keys):
        def one(state_and_key):
            return draw_one(params, *state_and_key)

        attempts, inverse = map_walkers(one, (state, keys), chunk)
        # a walker that is still not verified has used up all attempts
        redrawn = jnp.sum(attempts > 1)
        lost = jnp.sum(~inverse.verified)
        return Draws(inverse.x, redrawn, lost)

    return draw
