r"""The flow z = f(x): a stack of backflow layers, their Jacobians, their inverse.

Each layer moves every electron by a sum over pairs,

.. math:: z_i = x_i + \sum_{j \ne i} g(x_i - x_j), \qquad g(r) = \eta(r) u(r), \quad u = (L/2\pi) \sin(2\pi r/L),

with eta a small network of even periodic features, one for pairs of equal and one for pairs of opposite spin.  Its
Jacobian is closed: with e_i the unit vectors of the electrons and D = dg/dr (d x d),

.. math:: J = 1 + \sum_{i<j} (e_i - e_j)(e_i - e_j)^T \otimes D_{ij}, \qquad
          \ln|\det \partial z/\partial x| = \sum_l \ln|\det J_l| .

f commutes with permutations within a spin and with global translations, and is a bijection of the torus as long as
det J_l > 0 everywhere.  |eta| is bounded in every layer, so that a layer folds only where several electrons crowd
into one correlation hole; `lowest_determinants` searches for the place where that happens first.

Feynman's backflow (Feynman and Cohen, Phys. Rev. 102, 1189 (1956), doi:10.1103/PhysRev.102.1189), stacked.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from heg.system import System

BOUND = 0.2  # of |eta| in a layer: a lone pair keeps 1 + 2 eta > 0.6; only a crowd of 1 / BOUND electrons can fold it
RESIDUAL = 1e-12  # |f(x) - z| / L aimed at by the inverse
ACCEPTED_RESIDUAL = 1e-8  # |f(x) - z| / L with which it counts as found
NEWTON_STEPS = 12  # at the full map, after the homotopy
STRIDES = (2, 8, 32, 128, 256)  # steps of the homotopy, refined as long as the inverse is not verified
DESCENT_STEPS = 30  # of the search for the lowest determinant
DESCENT_STEP = 0.05  # its step, in units of r_s


@dataclasses.dataclass(frozen=True)
class FlowSize:
    """Size of the flow: layers (0: the identity) and width of the pair networks."""

    layers: int
    width: int


class Flow(NamedTuple):
    """The flow as pure functions of one configuration.

    Attributes:
      init: key -> params, the layers along the first axis of every leaf.  The flow is the identity at
        initialisation (but for the cusp of `PairNetwork`).
      layers: params -> what lax.scan runs over, first layer first; its items are the `layer` below.
      apply: layer, x [N, d] -> z [N, d], J [dN, dN].
      derivatives: layer, x [N, d] -> LayerDerivatives, for the kinetic energy.
      forward: params, x [N, d] -> z [N, d], J of every layer [layers, dN, dN].
      inverse: params, z [N, d] -> Inverse.
      lowest_determinants: params, x [N, d] -> det J_l in the worst place found from x.    [layers]
    """

    init: Callable
    layers: Callable
    apply: Callable
    derivatives: Callable
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


class LayerDerivatives(NamedTuple):
    """A layer at one configuration, with the derivatives D_ab.. = d^n g_a / dr_b dr_c .. of its pairs.

    Attributes:
      z: its image, bohr.                                   [N, d]
      jacobian: J.                                          [dN, dN]
      first, second: electrons of each pair i < j.          [pairs]
      d2: of r = x_i - x_j for every i and j, odd under exchange, zero for i = j.    [N, N, d, d, d]
      d3: of every pair.                                    [pairs, d, d, d, d]
    """

    z: jax.Array
    jacobian: jax.Array
    first: np.ndarray
    second: np.ndarray
    d2: jax.Array
    d3: jax.Array


class PairNetwork(hk.Module):
    r"""eta(r) of one layer and one kind of pair; r [d] in bohr, not zero.

    Between opposite spins in two dimensions the local energy has an infinite variance unless ln Psi ~ lambda r / (d-1)
    at contact (Kato, Commun. Pure Appl. Math. 10, 151 (1957), doi:10.1002/cpa.3160100201).  For an isolated pair,
    eta ~ n_0 + n_1 r makes ln|Psi| ~ (d+1) n_1 r / (1 + 2 n_0).  So such a pair gets a term -a e^{-r/a} whose weight
    is solved for: the first layer carries the cusp of an isolated pair, whatever the network; deeper layers have no
    slope at contact.  Electrons near the pair change the slope by a share of order D: the divergence is weaker by the
    square of that share, not gone, and summary.json carries what shows it (largest deviation, error of half).
    """

    def __init__(self, system: System, width: int, name: str):
        super().__init__(name=name)
        self.system, self.width = system, width

    def __call__(self, r, cusp=None):
        """cusp: lambda of this layer, None where a cusp is harmless."""
        system = self.system
        hidden = hk.Linear(self.width, name="hidden")
        output = hk.Linear(1, w_init=jnp.zeros, with_bias=False, name="output")
        bounded = lambda eta: BOUND * jnp.tanh(eta / BOUND)
        network = lambda cosines, distance: bounded(output(jnp.tanh(hidden(jnp.append(cosines, distance))))[0])
        distance = system.box / np.pi * jnp.linalg.norm(jnp.sin(np.pi * r / system.box))
        eta = network(jnp.cos(2 * np.pi * r / system.box), distance / system.rs)
        if cusp is None:
            return eta
        contact = lambda s: network(jnp.ones(system.dim), s / system.rs)
        value, slope = jax.jvp(contact, (0.0,), (1.0,))
        factor = (system.dim + 1) * (system.dim - 1)
        length = min(system.rs / 2, factor / (3 * system.coupling) if system.coupling else np.inf)
        weight = (cusp * (1 + 2 * value) - factor * slope) / (factor + 2 * length * cusp)
        return eta - weight * length * jnp.exp(-distance / length)


class _Pairs(NamedTuple):
    """Who meets whom: first and second electron of every pair, those of equal spin in front."""

    first: np.ndarray  # [pairs]
    second: np.ndarray  # [pairs]
    same: int  # pairs of equal spin
    index: np.ndarray  # pair of two electrons, any on the diagonal  [N, N]
    sign: np.ndarray  # 1 for the first electron of a pair, -1 for the second  [N, pairs]


def make_flow(system: System, size: FlowSize) -> Flow:
    """The flow of the given gas and size."""
    pairs = _make_pairs(system)
    same, opposite = pairs.same, len(pairs.first) - pairs.same
    kinds = [kind for kind, count in (("same", same), ("opposite", opposite)) if count]
    count = size.layers if kinds else 0
    network = hk.without_apply_rng(
        hk.transform(lambda r, kind, cusp: PairNetwork(system, size.width, name=kind)(r, cusp))
    )

    def init(key):
        r = jnp.full(system.dim, system.rs)
        of_layer = lambda keys: {
            k: v for key, kind in zip(keys, kinds) for k, v in network.init(key, r, kind, None).items()
        }
        return jax.vmap(of_layer)(jax.random.split(key, (count, len(kinds)))) if count else {}

    def layers(params):
        # the first layer carries the cusp
        return params, jnp.where(jnp.arange(count) == 0, system.coupling, 0.0)

    def displacement(layer, kind, r):
        """g(r), bohr.  [d]"""
        params, cusp = layer
        u = system.box / (2 * np.pi) * jnp.sin(2 * np.pi * r / system.box)
        return network.apply(params, r, kind, cusp if kind == "opposite" and system.dim == 2 else None) * u

    def pair_terms(layer, x, order):
        """g and its derivatives up to `order` for every pair.  [pairs, d], [pairs, d, d], ..."""
        r = dict(zip(("same", "opposite"), jnp.split(x[pairs.first] - x[pairs.second], [same])))
        of_kind = lambda kind: jax.vmap(_derivatives(lambda r: displacement(layer, kind, r), order))(r[kind])
        return tuple(jnp.concatenate(terms) for terms in zip(*map(of_kind, kinds)))

    def assemble(x, g, d):
        """z [N, d] and J [dN, dN] of a layer."""
        blocks = d[pairs.index] * (1 - jnp.eye(len(x)))[:, :, None, None]
        diagonal = jnp.eye(len(x))[:, :, None, None] * blocks.sum(1)[:, None]
        jacobian = jnp.eye(x.size) + (diagonal - blocks).transpose(0, 2, 1, 3).reshape(x.size, x.size)
        return x + jnp.asarray(pairs.sign) @ g, jacobian

    def apply(layer, x):
        return assemble(x, *pair_terms(layer, x, 1))

    def derivatives(layer, x):
        g, d, d2, d3 = pair_terms(layer, x, 3)
        sign = pairs.sign[np.arange(len(x))[:, None], pairs.index] * (1 - np.eye(len(x)))
        d2 = d2[pairs.index] * sign[..., None, None, None]
        return LayerDerivatives(*assemble(x, g, d), pairs.first, pairs.second, d2, d3)

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
        def descend(x, layer):
            lowest = _descend(lambda x: apply(layer, x)[1], x, DESCENT_STEP * system.rs)
            return apply(layer, x)[0], lowest

        return lax.scan(descend, x, layers(params))[1] if count else jnp.ones(0)

    return Flow(init, layers, apply, derivatives, forward, inverse, lowest_determinants)


def _make_pairs(system):
    first, second = np.triu_indices(system.electrons, 1)
    same = (first < system.n_up) == (second < system.n_up)
    order = np.argsort(~same, kind="stable")
    first, second = first[order], second[order]
    index = np.zeros((system.electrons,) * 2, int)
    index[first, second] = index[second, first] = np.arange(len(first))
    electron = np.arange(system.electrons)[:, None]
    sign = (electron == first) * 1.0 - (electron == second)
    return _Pairs(first, second, int(same.sum()), index, sign)


def _derivatives(g, order):
    """r -> g, dg/dr, ... up to the given order."""
    values = lambda r: (g(r),)
    for _ in range(order):
        lower = values
        values = lambda r, lower=lower: (*lower(r)[:1], *jax.jacfwd(lower)(r))
    return values


def _invert(layer, z, system):
    """x with layer(x) = z, by Newton on x + t (layer(x) - x) = z, t rising to 1.  x [N, d], verified []"""
    longest = system.rs / 2  # a Newton step moves no electron further

    def newton(x, t):
        image, jacobian = layer(x)
        residual = x + t * (image - x) - z
        matrix = jnp.eye(x.size) + t * (jacobian - jnp.eye(x.size))
        step = jnp.linalg.solve(matrix, residual.ravel()).reshape(x.shape)
        return x - step * jnp.minimum(1, longest / jnp.max(jnp.abs(step))), jnp.max(jnp.abs(residual))

    def attempt(carry):
        number, _, _ = carry
        stride = jnp.asarray(STRIDES)[number]
        x = lax.fori_loop(1, stride, lambda i, x: newton(x, i / stride)[0], z)
        unfinished = lambda state: (state[1] > RESIDUAL * system.box) & (state[2] < NEWTON_STEPS)
        x, _, _ = lax.while_loop(
            unfinished, lambda state: (*newton(state[0], 1.0), state[2] + 1), (x, jnp.array(np.inf), 0)
        )
        image, jacobian = layer(x)
        close = jnp.max(jnp.abs(image - z)) < ACCEPTED_RESIDUAL * system.box
        return number + 1, x, close & (jnp.linalg.slogdet(jacobian)[0] > 0)

    unverified = lambda carry: ~carry[2] & (carry[0] < len(STRIDES))
    _, x, verified = lax.while_loop(unverified, attempt, (0, z, jnp.array(False)))
    return x, verified


def _descend(jacobian, x, step):
    """Lowest det J on a path of steepest descent from x, which ends where det J <= 0.  []"""

    def log_determinant(x):
        sign, log = jnp.linalg.slogdet(jacobian(x))
        return log, sign

    def move(carry, _):
        x, lowest = carry
        (log, sign), slope = jax.value_and_grad(log_determinant, has_aux=True)(x)
        lowest = jnp.minimum(lowest, sign * jnp.exp(log))
        direction = slope / jnp.maximum(jnp.max(jnp.abs(slope)), 1e-300)
        return (jnp.where(lowest > 0, x - step * direction, x), lowest), None

    return lax.scan(move, (x, jnp.array(np.inf)), length=DESCENT_STEPS)[0][1]
