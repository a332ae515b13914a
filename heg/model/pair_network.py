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
    """Parameters of the network v . tanh(w^T f + t): w [F, width], t [width] and v [width]."""

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
        value, slope = self._at_contact(weights)

        # derivations, section 8, with lengths in units of r_s; w is the ratio below
        kato = (d + 1) * (d - 1)
        # a = min(r_s / 2, (d^2 - 1) / 3 lambda), short enough to keep 1 + 2 eta >= 0.6
        strongest = 3 * self.system.coupling * rs / kato
        length = 1 / jnp.maximum(2.0, strongest)
        # the slope at contact that Kato asks for, less that of the network
        missing_slope = rs * cusp * (1 + 2 * value) - kato * slope
        amplitude = -length * missing_slope / (kato + 2 * length * rs * cusp)
        distance = features[-1]
        decay = jnp.exp(-distance / length)
        term = amplitude * decay

        derivatives = []
        for order, tensor in enumerate(eta):
            # the term depends on the distance alone, which is the last feature
            derivative = term * (-1 / length) ** order
            last = (-1,) * order
            derivatives.append(tensor.at[last].add(derivative))
        return tuple(derivatives)

    def _at_contact(self, weights):
        """The network's eta and its slope by s / r_s where two electrons meet."""
        features = jnp.append(jnp.ones(self.system.dim), 0.0)
        value, gradient = _network_derivatives(weights, features[:, None], 1)
        return value[0], gradient[-1, 0]


def _network_derivatives(weights, features, order):
    """Derivatives by the features of b tanh(y / b), y = sum_h v_h tanh(a_h), b = BOUND."""
    y = _hidden_layer_derivatives(weights, features, order)
    # derivatives of b tanh(y / b) by y
    outer = []
    for number, slope in enumerate(_tanh_derivatives(y[0] / BOUND, order)):
        outer.append(BOUND ** (1 - number) * slope)

    # derivations, section 3: the chain rule
    eta = [outer[0]]
    if order >= 1:
        gradient = y[1]
        eta.append(outer[1] * gradient)
    if order >= 2:
        # "p,fgp->fgp" and "p,fp,gp->fgp"
        straight = outer[1] * y[2]
        bent = outer[2] * gradient[:, None] * gradient
        eta.append(straight + bent)
    return eta


def _hidden_layer_derivatives(weights, features, order):
    """Derivatives by the features of y = sum_h v_h tanh(a_h), a = w^T f + t."""
    w = weights.hidden
    shift = weights.shift[:, None]
    a = w.T @ features + shift
    derivatives = []
    coefficients = weights.output
    for slope in _tanh_derivatives(a, order):
        # derivations, section 3: "h,hp->p", then "h,fh,hp->fp", then "h,fh,gh,hp->fgp"
        derivatives.append(jnp.tensordot(coefficients, slope, 1))
        # each derivative brings down one more factor w_fh
        between_axes = (1,) * (coefficients.ndim - 1)
        coefficients = w.reshape(len(w), *between_axes, -1) * coefficients
    return derivatives


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
            own = _part_of((between, *arguments), part)
            eta = self.eta(layer, kind)
            values.append(function(eta, self.system, *own))
        # the kinds lie one after the other along the pairs
        return tuple(jnp.concatenate(tensors, axis=-1) for tensors in zip(*values))


def _part_of(tree, part):
    """Some of the pairs of every array of a tree; plain numbers stay as they are."""

    def pairs_of(leaf):
        return leaf[..., part] if np.ndim(leaf) else leaf

    return jax.tree.map(pairs_of, tree)
