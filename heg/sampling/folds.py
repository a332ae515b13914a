"""Is the flow a bijection?  Two searches for places where it folds, which samples of |Psi|^2 avoid.

A layer is one if det J > 0 everywhere; then the variational bound holds (docs/theory.md, section
2).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from heg.gas.system import System
from heg.model.density_matrix import Model
from heg.parallel.devices import map_walkers
from heg.sampling.exact_draws import Walkers

DESCENTS = 8  # walkers from which the lowest determinant is sought, those with the closest pairs


class Quality(NamedTuple):
    """What shows whether a flow is a bijection.

    Attributes:
      min_det: lowest determinant of a layer found.         []
      folded: one sample of the folded measure per key.     [keys]
    """

    min_det: jax.Array
    folded: jax.Array


def lowest_determinant(
    model: Model, system: System, flow_params: dict, walkers: Walkers
) -> jax.Array:
    """Lowest det J of any layer found by descent from the walkers with the closest pairs; 1 without
    a flow.  []"""
    if not flow_params:
        return jnp.ones(())
    first, second = np.triu_indices(system.electrons, 1)
    r = walkers.x[:, first] - walkers.x[:, second]
    distance = jnp.linalg.norm(r - system.box * jnp.round(r / system.box), axis=-1)
    start = walkers.x[jnp.argsort(distance.min(axis=1))[:DESCENTS]]
    return jnp.min(
        map_walkers(lambda x: model.flow.lowest_determinants(flow_params, x), start, DESCENTS)
    )


def folded_measure(
    model: Model, system: System, flow_params: dict, keys: jax.Array, chunk: int
) -> jax.Array:
    """Twice the negative part of det J_l at x uniform in the box, the largest over the layers; one
    sample per key.

    Its mean is E|det J_l| - 1, twice the measure lost by a layer that is no bijection; zero for a bijection.  [keys]
    """

    def one(key):
        x = system.box * jax.random.uniform(key, (system.electrons, system.dim))
        determinant = lambda x, layer: (x, jnp.linalg.det(model.flow.apply(layer, x)[1]))
        return jnp.max(
            jnp.maximum(-2 * lax.scan(determinant, x, model.flow.layers(flow_params))[1], 0)
        )

    if not flow_params:
        return jnp.zeros(len(keys))
    return map_walkers(one, keys, chunk)
