r"""Pairs of electrons and the displacement of a pair in closed form, g(r) = eta(r) u(r).

With theta = 2 pi r / L by component, u = (L / 2 pi) sin theta is the periodic displacement.  The
periodic distance is s = (L / pi) |sin(theta / 2)|.  eta is any function of the even features
(cos theta, s / r_s); heg.model.pair_network holds the one that is trained.

Derivatives of eta by the features become derivatives by r in two short steps of the chain rule.
s^2 = (L / pi)^2 sum(1 - cos theta) / 2 leads from the features to the cosines alone.  Each cosine
depends on one component of r, which leads from the cosines to r.

Derivatives of order n are tensors with n axes in front.  The pairs, over which everything is
vectorised, are the last axis.  docs/derivations.md has every term.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Inexact, Int

from heg.gas.system import System

Eta = Callable[[jax.Array, int], Sequence[jax.Array]]
"""Function of (features [F, pairs], highest order): eta and its derivatives by the features."""


class Pairs(NamedTuple):
    """All pairs of the electrons of a gas, those of equal spin first.

    Attributes:
      first, second: the two electrons of every pair, first < second.
      same, opposite: numbers of pairs of equal and of opposite spin.
      sign: 1 for the first electron of a pair, -1 for the second, 0 for all others.
      even: index of two electrons in a table of (pairs, electrons): their pair, or the electron.
      odd: index of two electrons in a table of (pairs, exchanged pairs, zero).
    """

    first: Int[np.ndarray, " pairs"]
    second: Int[np.ndarray, " pairs"]
    same: int
    opposite: int
    sign: Float[np.ndarray, "electrons pairs"]
    even: Int[np.ndarray, "electrons electrons"]
    odd: Int[np.ndarray, "electrons electrons"]

    @property
    def kinds(self) -> dict[str, slice]:
        """The kinds of pairs that the gas has, each with its range of the last axis."""
        kinds = {}
        if self.same:
            kinds["same"] = slice(0, self.same)
        if self.opposite:
            kinds["opposite"] = slice(self.same, None)
        return kinds

    def second_differences(
        self, blocks: Float[Array, "electrons dim electrons dim"]
    ) -> Float[Array, "dim dim pairs"]:
        """Second differences X_ii + X_jj - X_ij - X_ji of the d x d blocks of X, for every pair."""
        # indices a and b of a block, beside which the pairs are the last axis
        row, column = np.ogrid[: blocks.shape[1], : blocks.shape[3]]
        row = row[..., None]
        column = column[..., None]

        def block(one, other):
            return blocks[one, row, other, column]

        i = self.first
        j = self.second
        differences = block(i, i) + block(j, j) - block(i, j) - block(j, i)
        return lax.optimization_barrier(differences)

    def to_electrons(self, odd: Inexact[Array, "dim pairs"]) -> Inexact[Array, "electrons dim"]:
        """Sum over the pairs of each electron of a vector that is odd under exchange."""
        # einsum("ip,ap->ia"): sign is 1 for the first electron and -1 for the second
        return jnp.asarray(self.sign) @ odd.T

    def to_grid(
        self, odd: Float[Array, "*axes pairs"]
    ) -> Float[Array, "*axes electrons electrons"]:
        """A tensor that is odd under exchange, for every two electrons; zero on the diagonal."""
        zero = jnp.zeros((*odd.shape[:-1], 1))
        table = jnp.concatenate([odd, -odd, zero], axis=-1)
        return _gather(table, self.odd)

    def to_jacobian(self, even: Float[Array, "dim dim pairs"]) -> Float[Array, "size size"]:
        """Jacobian 1 + sum over pairs of (e_i - e_j)(e_i - e_j)^T x D_ij, of side N d.

        Args:
          even: D, even under exchange.
        """
        dim = len(even)
        electrons = len(self.sign)
        # derivations, section 1: J_ii = 1 + sum_j D_ij, einsum "abp,ip->abi", and J_ij = -D_ij
        identity = np.eye(dim)[..., None]
        has_electron = np.abs(self.sign)
        diagonal = identity + even @ has_electron.T
        table = jnp.concatenate([-even, diagonal], axis=-1)
        blocks = _gather(table, self.even)
        # from a b i j to i a j b
        by_electron = blocks.transpose(2, 0, 3, 1)
        return by_electron.reshape(electrons * dim, electrons * dim)

    def differences(self, x: Inexact[Array, "electrons dim"]) -> Inexact[Array, "dim pairs"]:
        """x_i - x_j of every pair."""
        return (x[self.first] - x[self.second]).T


def _gather(table, index):
    # the barrier keeps XLA from computing an entry of the table at each place where it is used
    return lax.optimization_barrier(table)[..., index]


def make_pairs(system: System) -> Pairs:
    """All pairs of the electrons of the gas."""
    number = system.electrons
    electrons = np.arange(number)
    first, second = np.triu_indices(number, 1)
    same = (first < system.n_up) == (second < system.n_up)
    # stable: within a kind the pairs stay in the order of their electrons
    order = np.argsort(~same, kind="stable")
    first = first[order]
    second = second[order]
    count = len(first)
    pair = np.arange(count)

    even = np.diag(count + electrons)
    even[first, second] = pair
    even[second, first] = pair

    odd = np.full((number, number), 2 * count)
    odd[first, second] = pair
    odd[second, first] = count + pair

    is_first = electrons[:, None] == first
    is_second = electrons[:, None] == second
    sign = is_first * 1.0 - is_second
    return Pairs(
        first=first,
        second=second,
        same=int(same.sum()),
        opposite=int((~same).sum()),
        sign=sign,
        even=even,
        odd=odd,
    )


class Separations(NamedTuple):
    """The periodic separation of every pair.

    Attributes:
      sine, cosine: of theta = 2 pi r / L, by component.
      distance: periodic distance s, bohr.
    """

    sine: Float[Array, "dim pairs"]
    cosine: Float[Array, "dim pairs"]
    distance: Float[Array, " pairs"]


def separations(pairs: Pairs, system: System, x: Float[Array, "electrons dim"]) -> Separations:
    """Separations of all pairs, from one sine and one cosine of each coordinate."""
    half_angle = (np.pi / system.box * x).T  # pi x / L
    sines = jnp.sin(half_angle)
    cosines = jnp.cos(half_angle)
    # the barrier keeps XLA from computing a sine anew for each pair
    waves = lax.optimization_barrier(jnp.concatenate([sines, cosines]))
    sine_i, cosine_i = _waves_of(pairs.first, waves)
    sine_j, cosine_j = _waves_of(pairs.second, waves)

    # the addition theorems for theta / 2, then those for its double
    sine = sine_i * cosine_j - cosine_i * sine_j
    cosine = cosine_i * cosine_j + sine_i * sine_j
    distance = jnp.sqrt(jnp.sum(sine**2, axis=0))
    return Separations(
        distance=system.box / np.pi * distance,
        sine=2 * sine * cosine,
        cosine=1 - 2 * sine**2,
    )


def _waves_of(electron, waves):
    """Sine and cosine of one electron of every pair."""
    # a product with zeros and ones, which is faster than a gather and has a simple transpose
    electrons = np.arange(waves.shape[1])
    chosen = electrons[:, None] == electron
    return jnp.split(waves @ chosen, 2)


def displacement(
    network: Eta, system: System, between: Separations, order: int
) -> tuple[jax.Array, ...]:
    """The displacement g of every pair and its derivatives by r.

    Args:
      network: derivatives of eta by the features.
      system: gives L and r_s.
      between: separations of the pairs; no distance is zero.
      order: of the highest derivative, at most 2.
    Returns:
      g_a [d, pairs], D_ab = dg_a / dr_b [d, d, pairs] and D2_abc [d, d, d, pairs], up to the order.
    """
    return _times_u(_eta(network, system, between, order), between, system)


def curvature(
    network: Eta,
    system: System,
    between: Separations,
    w: Float[Array, "dim dim pairs"],
    c: Float[Array, "dim dim pairs"],
) -> tuple[Float[Array, "dim dim dim pairs"], Float[Array, " pairs"]]:
    r"""D2 and the contraction of the third derivatives, sum_abcd W_ba D3_abcd C_cd.

    Third derivatives of eta are needed along one direction only, y_b = sum_a W_ba u_a.  The other
    terms hold third derivatives of u, which are known.

    Args:
      network, system, between: as in `displacement`.
      w: W.
      c: C, symmetric.
    """
    eta, third = _eta_and_third(network, system, between, w)
    eta, third = lax.optimization_barrier((eta, third))
    contraction = _third_contraction(eta, third, between, system, w, c)
    _, _, d2 = _times_u(eta, between, system)
    return d2, contraction


def _eta_and_third(network, system, between, w):
    """eta and its derivatives by r up to the second, and y_b e_bcd of the third."""
    k = system.wavevector_unit
    u = between.sine / k
    slope = between.cosine
    y = jnp.sum(w * u, axis=1)  # "bap,ap->bp"
    # sine, cosine and distance change with r at the rates k cosine, -k sine and u / s
    along_y = Separations(
        sine=k * slope * y,
        cosine=-(k**2) * u * y,
        distance=jnp.sum(u * y, axis=0) / between.distance,
    )

    def up_to_second(between):
        return _eta(network, system, between, 2)

    eta, changes = jax.jvp(up_to_second, (between,), (along_y,))
    _, _, third = changes
    return eta, third


def _third_contraction(eta, third, between, system, w, c):
    """W_ba D3_abcd C_cd, the terms of derivations, section 4, in its order."""
    k = system.wavevector_unit
    u = between.sine / k
    slope = between.cosine
    value, first, second = eta
    diagonal_w = _diagonal(w)
    diagonal_c = _diagonal(c)

    # y_b e_bcd C_cd, "bp,bcdp,cdp->p", and W_aa cos_a e_cd C_cd, "aap,ap,cdp,cdp->p"
    trace = jnp.sum(diagonal_w * slope, axis=0)
    bent = third + second * trace
    total = jnp.sum(c * bent, axis=(0, 1))

    # W_ba cos_a C_ad e_bd from two of the three derivatives on eta: "bap,ap,adp,bdp->p"
    crossed = jnp.sum(c[:, None] * second, axis=2)
    weighted = (w * slope).swapaxes(0, 1)
    total += 2 * jnp.sum(weighted * crossed, axis=(0, 1))

    # -2 k^2 W_aa u_a C_ad e_d, "aap,ap,adp,dp->p", and -k^2 W_ba u_a C_aa e_b, "bap,ap,aap,bp->p"
    diagonal_wu = diagonal_w * u
    by_trace = 2 * jnp.sum(c * diagonal_wu[:, None], axis=0)
    by_column = jnp.sum(w * (u * diagonal_c), axis=1)
    along = by_trace + by_column
    total -= k**2 * jnp.sum(along * first, axis=0)

    # -k^2 W_aa cos_a C_aa e: "aap,ap,aap,p->p"; all three derivatives on u
    diagonal = jnp.sum(diagonal_w * slope * diagonal_c, axis=0)
    total -= k**2 * diagonal * value
    return total


def _diagonal(tensor):
    return jnp.einsum("aa...->a...", tensor)


def _eta(network, system, between, order):
    """eta and its derivatives by r."""
    distance = between.distance / system.rs
    features = jnp.concatenate([between.cosine, distance[None]])
    by_features = network(features, order)
    by_cosines = _by_cosines(by_features, distance, system)
    return _by_separation(by_cosines, between, system)


def _by_cosines(by_features, distance, system):
    """Derivatives by the cosines, on which the last of the features depends too."""
    d = system.dim
    # derivatives of s / r_s by any cosine: its square is linear in their sum,
    # s^2 / r_s^2 = 2 kappa sum (1 - cos), so that s' = -kappa / s and s'' = -kappa^2 / s^3
    kappa = (system.box / (2 * np.pi * system.rs)) ** 2
    slope = -kappa / distance
    bend = -(kappa**2) / distance**3

    derivatives = [by_features[0]]
    if len(by_features) > 1:
        by_cosine = by_features[1][:d]
        by_distance = by_features[1][d]
        derivatives.append(by_cosine + slope * by_distance)
    if len(by_features) > 2:
        # derivations, section 3: h_ab + s' (h_as + h_bs) + s'^2 h_ss + s'' h_s
        hessian = by_features[2]
        mixed = hessian[:d, d]
        by_cosines = hessian[:d, :d]
        by_both = mixed[:, None] + mixed
        by_distance_twice = hessian[d, d]
        derivatives.append(
            by_cosines + slope * by_both + slope**2 * by_distance_twice + bend * by_distance
        )
    return derivatives


def _by_separation(by_cosines, between, system):
    """Derivatives by r, on one component of which each cosine depends."""
    k = system.wavevector_unit
    same_ab = np.eye(system.dim)[..., None]
    # d cos(k r) / dr and its derivative
    slope = -k * between.sine
    bend = -(k**2) * between.cosine

    derivatives = [by_cosines[0]]
    if len(by_cosines) > 1:
        gradient = by_cosines[1]
        derivatives.append(gradient * slope)
    if len(by_cosines) > 2:
        # derivations, section 3: e_ab cos'_a cos'_b, "abp,ap,bp->abp", and delta_ab e_a cos''_a
        outer = by_cosines[2] * slope[:, None] * slope
        own = same_ab * (gradient * bend)
        derivatives.append(outer + own)
    return derivatives


def _times_u(eta, between, system):
    """Derivatives by r of g = eta u, from those of eta."""
    k = system.wavevector_unit
    same_bc = np.eye(system.dim)[..., None]
    same_ab = same_bc[:, :, None]
    same_ac = same_bc[:, None]
    u = between.sine / k
    slope = between.cosine  # du_a / dr_a; the second derivative is -k^2 u_a

    # the terms of derivations, section 2
    value = eta[0]
    derivatives = [value * u]
    if len(eta) > 1:
        gradient = eta[1]
        # u_a e_b + delta_ab cos_a e: "ap,bp->abp" and "ab,ap,p->abp"
        outer = u[:, None] * gradient
        own = same_bc * (value * slope)
        derivatives.append(outer + own)
    if len(eta) > 2:
        # u_a e_bc: "ap,bcp->abcp"
        outer = u[:, None, None] * eta[2]
        # cos_a (delta_ab e_c + delta_ac e_b): "ab,ap,cp->abcp" and "ac,ap,bp->abcp"
        bent = slope[:, None] * gradient
        first_with_b = same_ab * bent[:, None]
        first_with_c = same_ac * bent[:, :, None]
        mixed = first_with_b + first_with_c
        # k^2 delta_ab delta_bc u_a e: "ab,bc,ap,p->abcp"
        own = k**2 * same_ab * same_bc * (value * u)
        derivatives.append(outer + mixed - own)
    return tuple(derivatives)
