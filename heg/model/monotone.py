r"""The proof that a layer of the flow is a bijection, where it holds.

A layer moves electrons by z_i = x_i + sum_j gamma(x_i - x_j).  Let lambda be the strongest
attraction of its displacement, the largest eigenvalue of -(gamma' + gamma'^T) / 2 over all
separations.  For electrons of one spin and any delta

.. math:: \delta^T J \delta \ge |\delta|^2 - \lambda \sum_{i<j} |\delta_i - \delta_j|^2
          \ge (1 - N \lambda) |\delta|^2 .

So the layer is strictly monotone if N lambda < 1: it is one to one, and det J > 0 everywhere.  With
two spins the second sum has lambda_s for equal and lambda_o for opposite spins, and what takes the
place of N lambda is the largest of N_up lambda_s + N_down lambda_o, N_down lambda_s + N_up lambda_o
and N lambda_o (docs/theory.md, section 2).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from heg.gas.system import System
from heg.model.flow import Flow
from heg.model.pair_network import Layer
from heg.model.pairs import Separations, displacement

GRID_POINTS = {2: 48, 3: 20}  # separations along each side of the cell, by dimension


class _Attraction(NamedTuple):
    """lambda of equal and of opposite spins; zero for pairs that a gas does not have."""

    same: Float[Array, ""]
    opposite: Float[Array, ""]


def largest_attraction(flow: Flow, params: dict) -> Float[Array, ""]:
    """N lambda of the layer where it is largest; below 1 the flow is proven to be one to one.

    Args:
      flow: the flow.
      params: of all its layers.

    Accuracy: an upper bound as far as the second derivatives of gamma on a grid of separations tell
      how much gamma' may change between its points.
    """
    if not flow.depth:
        return jnp.zeros(())

    def of_layer(layer):
        attraction = _attraction(flow, layer)
        return _share(flow.system, attraction)

    return jnp.max(jax.lax.map(of_layer, flow.layers(params)))


def _share(system: System, attraction: _Attraction):
    """What takes the place of N lambda for one layer."""
    same, opposite = attraction
    up = system.n_up * same + system.n_down * opposite
    down = system.n_down * same + system.n_up * opposite
    of_one_spin = jnp.maximum(up, down)
    return jnp.maximum(of_one_spin, system.electrons * opposite)


def _attraction(flow: Flow, layer: Layer) -> _Attraction:
    kinds = flow.networks.kinds
    zero = jnp.zeros(())
    return _Attraction(
        same=_strongest(flow, layer, "same") if "same" in kinds else zero,
        opposite=_strongest(flow, layer, "opposite") if "opposite" in kinds else zero,
    )


def _strongest(flow, layer, kind):
    """lambda of one kind of pair: its largest value on the grid, and what may lie between."""
    system = flow.system
    between, spacing = separation_grid(system)
    eta = flow.networks.eta(layer, kind)
    _, derivative, second = displacement(eta, system, between, 2)
    # minus the lowest eigenvalue of (gamma' + gamma'^T) / 2
    transposed = derivative.swapaxes(0, 1)
    symmetric = (derivative + transposed) / 2
    matrices = jnp.moveaxis(symmetric, -1, 0)
    eigenvalues = jnp.linalg.eigvalsh(matrices)
    attraction = -eigenvalues[:, 0]
    # no separation is farther than that from a point of the grid
    reach = spacing * np.sqrt(system.dim) / 2
    # an eigenvalue changes by no more than the norm of the change of the matrix
    squares = jnp.sum(second**2, axis=(0, 1, 2))
    change = jnp.sqrt(squares)
    strongest = jnp.max(attraction + reach * change)
    return jnp.maximum(strongest, 0.0)


def separation_grid(system: System) -> tuple[Separations, float]:
    """Separations on a regular grid over the cell, none of them zero, and its spacing in bohr."""
    points = GRID_POINTS[system.dim]
    spacing = system.box / points
    # midpoints: at zero, where two electrons meet, the distance has no derivative
    axis = (np.arange(points) + 0.5) / points
    grids = np.meshgrid(*[axis] * system.dim, indexing="ij")
    fractions = np.stack(grids).reshape(system.dim, -1)
    angle = 2 * np.pi * fractions  # theta
    # s = (L / pi) |sin(theta / 2)|
    half = np.sin(angle / 2)
    length = np.sqrt(np.sum(half**2, axis=0))
    distance = system.box / np.pi * length
    between = Separations(
        sine=jnp.asarray(np.sin(angle)),
        cosine=jnp.asarray(np.cos(angle)),
        distance=jnp.asarray(distance),
    )
    return between, spacing
