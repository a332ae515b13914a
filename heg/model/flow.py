r"""The flow z = f(x), a stack of backflow layers, with the Jacobians of the layers.

Each layer moves every electron by a sum over pairs of the displacement of heg.model.pairs.  There
is one network for pairs of equal and one for pairs of opposite spin:

.. math:: z_i = x_i + \sum_{j \ne i} g(x_i - x_j), \qquad g(r) = \eta(r) u(r) .

Its Jacobian is closed: with e_i the unit vectors of the electrons and D = dg/dr (d x d),

.. math:: J = 1 + \sum_{i<j} (e_i - e_j)(e_i - e_j)^T \otimes D_{ij}, \qquad
          \ln|\det \partial z/\partial x| = \sum_l \ln|\det J_l| .

With M = J^{-1} in d x d blocks, W_ij = M_ii + M_jj - M_ij - M_ji and D2 the derivative of D,

.. math:: d \ln\det J = \sum_{i<j} \mathrm{tr}(W_{ij}\, dD_{ij}), \qquad
          \nabla \ln\det J = \sum_{i<j} (e_i - e_j) \otimes w_{ij}, \quad w_c = \sum_{ab} W_{ba}
          D2_{abc} .

f commutes with permutations within a spin and with global translations.  It is a bijection of the
torus as long as det J_l > 0 everywhere.  |eta| is bounded in every layer, so that it takes several
electrons to fold one: a crowd in one correlation hole, or distant ones that add up.
`Flow.lowest_determinants` searches for the place where that happens first.

Source: Feynman's backflow (Feynman and Cohen, Phys. Rev. 102, 1189 (1956),
doi:10.1103/PhysRev.102.1189), stacked.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float

from heg.gas.system import System
from heg.model.inverse import Inverse, invert_layer
from heg.model.pair_network import Layer, PairNetworks
from heg.model.pairs import Pairs, Separations, curvature, displacement, make_pairs, separations

# steps of the search for the lowest determinant, in units of r_s
DESCENT = np.geomspace(0.4, 0.1, 12)


@dataclasses.dataclass(frozen=True)
class FlowSize:
    """Size of the flow: layers (0: the identity) and width of the pair networks."""

    layers: int
    width: int


class _LogDeterminant(NamedTuple):
    """ln det J of a layer in its parts.

    Attributes:
      second_differences: W.                                [d, d, pairs]
      slope: w.                                             [d, pairs]
      derivative: D.                                        [d, d, pairs]
      jacobian: J.                                          [dN, dN]
    """

    second_differences: jax.Array
    slope: jax.Array
    derivative: jax.Array
    jacobian: jax.Array


@dataclasses.dataclass(frozen=True)
class Flow:
    """The flow as pure functions of its parameters and one configuration.

    Attributes:
      system: the gas.
      size: of the flow.
    """

    system: System
    size: FlowSize

    @functools.cached_property
    def pairs(self) -> Pairs:
        """All pairs of electrons."""
        return make_pairs(self.system)

    @functools.cached_property
    def networks(self) -> PairNetworks:
        """The networks of one layer."""
        return PairNetworks(self.system, self.size.width)

    @property
    def depth(self) -> int:
        """Number of layers; none for a single electron, which has no pairs."""
        return self.size.layers if self.system.electrons > 1 else 0

    def init(self, key: jax.Array) -> dict:
        """Parameters, the layers along the first axis of every leaf.

        The flow is then the identity, except for the cusp of heg.model.pair_network.
        """
        if not self.depth:
            return {}
        keys = jax.random.split(key, self.depth)
        return jax.vmap(self.networks.init)(keys)

    def layers(self, params: dict) -> Layer:
        """All layers in the form that lax.scan runs over, the first one first."""
        # the first layer carries the cusp
        is_first = jnp.arange(self.depth) == 0
        cusp = jnp.where(is_first, self.system.coupling, 0.0)
        return Layer(params, cusp)

    def apply(
        self, layer: Layer, x: Float[Array, "electrons dim"]
    ) -> tuple[Float[Array, "electrons dim"], Float[Array, "size size"]]:
        """z and the Jacobian J of one layer."""
        between = self._separations(x)
        g, d = self.networks.for_all_pairs(displacement, layer, between, 1)
        return x + self.pairs.to_electrons(g), self.pairs.to_jacobian(d)

    def curvature(
        self,
        layer: Layer,
        x: Float[Array, "electrons dim"],
        w: Float[Array, "dim dim pairs"],
        c: Float[Array, "dim dim pairs"],
    ) -> tuple[Float[Array, "dim dim dim pairs"], Float[Array, " pairs"]]:
        """D2 and sum_abcd W_ba D3_abcd C_cd of every pair, for the kinetic energy.

        D2 and D3 are the first and second derivatives of D by r = x_i - x_j.
        """
        between = self._separations(x)
        d2, contraction = self.networks.for_all_pairs(curvature, layer, between, w, c)
        return d2, contraction

    def pull_back(
        self,
        layer: Layer,
        x: Float[Array, "electrons dim"],
        cotangent: Complex[Array, "electrons dim"],
    ) -> tuple[Complex[Array, "electrons dim"], dict]:
        """Cotangents of x and of the parameters, of the form cotangent . dz + d ln det J / 2.

        Returns:
          That of x, and those of the parameters: real and imaginary part along a new first axis.
        """
        parts = self._log_determinant(layer, x)
        of_pairs = self.pairs.differences(cotangent)
        # derivations, section 6: cotangent . J, "ap,abp->bp", and half of the slope of ln det J
        through_z = jnp.sum(of_pairs[:, None] * parts.derivative, axis=0)
        of_x = self.pairs.to_electrons(through_z + parts.slope / 2)

        between = self._separations(x)

        def pull(order, *cotangents):
            def terms(params):
                changed = layer._replace(params=params)
                return self.networks.for_all_pairs(displacement, changed, between, order)

            _, pull_to_params = jax.vjp(terms, layer.params)
            (of_params,) = pull_to_params(cotangents)
            return of_params

        # the Jacobian belongs to the modulus of Psi alone, not to its phase
        of_d = parts.second_differences.swapaxes(0, 1) / 2
        real = pull(1, jnp.real(of_pairs), of_d)
        imaginary = pull(0, jnp.imag(of_pairs))
        of_params = jax.tree.map(lambda *leaves: jnp.stack(leaves), real, imaginary)
        return cotangent + of_x, of_params

    def forward(
        self, params: dict, x: Float[Array, "electrons dim"]
    ) -> tuple[Float[Array, "electrons dim"], Float[Array, "layers size size"]]:
        """z and the Jacobian of every layer."""
        if not self.depth:
            return x, jnp.zeros((0, x.size, x.size))

        def through_layer(x, layer):
            return self.apply(layer, x)

        return lax.scan(through_layer, x, self.layers(params))

    def inverse(self, params: dict, z: Float[Array, "electrons dim"]) -> Inverse:
        """The inverse of z, found layer by layer from the last one."""
        if not self.depth:
            return Inverse(z, jnp.array(True))

        def invert(z, layer):
            apply = functools.partial(self.apply, layer)
            inverse = invert_layer(apply, z, self.system)
            return inverse.x, inverse.verified

        x, verified = lax.scan(invert, z, self.layers(params), reverse=True)
        return Inverse(x, verified.all())

    def lowest_determinants(
        self, params: dict, x: Float[Array, "electrons dim"]
    ) -> Float[Array, " layers"]:
        """det J of each layer in the worst place found by descent from x."""
        if not self.depth:
            return jnp.ones(0)

        def descend(layer, x):
            log_determinant = functools.partial(self._sign_log_and_gradient, layer)
            return _lowest_on_descent(log_determinant, x, DESCENT * self.system.rs)

        _, inputs = self.layer_inputs(params, x)
        return jax.vmap(descend)(self.layers(params), inputs)

    def layer_inputs(
        self, params: dict, x: Float[Array, "electrons dim"]
    ) -> tuple[Float[Array, "electrons dim"], Float[Array, "layers electrons dim"]]:
        """z and the configuration that enters each layer."""

        def through_layer(x, layer):
            image, _ = self.apply(layer, x)
            return image, x

        return lax.scan(through_layer, x, self.layers(params))

    def _separations(self, x) -> Separations:
        return separations(self.pairs, self.system, x)

    def _log_determinant(self, layer, x):
        between = self._separations(x)
        _, d, d2 = self.networks.for_all_pairs(displacement, layer, between, 2)
        jacobian = self.pairs.to_jacobian(d)
        m = inverse_blocks(jacobian, self.system.dim)
        w = self.pairs.second_differences(m)
        return _LogDeterminant(w, slope(w, d2), d, jacobian)

    def _sign_log_and_gradient(self, layer, x):
        """Sign of det J, ln |det J| and its gradient."""
        parts = self._log_determinant(layer, x)
        sign, log = jnp.linalg.slogdet(parts.jacobian)
        return sign, log, self.pairs.to_electrons(parts.slope)


def make_flow(system: System, size: FlowSize) -> Flow:
    """The flow of the given gas and size."""
    return Flow(system, size)


def inverse_blocks(
    jacobian: Float[Array, "size size"], dim: int
) -> Float[Array, "electrons dim electrons dim"]:
    """M = J^{-1} in blocks of d x d."""
    electrons = len(jacobian) // dim
    inverse = jnp.linalg.inv(jacobian)
    return inverse.reshape(electrons, dim, electrons, dim)


def slope(
    w: Float[Array, "dim dim pairs"], d2: Float[Array, "dim dim dim pairs"]
) -> Float[Array, "dim pairs"]:
    """Slope w_c = sum_ab W_ba D2_abc of ln det J by r, of every pair."""
    # derivations, section 5: "bap,abcp->cp"
    transposed = w.swapaxes(0, 1)
    return jnp.sum(transposed[:, :, None] * d2, axis=(0, 1))


class _Descent(NamedTuple):
    """A place on the path of descent and the lowest det J so far."""

    x: jax.Array
    lowest: jax.Array


def _lowest_on_descent(log_determinant: Callable, x, steps):
    """Lowest det J on a path of steepest descent from x, which ends where det J <= 0.  []"""

    def move(descent, step):
        x = descent.x
        sign, log, gradient = log_determinant(x)
        determinant = sign * jnp.exp(log)
        lowest = jnp.minimum(descent.lowest, determinant)
        # the largest component moves by the whole step; the bound keeps a flat place from 0 / 0
        largest = jnp.max(jnp.abs(gradient))
        direction = gradient / jnp.maximum(largest, 1e-300)
        moved = x - step * direction
        # a fold has been found: the path ends there
        x = jnp.where(lowest > 0, moved, x)
        return _Descent(x, lowest), None

    start = _Descent(x, jnp.array(np.inf))
    end, _ = lax.scan(move, start, steps)
    return end.lowest
