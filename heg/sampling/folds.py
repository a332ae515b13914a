"""Two searches for places where the flow folds, which samples of |Psi|^2 avoid.

A layer is a bijection if det J > 0 everywhere; then the variational bound holds (docs/theory.md,
section 2).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from heg.gas.system import System
from heg.model.density_matrix import Model
from heg.parallel.devices import map_walkers
from heg.sampling.batch import Walkers

DESCENTS = 8  # walkers from which the lowest determinant is sought, those with the closest pairs


class Quality(NamedTuple):
    """The evidence that a flow is a bijection.

    Attributes:
      min_det: lowest determinant of a layer found.
      folded: one sample of the folded measure for each key.
      attraction: of heg.model.monotone; below 1 the flow is proven to be a bijection.
    """

    min_det: Float[Array, ""]
    folded: Float[Array, " keys"]
    attraction: Float[Array, ""]


def lowest_determinant(
    model: Model, system: System, flow_params: dict, walkers: Walkers
) -> Float[Array, ""]:
    """Lowest det J of any layer, found by descent from the walkers with the closest pairs.

    It is 1 without a flow.
    """
    if not flow_params:
        return jnp.ones(())
    # a crowd folds a layer first, so that the search starts where electrons are closest
    closest = _closest_pair(walkers.x, system.box)
    order = jnp.argsort(closest)
    start = walkers.x[order[:DESCENTS]]

    def descend(x):
        return model.flow.lowest_determinants(flow_params, x)

    # of each start and each layer
    lowest = map_walkers(descend, start, DESCENTS)
    return jnp.min(lowest)


def _closest_pair(x, box):
    """Smallest distance of nearest images in each configuration, bohr.  [B]"""
    first, second = np.triu_indices(x.shape[1], 1)
    r = x[:, first] - x[:, second]
    nearest = r - box * jnp.round(r / box)
    distance = jnp.linalg.norm(nearest, axis=-1)
    return distance.min(axis=1)


def folded_measure(
    model: Model, system: System, flow_params: dict, keys: jax.Array, chunk: int
) -> Float[Array, " keys"]:
    """Samples of the measure that a layer folds, the largest over the layers, one for each key.

    Each is twice the negative part of det J_l at an x uniform in the box.  Their mean is
    E|det J_l| - 1, twice the measure lost by a layer that is no bijection, and zero for a
    bijection.
    """
    if not flow_params:
        return jnp.zeros(len(keys))

    # every layer is judged at the same uniform x, not at the image of the layers before
    def determinant(x, layer):
        _, jacobian = model.flow.apply(layer, x)
        return x, jnp.linalg.det(jacobian)

    def one(key):
        x = system.box * jax.random.uniform(key, (system.electrons, system.dim))
        _, determinants = lax.scan(determinant, x, model.flow.layers(flow_params))
        # |det| - det = -2 det where it is negative
        folded = jnp.maximum(-2 * determinants, 0)
        return jnp.max(folded)

    return map_walkers(one, keys, chunk)
