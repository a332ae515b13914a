r"""The displacement of a pair, g(r) = eta(r) u(r), and its derivatives by r in closed form.

With theta = 2 pi r / L by component, u = (L / 2 pi) sin theta is the periodic displacement and s =
(L / pi) |sin(theta / 2)| the periodic distance.  eta is a network of one hidden layer on the even
features (cos theta, s / r_s), bounded.  Its derivatives by the features are products of its weights
with the derivatives of tanh.  Because s^2 = (L / pi)^2 sum(1 - cos theta) / 2 and each cosine
depends on one component of r, the chain rule takes two short
steps: from the features to the cosines, and from the cosines to r.

Derivatives of order n are tensors with n axes in front and the pairs, over which all is vectorised,
last.
"""

from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from heg.gas.system import System

BOUND = 0.2  # of the network's |eta| in a layer: a lone pair keeps 1 + 2 eta > 0.6, 1 / BOUND electrons can fold a layer


class Pairs(NamedTuple):
    """Who meets whom: first and second electron of every pair, those of equal spin in front.

    Attributes:
      first, second: electrons, first < second.             [pairs]
      same, opposite: how many pairs have equal and opposite spin.
      sign: 1 for the first electron of a pair, -1 for the second.    [N, pairs]
      even: of two electrons, their place among (pairs, electrons): the pair, or the electron itself.    [N, N]
      odd: the same among (pairs, pairs exchanged, nothing).    [N, N]
    """

    first: np.ndarray
    second: np.ndarray
    same: int
    opposite: int
    sign: np.ndarray
    even: np.ndarray
    odd: np.ndarray

    def second_differences(self, blocks: jax.Array) -> jax.Array:
        """X_ii + X_jj - X_ij - X_ji of the d x d blocks of X, for every pair.  [N, d, N, d] -> [d,
        d, pairs]"""
        a, b = np.ogrid[: blocks.shape[1], : blocks.shape[3]]
        block = lambda i, j: blocks[i, a[..., None], j, b[..., None]]
        i, j = self.first, self.second
        return lax.optimization_barrier(block(i, i) + block(j, j) - block(i, j) - block(j, i))

    def to_electrons(self, odd: jax.Array) -> jax.Array:
        """Sum over the pairs of each electron of a vector odd under exchange.  [d, pairs] -> [N,
        d]"""
        return self.sign @ odd.T

    def to_grid(self, odd: jax.Array) -> jax.Array:
        """A tensor odd under exchange for every two electrons, zero for one.  [..., pairs] -> [...,
        N, N]"""
        zero = jnp.zeros((*odd.shape[:-1], 1))
        return _gather(jnp.concatenate([odd, -odd, zero], axis=-1), self.odd)

    def to_jacobian(self, even: jax.Array) -> jax.Array:
        """1 + sum over pairs of (e_i - e_j)(e_i - e_j)^T x D_ij, D even under exchange.  [d, d,
        pairs] -> [dN, dN]"""
        dim, electrons = len(even), len(self.sign)
        own = np.eye(dim)[..., None] + even @ np.abs(self.sign).T
        blocks = _gather(jnp.concatenate([-even, own], axis=-1), self.even)
        return blocks.transpose(2, 0, 3, 1).reshape(electrons * dim, electrons * dim)

    def differences(self, x: jax.Array) -> jax.Array:
        """x_i - x_j of every pair.  [N, d] -> [d, pairs]"""
        return (x[self.first] - x[self.second]).T


def _gather(table, index):
    # the barrier keeps XLA from computing an entry of the table at each of its places
    return lax.optimization_barrier(table)[..., index]


def pairs_of(system: System) -> Pairs:
    """All pairs of the electrons of the gas."""
    electrons = np.arange(system.electrons)
    first, second = np.triu_indices(system.electrons, 1)
    same = (first < system.n_up) == (second < system.n_up)
    order = np.argsort(~same, kind="stable")
    first, second = first[order], second[order]
    count = len(first)
    even, odd = np.diag(count + electrons), np.full((system.electrons,) * 2, 2 * count)
    even[first, second] = even[second, first] = odd[first, second] = np.arange(count)
    odd[second, first] = count + np.arange(count)
    sign = (electrons[:, None] == first) * 1.0 - (electrons[:, None] == second)
    return Pairs(first, second, int(same.sum()), int((~same).sum()), sign, even, odd)


class PairNetwork(hk.Module):
    r"""eta as a function of the features of one layer and one kind of pair.

    Between opposite spins in two dimensions the local energy has an infinite variance unless ln Psi
    ~ lambda r / (d-1) at contact (Kato, Commun. Pure Appl. Math. 10, 151 (1957),
    doi:10.1002/cpa.3160100201).  For an isolated pair, eta ~ n_0 + n_1 r makes ln|Psi| ~ (d+1) n_1
    r / (1 + 2 n_0).  So such a pair gets a term -a e^{-s/a} whose weight
    is solved for: the first layer carries the cusp of an isolated pair, whatever the network;
      deeper layers have no
    slope at contact.  Electrons near the pair change the slope by a share of order D: the
    divergence is weaker by the square of that share, not gone, and summary.json carries what shows
    it (largest deviation, error of half).
    """

    def __init__(self, system: System, width: int, name: str):
        super().__init__(name=name)
        self.system, self.width = system, width

    def __call__(self, features, cusp=None, order=0):
        """Derivatives of eta by the features.

        Args:
          features: of each pair.                           [F, pairs]
          cusp: lambda of this layer, None where a cusp is harmless.
          order: of the highest derivative.
        Returns:
          eta, its gradient, ...                            [pairs], [F, pairs], [F, F, pairs], ...
        """
        inputs = self.system.dim + 1
        spread = hk.initializers.TruncatedNormal(1 / np.sqrt(inputs))
        weights = (
            hk.get_parameter("hidden", (inputs, self.width), float, init=spread),
            hk.get_parameter("shift", (self.width,), float, init=jnp.zeros),
            hk.get_parameter("output", (self.width,), float, init=jnp.zeros),
        )
        eta = _network(weights, features, order)
        return eta if cusp is None else self._with_cusp(weights, features, cusp, eta)

    def _with_cusp(self, weights, features, cusp, eta):
        system = self.system
        contact = jnp.append(jnp.ones(system.dim), 0.0)[:, None]
        value, gradient = _network(weights, contact, 1)
        factor = (system.dim + 1) * (system.dim - 1)
        length = 1 / jnp.maximum(2.0, 3 * system.coupling * system.rs / factor)  # in units of r_s
        missing = system.rs * cusp * (1 + 2 * value[0]) - factor * gradient[-1, 0]
        term = (
            -length
            * missing
            / (factor + 2 * length * system.rs * cusp)
            * jnp.exp(-features[-1] / length)
        )
        # the term depends on the distance alone, the last feature
        return tuple(
            tensor.at[(-1,) * number].add(term * (-1 / length) ** number)
            for number, tensor in enumerate(eta)
        )


class Separations(NamedTuple):
    """Of every pair: sine and cosine of theta by component, and the periodic distance s in bohr.

    Attributes:
      sine, cosine: of theta.                               [d, pairs]
      distance: s, bohr.                                    [pairs]
    """

    sine: jax.Array
    cosine: jax.Array
    distance: jax.Array


def separations(pairs: Pairs, system: System, x: jax.Array) -> Separations:
    """Of all pairs at x [N, d], by the addition theorems: sines and cosines of single electrons are
    enough."""
    half = (np.pi / system.box * x).T
    waves = lax.optimization_barrier(jnp.concatenate([jnp.sin(half), jnp.cos(half)]))
    (sine_i, cosine_i), (sine_j, cosine_j) = (
        jnp.split(waves @ (np.arange(system.electrons)[:, None] == of), 2)
        for of in (pairs.first, pairs.second)
    )
    sine, cosine = sine_i * cosine_j - cosine_i * sine_j, cosine_i * cosine_j + sine_i * sine_j
    distance = system.box / np.pi * jnp.sqrt(jnp.sum(sine**2, axis=0))
    return Separations(2 * sine * cosine, 1 - 2 * sine**2, distance)


def displacement(
    network, system: System, between: Separations, order: int
) -> tuple[jax.Array, ...]:
    """g and its derivatives up to `order`, at most 2.

    Args:
      network: (features, order) -> derivatives of eta by the features.
      system: gives L and r_s.
      between: of the pairs; no distance is zero.
      order: of the highest derivative.
    Returns:
      g_a, D_ab = dg_a / dr_b, D2_abc.                      [d, pairs], [d, d, pairs], [d, d, d, pairs]
    """
    return _times_u(_eta(network, system, between, order), between, system)


def curvature(
    network, system: System, between: Separations, w: jax.Array, c: jax.Array
) -> tuple[jax.Array, jax.Array]:
    r"""D2 and the contraction of the third derivatives, sum_abcd W_ba D3_abcd C_cd, of every pair.

    Third derivatives of eta are needed along one direction only, y_b = sum_a W_ba u_a; the others
    come with those of u.

    Args:
      network, system, between: as in `displacement`.
      w: W.                                                 [d, d, pairs]
      c: C, symmetric.                                      [d, d, pairs]
    Returns:
      D2 and the contraction.                               [d, d, d, pairs], [pairs]
    """
    k = 2 * np.pi / system.box
    u, slope = between.sine / k, between.cosine
    y = jnp.sum(w * u, axis=1)
    along = Separations(k * slope * y, -(k**2) * u * y, jnp.sum(u * y, axis=0) / between.distance)
    eta, (_, _, third) = jax.jvp(
        lambda between: _eta(network, system, between, 2), (between,), (along,)
    )
    (value, first, second), third = eta, third = lax.optimization_barrier((eta, third))
    diagonal = lambda tensor: jnp.einsum("aa...->a...", tensor)
    total = jnp.sum(c * (third + second * jnp.sum(diagonal(w) * slope, axis=0)), axis=(0, 1))
    crossed = jnp.sum(c[:, None] * second, axis=2)  # sum_d C_ad eta_bd
    total += 2 * jnp.sum((w * slope).swapaxes(0, 1) * crossed, axis=(0, 1))
    of_first = 2 * jnp.sum(c * (diagonal(w) * u)[:, None], axis=0) + jnp.sum(
        w * (u * diagonal(c)), axis=1
    )
    total -= k**2 * jnp.sum(of_first * first, axis=0)
    total -= k**2 * jnp.sum(diagonal(w) * slope * diagonal(c), axis=0) * value
    return _times_u(eta, between, system)[2], total


def _eta(network, system, between, order):
    """eta and its derivatives by r."""
    distance = between.distance / system.rs
    features = jnp.concatenate([between.cosine, distance[None]])
    return _by_separation(_by_cosines(network(features, order), distance, system), between, system)


def _network(weights, features, order):
    """Derivatives by the features of BOUND tanh(sum_h v_h tanh(a_h) / BOUND), a = w^T f + b."""
    w, b, v = weights
    inner, coefficients = [], v
    for slope in _tanh_derivatives(w.T @ features + b[:, None], order):
        inner.append(jnp.tensordot(coefficients, slope, 1))
        coefficients = w.reshape(len(w), *(1,) * (coefficients.ndim - 1), -1) * coefficients
    outer = [
        BOUND ** (1 - n) * slope
        for n, slope in enumerate(_tanh_derivatives(inner[0] / BOUND, order))
    ]
    eta = [outer[0]]
    if order >= 1:
        eta.append(outer[1] * inner[1])
    if order >= 2:
        eta.append(outer[1] * inner[2] + outer[2] * inner[1][:, None] * inner[1])
    return eta


def _tanh_derivatives(a, order):
    t = jnp.tanh(a)
    slope = 1 - t**2
    return (t, slope, -2 * t * slope)[: order + 1]


def _by_cosines(h, distance, system):
    """Derivatives by the cosines, from those by the features, the last of which depends on the
    cosines."""
    d = system.dim
    # derivatives of the distance over r_s by any cosine: its square is linear in their sum
    kappa = (system.box / (2 * np.pi * system.rs)) ** 2
    first, second = -kappa / distance, -(kappa**2) / distance**3
    eta = [h[0]]
    if len(h) > 1:
        eta.append(h[1][:d] + first * h[1][d])
    if len(h) > 2:
        once = h[2][:d, d]
        eta.append(
            h[2][:d, :d] + first * (once[:, None] + once) + first**2 * h[2][d, d] + second * h[1][d]
        )
    return eta


def _by_separation(eta, between, system):
    """Derivatives by r, from those by the cosines, each of which depends on one component of r."""
    k, one = 2 * np.pi / system.box, np.eye(system.dim)[..., None]
    first, second = -k * between.sine, -(k**2) * between.cosine
    derivatives = [eta[0]]
    if len(eta) > 1:
        derivatives.append(eta[1] * first)
    if len(eta) > 2:
        derivatives.append(eta[2] * first[:, None] * first + one * (eta[1] * second))
    return derivatives


def _times_u(eta, between, system):
    """Derivatives by r of eta u, from those of eta."""
    k, one = 2 * np.pi / system.box, np.eye(system.dim)[..., None]
    u, slope = between.sine / k, between.cosine
    g = [eta[0] * u]
    if len(eta) > 1:
        g.append(u[:, None] * eta[1] + one * (eta[0] * slope))
    if len(eta) > 2:
        bent = slope[:, None] * eta[1]
        mixed = one[:, :, None] * bent[:, None] + one[:, None] * bent[:, :, None]
        g.append(u[:, None, None] * eta[2] + mixed - k**2 * one[:, :, None] * one * (eta[0] * u))
    return tuple(g)
