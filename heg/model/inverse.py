r"""The inverse of a layer of the flow, verified.

Newton's method follows the homotopy x + t (f(x) - x) = z from the identity at t = 0 to the layer
at t = 1.  An x counts as verified if f(x) = z within rounding and det J > 0 there.  A fold of the
layer can therefore make the search fail, but never return an x that is turned over.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from heg.gas.system import System

# |f(x) - z| / L below which an x is verified; the step of Newton's that follows squares it
RESIDUAL = 1e-8
NEWTON_STEPS = 12  # at t = 1, after the homotopy
# steps of the homotopy; the next number is tried if the inverse is not verified
STRIDES = (1, 2, 8, 32, 128, 256)


class Inverse(NamedTuple):
    """The inverse x = f^-1(z) and its proof.

    Attributes:
      x: bohr.
      verified: whether every layer has |f(x) - z| < 1e-8 L and det J > 0.
    """

    x: Float[Array, "electrons dim"]
    verified: Bool[Array, ""]


class _Search(NamedTuple):
    """The state of the search for x.

    Attributes:
      attempt: index of the number of steps of the homotopy.
      step: of this attempt, from 1.
      x: where the next step of Newton's begins.
      verified: whether the last step began at an inverse.
    """

    attempt: jax.Array | int
    step: jax.Array | int
    x: jax.Array
    verified: jax.Array


class _NewtonStep(NamedTuple):
    """A solution of J move = residual, with the sign of det J from the same factorisation."""

    move: jax.Array
    positive: jax.Array


def invert_layer(layer: Callable, z: Float[Array, "electrons dim"], system: System) -> Inverse:
    """The x with layer(x) = z; the search starts at z.

    Args:
      layer: x -> z and J, as Flow.apply at given parameters.
      z: image, bohr.
      system: gives L and r_s.
    """
    # an entry for the attempt after the last one, which ends the loop
    strides = jnp.asarray((*STRIDES, 1))

    def unfinished(search):
        return ~search.verified & (search.attempt < len(STRIDES))

    def newton(search):
        x = search.x
        stride = strides[search.attempt]
        t = jnp.minimum(search.step / stride, 1.0)
        # the homotopy x + t (f(x) - x) = z at this t
        image, jacobian = layer(x)
        residual = x + t * (image - x) - z
        identity = jnp.eye(x.size)
        derivative = identity + t * (jacobian - identity)

        move, positive = _solve(derivative, residual)
        solved = _largest(residual) < RESIDUAL * system.box
        verified = (t == 1) & positive & solved
        # no electron moves further than half of r_s
        limit = system.rs / 2 / _largest(move)
        move *= jnp.minimum(1, limit)
        # an attempt that ends without a verified x is followed by one of more steps, from z again
        last_step = search.step == stride + NEWTON_STEPS
        again = last_step & ~verified
        return _Search(
            attempt=search.attempt + again,
            step=jnp.where(again, 1, search.step + 1),
            x=jnp.where(again, z, x - move),
            verified=verified,
        )

    start = _Search(
        attempt=0,
        step=1,
        x=z,
        verified=jnp.array(False),
    )
    end = lax.while_loop(unfinished, newton, start)
    return Inverse(end.x, end.verified)


def _largest(vectors):
    return jnp.max(jnp.abs(vectors))


def _solve(matrix, residual):
    """One step of Newton's from one factorisation, in a form that GPUs batch."""
    size = residual.size
    # The right-hand side goes through the factorisation as one more column, with the swaps of the
    # rows.  A last row that no swap touches makes the matrix square: GPUs factorise a batch of
    # square matrices at once, others one by one.
    extended = jnp.column_stack([matrix, residual.ravel()])
    last_row = jnp.zeros((1, size + 1))
    last_row = last_row.at[0, -1].set(1.0)
    extended = jnp.concatenate([extended, last_row])
    lu, pivots, _ = lax.linalg.lu(extended)

    upper = lu[:-1, :-1]
    right_hand_side = lu[:-1, -1:]
    move = lax.linalg.triangular_solve(upper, right_hand_side, left_side=True)
    # every swap and every negative pivot changes the sign of the determinant
    swaps = jnp.sum(pivots != jnp.arange(size + 1))
    negative = jnp.sum(jnp.diagonal(lu) < 0)
    return _NewtonStep(
        move=move.reshape(residual.shape),
        positive=(swaps + negative) % 2 == 0,
    )
