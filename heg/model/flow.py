r"""The flow z = f(x): a stack of backflow layers, their Jacobians, their inverse.

Each layer moves every electron by a sum over pairs of the displacement of heg.model.pairs, with one
network for pairs of equal and one for pairs of opposite spin:

.. math:: z_i = x_i + \sum_{j \ne i} g(x_i - x_j), \qquad g(r) = \eta(r) u(r) .

Its Jacobian is closed: with e_i the unit vectors of the electrons and D = dg/dr (d x d),

.. math:: J = 1 + \sum_{i<j} (e_i - e_j)(e_i - e_j)^T \otimes D_{ij}, \qquad
          \ln|\det \partial z/\partial x| = \sum_l \ln|\det J_l| .

With M = J^{-1} in d x d blocks, W_ij = M_ii + M_jj - M_ij - M_ji and D2 the derivative of D,

.. math:: d \ln\det J = \sum_{i<j} \mathrm{tr}(W_{ij}\, dD_{ij}), \qquad
          \nabla \ln\det J = \sum_{i<j} (e_i - e_j) \otimes w_{ij}, \quad w_c = \sum_{ab} W_{ba}
          D2_{abc} .

f commutes with permutations within a spin and with global translations, and is a bijection of the
torus as long as det J_l > 0 everywhere.  |eta| is bounded in every layer, so that it takes several
electrons to fold one: a crowd in one correlation hole, or distant ones that add up;
`lowest_determinants` searches for the place where that happens first.

Feynman's backflow (Feynman and Cohen, Phys. Rev. 102, 1189 (1956), doi:10.1103/PhysRev.102.1189),
stacked.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from heg.gas.system import System
from heg.model.pairs import PairNetwork, Pairs, curvature, displacement, pairs_of, separations

RESIDUAL = 1e-8  # |f(x) - z| / L with which the inverse counts as found; one more step of Newton's squares it
NEWTON_STEPS = 12  # at the full map, after the homotopy
STRIDES = (
    1,
    2,
    8,
    32,
    128,
    256,
)  # steps of the homotopy, refined as long as the inverse is not verified
DESCENT = np.geomspace(
    0.4, 0.1, 12
)  # steps of the search for the lowest determinant, in units of r_s


@dataclasses.dataclass(frozen=True)
class FlowSize:
    """Size of the flow: layers (0: the identity) and width of the pair networks."""

    layers: int
    width: int


class Flow(NamedTuple):
    """The flow as pure functions of one configuration.

    Attributes:
      pairs: who meets whom.
      init: key -> params, the layers along the first axis of every leaf.  The flow is the identity
        at initialisation (but for the cusp of `PairNetwork`).
      layers: params -> what lax.scan runs over, first layer first; its items are the `layer` below.
      apply: layer, x [N, d] -> z [N, d], J [dN, dN].
      curvature: layer, x [N, d], W and C [d, d, pairs] -> D2 [d, d, d, pairs] and sum_abcd W_ba
        D3_abcd C_cd [pairs], D2 and D3 the derivatives of D by r = x_i - x_j; for the kinetic
        energy.
      pull_back: layer, x [N, d], cotangent of z [N, d] complex -> that of x, and those of params
        (real and imaginary part along a new first axis), of the form  cotangent . dz + d ln det J /
        2.
      forward: params, x [N, d] -> z [N, d], J of every layer [layers, dN, dN].
      inverse: params, z [N, d] -> Inverse.
      lowest_determinants: params, x [N, d] -> det J_l in the worst place found from x.    [layers]
    """

    pairs: Pairs
    init: Callable
    layers: Callable
    apply: Callable
    curvature: Callable
    pull_back: Callable
    forward: Callable
    inverse: Callable
    lowest_determinants: Callable


class Inverse(NamedTuple):
    """x = f^-1(z) and its proof.

    Attributes:
      x: bohr.                                              [N, d]
      verified: every layer has |f(x) - z| < 1e-8 L and det J > 0.    [] bool
    """

    x: jax.Array
    verified: jax.Array


def make_flow(system: System, size: FlowSize) -> Flow:
    """The flow of the given gas and size."""
    pairs = pairs_of(system)
    init_layer, pair_terms = _make_pair_terms(system, pairs, size.width)
    count = size.layers if system.electrons > 1 else 0

    def init(key):
        return jax.vmap(init_layer)(jax.random.split(key, count)) if count else {}

    def layers(params):
        # the first layer carries the cusp
        return params, jnp.where(jnp.arange(count) == 0, system.coupling, 0.0)

    def apply(layer, x):
        g, d = pair_terms(displacement, layer, separations(pairs, system, x), 1)
        return x + pairs.to_electrons(g), pairs.to_jacobian(d)

    def layer_curvature(layer, x, w, c):
        return pair_terms(curvature, layer, separations(pairs, system, x), w, c)

    def log_determinant(layer, x):
        """W [d, d, pairs], w [d, pairs], D [d, d, pairs], J [dN, dN]."""
        _, d, d2 = pair_terms(displacement, layer, separations(pairs, system, x), 2)
        jacobian = pairs.to_jacobian(d)
        w = pairs.second_differences(inverse_blocks(jacobian, system.dim))
        return w, slope(w, d2), d, jacobian

    def pull_back(layer, x, cotangent):
        w, of_logarithm, d, _ = log_determinant(layer, x)
        of_pairs = pairs.differences(cotangent)
        of_x = pairs.to_electrons(jnp.sum(of_pairs[:, None] * d, axis=0) + of_logarithm / 2)
        between = separations(pairs, system, x)
        terms = lambda order: (
            lambda params: pair_terms(displacement, (params, layer[1]), between, order)
        )
        pull = lambda order, *cotangents: jax.vjp(terms(order), layer[0])[1](cotangents)[0]
        # the phase of Psi knows the Jacobian not
        parts = pull(1, jnp.real(of_pairs), w.swapaxes(0, 1) / 2), pull(0, jnp.imag(of_pairs))
        return cotangent + of_x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)

    def forward(params, x):
        if not count:
            return x, jnp.zeros((0, x.size, x.size))
        return lax.scan(lambda x, layer: apply(layer, x), x, layers(params))

    def inverse(params, z):
        if not count:
            return Inverse(z, jnp.array(True))
        invert = lambda z, layer: _invert(lambda x: apply(layer, x), z, system)
        x, verified = lax.scan(invert, z, layers(params), reverse=True)
        return Inverse(x, verified.all())

    def lowest_determinants(params, x):
        def value_and_gradient(layer, x):
            _, of_logarithm, _, jacobian = log_determinant(layer, x)
            return *jnp.linalg.slogdet(jacobian), pairs.to_electrons(of_logarithm)

        def descend(layer, x):
            return _descend(lambda x: value_and_gradient(layer, x), x, DESCENT * system.rs)

        if not count:
            return jnp.ones(0)
        inputs = lax.scan(lambda x, layer: (apply(layer, x)[0], x), x, layers(params))[1]
        return jax.vmap(descend)(layers(params), inputs)

    return Flow(
        pairs,
        init,
        layers,
        apply,
        layer_curvature,
        pull_back,
        forward,
        inverse,
        lowest_determinants,
    )


def _make_pair_terms(system, pairs, width):
    """key -> parameters of one layer; (function of heg.model.pairs, layer, its arguments) -> its
    values for all pairs."""
    kinds = {"same": slice(0, pairs.same), "opposite": slice(pairs.same, None)}
    kinds = {kind: part for kind, part in kinds.items() if getattr(pairs, kind)}
    network = hk.without_apply_rng(
        hk.transform(lambda kind, *arguments: PairNetwork(system, width, name=kind)(*arguments))
    )

    def init(key):
        features = jnp.zeros((system.dim + 1, 1))
        modules = [
            network.init(k, kind, features)
            for k, kind in zip(jax.random.split(key, len(kinds)), kinds)
        ]
        return {name: module for part in modules for name, module in part.items()}

    def pair_terms(function, layer, between, *arguments):
        params, cusp = layer
        cusps = {"same": None, "opposite": cusp if system.dim == 2 else None}
        eta = lambda kind: (
            lambda features, order: network.apply(params, kind, features, cusps[kind], order)
        )
        of = lambda part: jax.tree.map(
            lambda leaf: leaf[..., part] if np.ndim(leaf) else leaf, (between, *arguments)
        )
        terms = [function(eta(kind), system, *of(part)) for kind, part in kinds.items()]
        return tuple(jnp.concatenate(tensors, axis=-1) for tensors in zip(*terms))

    return init, pair_terms


def inverse_blocks(jacobian: jax.Array, dim: int) -> jax.Array:
    """M = J^{-1} in blocks.  [dN, dN] -> [N, d, N, d]"""
    electrons = len(jacobian) // dim
    return jnp.linalg.inv(jacobian).reshape(electrons, dim, electrons, dim)


def slope(w: jax.Array, d2: jax.Array) -> jax.Array:
    """w_c = sum_ab W_ba D2_abc of every pair.  [d, d, pairs], [d, d, d, pairs] -> [d, pairs]"""
    return jnp.sum(w.swapaxes(0, 1)[:, :, None] * d2, axis=(0, 1))


def _invert(layer, z, system):
    """x with layer(x) = z, by Newton on x + t (layer(x) - x) = z, t rising to 1 in `stride` steps.

    An attempt that does not end in a verified x is followed by one with a finer stride.
    Returns:
      x [N, d], verified [].
    """
    strides = jnp.asarray((*STRIDES, 1))

    def newton(carry):
        attempt, step, x, _ = carry
        t = jnp.minimum(step / strides[attempt], 1.0)
        image, jacobian = layer(x)
        residual = x + t * (image - x) - z
        derivative = jnp.eye(x.size) + t * (jacobian - jnp.eye(x.size))
        # the right-hand side goes through the factorisation as a column of its own, swaps of rows
        # included; a last row that no swap touches makes the matrix square, as GPUs factorise
        # square ones at once, others one by one
        extended = jnp.column_stack([derivative, residual.ravel()])
        extended = jnp.concatenate([extended, jnp.zeros((1, x.size + 1)).at[0, -1].set(1.0)])
        lu, pivots, _ = lax.linalg.lu(extended)
        odd = jnp.sum(pivots != jnp.arange(x.size + 1)) + jnp.sum(jnp.diagonal(lu) < 0)
        found = (t == 1) & (odd % 2 == 0) & (jnp.max(jnp.abs(residual)) < RESIDUAL * system.box)
        move = lax.linalg.triangular_solve(lu[:-1, :-1], lu[:-1, -1:], left_side=True).reshape(
            x.shape
        )
        # no electron moves further than half of r_s
        move *= jnp.minimum(1, system.rs / 2 / jnp.max(jnp.abs(move)))
        again = (step == strides[attempt] + NEWTON_STEPS) & ~found
        return attempt + again, jnp.where(again, 1, step + 1), jnp.where(again, z, x - move), found

    unfinished = lambda carry: ~carry[3] & (carry[0] < len(STRIDES))
    _, _, x, verified = lax.while_loop(unfinished, newton, (0, 1, z, jnp.array(False)))
    return x, verified


def _descend(log_determinant, x, steps):
    """Lowest det J on a path of steepest descent from x, which ends where det J <= 0.  []"""

    def move(carry, step):
        x, lowest = carry
        sign, log, gradient = log_determinant(x)
        lowest = jnp.minimum(lowest, sign * jnp.exp(log))
        direction = gradient / jnp.maximum(jnp.max(jnp.abs(gradient)), 1e-300)
        return (jnp.where(lowest > 0, x - step * direction, x), lowest), None

    return lax.scan(move, (x, jnp.array(np.inf)), steps)[0][1]
