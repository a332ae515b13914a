r"""The trained function eta of a pair: one small network for each kind of pair.

eta is a network of one hidden layer on the even features (cos theta, s / r_s), bounded.  Its
derivatives by the features are products of its weights with the derivatives of tanh.

Between opposite spins in two dimensions a cusp term comes on top.  There the local energy has an
infinite variance unless ln|Psi| ~ lambda r / (d - 1) at contact (Kato, Commun. Pure Appl. Math. 10,
151 (1957), doi:10.1002/cpa.3160100201).  docs/derivations.md, section 8, derives its weight.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from heg.gas.system import System
from heg.model.pairs import Separations, make_pairs

# Bound of the network's |eta| in a layer.  A lone pair keeps 1 + 2 eta > 0.6; it takes 1 / BOUND
# electrons to fold a layer.
BOUND = 0.2


class Layer(NamedTuple):
    """One layer of the flow, or all of them with the layers along the first axis.

    Attributes:
      params: of the networks.
      cusp: strength lambda of the cusp of opposite spins in two dimensions.
    """

    params: dict
    cusp: jax.Array


class _Weights(NamedTuple):
    """Parameters of the network v . tanh(w^T f + b): w [F, width], b [width] and v [width]."""

    hidden: jax.Array
    shift: jax.Array
    output: jax.Array


class PairNetwork(hk.Module):
    r"""eta as a function of the features of one layer and one kind of pair.

    For an isolated pair, eta ~ n_0 + n_1 r makes ln|Psi| ~ (d + 1) n_1 r / (1 + 2 n_0).  So a pair
    that needs a cusp gets a term -w a e^{-s/a}, whose weight w is solved for.  The first layer
    carries the cusp of an isolated pair, whatever the network; deeper layers have no slope at
    contact.

    One caveat: electrons near the pair change the slope by a share of order D.  The divergence is
    weaker by the square of that share, but not gone.  The largest deviation and the error of half
    of the samples in summary.json show it.
    """

    def __init__(self, system: System, width: int, name: str):
        super().__init__(name=name)
        self.system = system
        self.width = width

    def __call__(
        self,
        features: Float[Array, "features pairs"],
        cusp: jax.Array | None = None,
        order: int = 0,
    ):
        """Derivatives of eta by the features.

        Args:
          features: cos theta and s / r_s of each pair.
          cusp: lambda of this layer; None where no cusp is needed.
          order: of the highest derivative, at most 2.
        Returns:
          eta [pairs], its gradient [F, pairs] and second derivatives [F, F, pairs], as far as
          the order goes.
        """
        inputs = self.system.dim + 1
        spread = hk.initializers.TruncatedNormal(1 / np.sqrt(inputs))
        weights = _Weights(
            hidden=hk.get_parameter("hidden", (inputs, self.width), float, init=spread),
            shift=hk.get_parameter("shift", (self.width,), float, init=jnp.zeros),
            # the output starts at zero: without a cusp, the untrained flow is the identity
            output=hk.get_parameter("output", (self.width,), float, init=jnp.zeros),
        )
        eta = _network_derivatives(weights, features, order)
        if cusp is None:
            return eta
        return self._with_cusp(weights, features, cusp, eta)

    def _with_cusp(self, weights, features, cusp, eta):
        """The derivatives of eta plus those of the term -w a e^{-s/a}."""
        d = self.system.dim
        rs = self.system.rs
        at_contact = jnp.append(jnp.ones(d), 0.0)[:, None]
        value, gradient = _network_derivatives(weights, at_contact, 1)
        # derivations, section 8, lengths in units of r_s: `missing` is what the slope lacks
        factor = (d + 1) * (d - 1)
        length = 1 / jnp.maximum(2.0, 3 * self.system.coupling * rs / factor)
        missing = rs * cusp * (1 + 2 * value[0]) - factor * gradient[-1, 0]
        amplitude = -length * missing / (factor + 2 * length * rs * cusp)
        term = amplitude * jnp.exp(-features[-1] / length)

        derivatives = []
        for order, tensor in enumerate(eta):
            # the term depends on the distance alone, which is the last feature
            last = (-1,) * order
            derivatives.append(tensor.at[last].add(term * (-1 / length) ** order))
        return tuple(derivatives)


def _network_derivatives(weights, features, order):
    """Derivatives by the features of b tanh(sum_h v_h tanh(a_h) / b), b = BOUND."""
    hidden = weights.hidden
    activation = hidden.T @ features + weights.shift[:, None]
    inner = []
    coefficients = weights.output
    for slope in _tanh_derivatives(activation, order):
        # derivations, section 3: "h,hp->p", then "h,fh,hp->fp", then "h,fh,gh,hp->fgp"
        inner.append(jnp.tensordot(coefficients, slope, 1))
        one_axis_more = (len(hidden), *(1,) * (coefficients.ndim - 1), -1)
        coefficients = hidden.reshape(one_axis_more) * coefficients

    outer = []
    for number, slope in enumerate(_tanh_derivatives(inner[0] / BOUND, order)):
        outer.append(BOUND ** (1 - number) * slope)

    eta = [outer[0]]
    if order >= 1:
        eta.append(outer[1] * inner[1])
    if order >= 2:
        eta.append(outer[1] * inner[2] + outer[2] * inner[1][:, None] * inner[1])
    return eta


def _tanh_derivatives(a, order):
    """tanh a and its derivatives up to the order, at most 2."""
    t = jnp.tanh(a)
    slope = 1 - t**2
    return (t, slope, -2 * t * slope)[: order + 1]


@dataclasses.dataclass(frozen=True)
class PairNetworks:
    """The networks of one layer, one for each kind of pair that the gas has.

    Attributes:
      system: the gas.
      width: of the hidden layer.
    """

    system: System
    width: int

    @functools.cached_property
    def kinds(self) -> dict[str, slice]:
        """The kinds of pairs that the gas has, each with its range of all pairs."""
        return make_pairs(self.system).kinds

    @functools.cached_property
    def _transformed(self):
        def evaluate(kind, *arguments):
            return PairNetwork(self.system, self.width, name=kind)(*arguments)

        return hk.without_apply_rng(hk.transform(evaluate))

    def init(self, key: jax.Array) -> dict:
        """Parameters of one layer."""
        features = jnp.zeros((self.system.dim + 1, 1))
        keys = jax.random.split(key, len(self.kinds))
        params = {}
        for kind_key, kind in zip(keys, self.kinds):
            params.update(self._transformed.init(kind_key, kind, features))
        return params

    def eta(self, layer: Layer, kind: str) -> Callable:
        """Derivatives of eta of one kind of pair, as a function of (features, order)."""
        # equal spins never meet, and in three dimensions a wrong cusp costs no more than variance
        needs_cusp = kind == "opposite" and self.system.dim == 2
        cusp = layer.cusp if needs_cusp else None

        def derivatives(features, order):
            return self._transformed.apply(layer.params, kind, features, cusp, order)

        return derivatives

    def for_all_pairs(
        self, function: Callable, layer: Layer, between: Separations, *arguments
    ) -> tuple[jax.Array, ...]:
        """Values of a function of heg.model.pairs, with the network of each pair's kind.

        Args:
          function: `displacement` or `curvature`.
          layer: the layer whose networks are meant.
          between: separations of all pairs.
          arguments: further ones of the function; arrays have the pairs last.
        Returns:
          The tensors of the function, the pairs last.
        """
        values = []
        for kind, part in self.kinds.items():

            def of_kind(leaf, part=part):
                return leaf[..., part] if np.ndim(leaf) else leaf

            own = jax.tree.map(of_kind, (between, *arguments))
            values.append(function(self.eta(layer, kind), self.system, *own))
        return tuple(jnp.concatenate(tensors, axis=-1) for tensors in zip(*values))
