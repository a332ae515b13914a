r"""The flow z = f(x): a stack of backflow layers, their Jacobians, their inverse.

Each layer moves every electron by a sum over pairs,

.. math:: z_i = x_i + \sum_{j \ne i} g(x_i - x_j), \qquad g(r) = \eta(r) u(r), \quad u = (L/2\pi) \sin(2\pi r/L),

with eta a small network of even periodic features, one for pairs of equal and one for pairs of opposite spin.  Its
Jacobian is closed: with e_i the unit vectors of the electrons and D = dg/dr (d x d),

.. math:: J = 1 + \sum_{i<j} (e_i - e_j)(e_i - e_j)^T \otimes D_{ij}, \qquad
          \ln|\det \partial z/\partial x| = \sum_l \ln|\det J_l| .

f commutes with permutations within a spin and with global translations, and is a bijection of the torus as long as
det J_l > 0 everywhere: `lowest_determinant` searches for the place where that fails first.

Feynman's backflow (Feynman and Cohen, Phys. Rev. 102, 1189 (1956), doi:10.1103/PhysRev.102.1189), stacked.
"""

import dataclasses
from typing import Callable, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from heg.system import System

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
      init: key -> params.  The flow is the identity at initialisation (but for the cusp of `PairNetwork`).
      forward: params, x [N, d] -> z [N, d], Jacobians of the layers (a list of [dN, dN]).
      inverse: params, z [N, d] -> Inverse.
      lowest_determinant: params, x [N, d] -> det J_l in the worst place found from x.    [layers]
    """

    init: Callable
    forward: Callable
    inverse: Callable
    lowest_determinant: Callable


class Inverse(NamedTuple):
    """x = f^-1(z) and its proof.

    Attributes:
      x: bohr.                                              [N, d]
      verified: every layer has |f(x) - z| < 1e-8 L and det J > 0.    [] bool
    """

    x: jax.Array
    verified: jax.Array


class PairNetwork(hk.Module):
    r"""eta(r) of one layer and one kind of pair; r [d] in bohr, not zero.

    Between opposite spins in two dimensions the local energy has an infinite variance unless ln Psi ~ lambda r / (d-1)
    at contact (Kato, Commun. Pure Appl. Math. 10, 151 (1957), doi:10.1002/cpa.3160100201).  For an isolated pair,
    eta ~ n_0 + n_1 r makes ln|Psi| ~ (d+1) n_1 r / (1 + 2 n_0).  So such a pair gets a term -a e^{-r/a} whose weight
    is solved for: the first layer carries the cusp, whatever the network; deeper layers have none.
    """

    def __init__(self, system: System, width: int, cusp: float | None, name: str):
        super().__init__(name=name)
        self.system, self.width, self.cusp = system, width, cusp

    def __call__(self, r):
        system = self.system
        hidden = hk.Linear(self.width, name="hidden")
        output = hk.Linear(1, w_init=jnp.zeros, with_bias=False, name="output")
        network = lambda cosines, distance: output(jnp.tanh(hidden(jnp.append(cosines, distance))))[0]
        distance = system.box / np.pi * jnp.linalg.norm(jnp.sin(np.pi * r / system.box))
        eta = network(jnp.cos(2 * np.pi * r / system.box), distance / system.rs)
        if self.cusp is None:
            return eta
        contact = lambda s: network(jnp.ones(system.dim), s / system.rs)
        value, slope = jax.jvp(contact, (0.0,), (1.0,))
        factor = (system.dim + 1) * (system.dim - 1)
        length = min(system.rs / 2, factor / (3 * self.cusp) if self.cusp else np.inf)
        weight = (self.cusp * (1 + 2 * value) - factor * slope) / (factor + 2 * length * self.cusp)
        return eta - weight * length * jnp.exp(-distance / length)


class _Pairs(NamedTuple):
    """Who meets whom: first and second electron of every pair, those of equal spin in front."""

    first: np.ndarray  # [pairs]
    second: np.ndarray  # [pairs]
    same: int  # pairs of equal spin
    index: np.ndarray  # pair of two electrons, any on the diagonal  [N, N]


def make_flow(system: System, size: FlowSize) -> Flow:
    """The flow of the given gas and size."""
    pairs = _make_pairs(system)
    kinds = [kind for kind, some in (("same", pairs.same), ("opposite", len(pairs.first) - pairs.same)) if some]
    layers = range(size.layers)

    def eta(r, layer, kind):
        cusp = None
        if kind == "opposite" and system.dim == 2:
            cusp = system.coupling if layer == 0 else 0.0
        return PairNetwork(system, size.width, cusp, name=f"layer_{layer}_{kind}")(r)

    network = hk.without_apply_rng(hk.transform(eta))

    def init(key):
        r = jnp.full(system.dim, system.rs)
        keys = jax.random.split(key, (size.layers, 2))
        params = {}
        for layer in layers:
            for number, kind in enumerate(kinds):
                params |= network.init(keys[layer, number], r, layer, kind)
        return params

    def displacement(params, layer, kind, r):
        """g(r), bohr.  [d]"""
        u = system.box / (2 * np.pi) * jnp.sin(2 * np.pi * r / system.box)
        return network.apply(params, r, layer, kind) * u

    def pair_terms(params, layer, x):
        """g and D of every pair.  [pairs, d], [pairs, d, d]"""
        r = x[pairs.first] - x[pairs.second]
        parts = []
        for kind, part in zip(("same", "opposite"), (r[: pairs.same], r[pairs.same :])):
            if len(part):
                g = lambda r: (lambda value: (value, value))(displacement(params, layer, kind, r))
                parts.append(jax.vmap(jax.jacfwd(g, has_aux=True))(part))
        jacobians, values = (jnp.concatenate(terms) for terms in zip(*parts))
        return values, jacobians

    def apply_layer(params, layer, x):
        """z [N, d] and J [dN, dN] of one layer."""
        if len(x) == 1:
            return x, jnp.eye(x.size)
        g, d = pair_terms(params, layer, x)
        off_diagonal = 1 - jnp.eye(len(x))[:, :, None]
        sign = jnp.where(jnp.arange(len(x))[:, None] == pairs.first, 1.0, 0.0)
        sign = sign - jnp.where(jnp.arange(len(x))[:, None] == pairs.second, 1.0, 0.0)
        return x + sign @ g, _assemble(d[pairs.index] * off_diagonal[..., None])

    def forward(params, x):
        jacobians = []
        for layer in layers:
            x, jacobian = apply_layer(params, layer, x)
            jacobians.append(jacobian)
        return x, jacobians

    def inverse(params, z):
        verified = jnp.array(True)
        for layer in reversed(layers):
            z, found = _invert(lambda x: apply_layer(params, layer, x), z, system)
            verified &= found
        return Inverse(z, verified)

    def lowest_determinant(params, x):
        lowest = []
        for layer in layers:
            jacobian = lambda x: apply_layer(params, layer, x)[1]
            lowest.append(_descend(jacobian, x, DESCENT_STEP * system.rs))
            x, _ = apply_layer(params, layer, x)
        return jnp.array(lowest)

    return Flow(init, forward, inverse, lowest_determinant)


def _make_pairs(system):
    first, second = np.triu_indices(system.electrons, 1)
    same = (first < system.n_up) == (second < system.n_up)
    order = np.argsort(~same, kind="stable")
    first, second = first[order], second[order]
    index = np.zeros((system.electrons,) * 2, int)
    index[first, second] = index[second, first] = np.arange(len(first))
    return _Pairs(first, second, int(same.sum()), index)


def _assemble(blocks):
    """J from the blocks D_ij, zero on the diagonal.  [N, N, d, d] -> [dN, dN]"""
    electrons, _, dim, _ = blocks.shape
    diagonal = jnp.eye(electrons)[:, :, None, None] * blocks.sum(1)[:, None]
    return jnp.eye(electrons * dim) + (diagonal - blocks).transpose(0, 2, 1, 3).reshape(electrons * dim, -1)


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
    """Lowest det J on a path of steepest descent from x; it stops falling once det J <= 0.  []"""

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
