r"""A smooth surface through f_xc of cells over r_s and Theta, and its derivatives.

What is fitted is h = r_s f_xc - r_s v_1(Theta), v_1 the first order of the same cell and twists,
which is exact (heg.gas.first_order).  h is a Gaussian process in ln r_s and ln Theta of mean zero
with the covariance

.. math:: \sigma^2 w(r_s) w(r_s') \exp\Big[-\frac{\ln^2(r_s / r_s')}{2 \ell_r^2}
          - \frac{\ln^2(\Theta / \Theta')}{2 \ell_\Theta^2}\Big],
          \qquad w(r_s) = \frac{r_s}{1 + r_s} ,

so that h vanishes in first order of r_s, where the ideal gas and exchange are all there is.  sigma
and the lengths maximise the likelihood of the data with their errors.  With f(r_s, T) at fixed
numbers of electrons

.. math:: s = -\frac{\partial f}{\partial T}, \quad e = f + T s,
          \quad c = -T \frac{\partial^2 f}{\partial T^2},
          \quad p = -\frac{n r_s}{d} \frac{\partial f}{\partial r_s},
          \quad B = -\frac{r_s}{d} \frac{\partial p}{\partial r_s} .

These are linear in f, so that the process gives each with its error, and their covariances.
Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (MIT Press, 2006), chapters
2, 5 and 9.4.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, cholesky
from scipy.interpolate import CubicSpline
from scipy.optimize import OptimizeResult, minimize

from heg.gas.first_order import first_order
from heg.gas.system import RANGES, System
from heg.gas.twists import Twist

NAMES = ("f", "e", "s", "p", "c", "B")
MIN_POINTS = 3  # of a surface
FIRST_ORDER_NODES = 24  # of v_1 over ln Theta
FIRST_ORDER_NODES_OF_ONE = 4  # the same where all data have one Theta
MARGIN = 1e-3  # of the nodes beyond the data, in ln Theta
BOUNDS = ((1e-3, 10.0), (0.5, 10.0), (0.5, 10.0))  # of sigma (hartree bohr) and the two lengths
# sigma and the two lengths from which the likelihood is maximised
STARTS = ((0.3, 2.0, 2.0), (0.1, 1.0, 1.0), (1.0, 4.0, 4.0))


class Data(NamedTuple):
    """f_xc of cells of the same electrons and twists, hartree per electron.

    Attributes:
      gas: one of the cells; its r_s, Theta and twist do not matter.
      twists: their angles and weights.
      rs, theta, f_xc, error: of each.                      [P]
    """

    gas: System
    twists: list[Twist]
    rs: np.ndarray
    theta: np.ndarray
    f_xc: np.ndarray
    error: np.ndarray


class Surface(NamedTuple):
    """The fit.

    Attributes:
      data: what was fitted.
      scales: sigma and the two lengths.                    [3]
      logs: ln r_s and ln Theta of the data.                [P, 2]
      first_order: r_s v_1 by ln Theta.
      factor: lower Cholesky factor of the covariance of the data.    [P, P]
      weights: its inverse times the data.                  [P]
      chi2: of the data against the fit of all others, per point: 1 if errors and covariance are
        right.
    """

    data: Data
    scales: np.ndarray
    logs: np.ndarray
    first_order: CubicSpline
    factor: jax.Array
    weights: jax.Array
    chi2: float


class Thermodynamics(NamedTuple):
    """f, e (hartree), s (k_B), p (hartree / bohr^d), c (k_B), B (hartree / bohr^d); e, s, c per
    electron.

    Attributes:
      value: in this order.                                 [6]
      covariance: of the fit.                               [6, 6]
    """

    value: np.ndarray
    covariance: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """Standard errors."""
        return np.sqrt(np.maximum(np.diagonal(self.covariance), 0.0))


def fit(data: Data) -> Surface:
    """The surface through f_xc of cells.

    Raises:
      ValueError: fewer than three points.
    """
    if len(data.rs) < MIN_POINTS:
        raise ValueError(
            f"{len(data.rs)} points make no surface: give {MIN_POINTS} or more of one cell"
        )
    # the mean of the process: what is known exactly
    spline = _first_order(data)
    logs = np.stack([np.log(data.rs), np.log(data.theta)], axis=1)
    # what is fitted, r_s f_xc beyond the first order
    exact = spline(np.log(data.theta))
    h = data.rs * data.f_xc - exact
    noise = (data.rs * data.error) ** 2
    scales = _likeliest_scales(logs, noise, h)
    factor, weights, chi2 = _regression(scales, logs, noise, h)
    return Surface(
        data=data,
        scales=scales,
        logs=logs,
        first_order=spline,
        factor=factor,
        weights=weights,
        chi2=float(chi2),
    )


def _likeliest_scales(logs: np.ndarray, noise: np.ndarray, h: np.ndarray) -> np.ndarray:
    """sigma and the two lengths for which the data are most probable."""

    def descend(start: np.ndarray) -> OptimizeResult:
        return minimize(
            _negative_log_likelihood,
            start,
            (logs, noise, h),
            jac=True,
            bounds=np.log(BOUNDS),
            method="L-BFGS-B",
        )

    # the likelihood may have several maxima
    descents = [descend(start) for start in np.log(STARTS)]
    best = min(descents, key=lambda descent: descent.fun)
    return np.exp(best.x)


def excess(surface: Surface, rs: float, theta: float) -> Thermodynamics:
    """f_xc of the cell and what follows from it: the cell without its ideal gas."""
    beyond = beyond_first_order(surface, rs, theta)
    spline = surface.first_order
    v, slope, curvature = (float(spline(np.log(theta), order)) for order in range(3))
    # r_s v_1 depends on Theta alone
    jet = [v, 0.0, slope, 0.0, 0.0, 0.0, curvature]
    first = jet_to_thermodynamics(surface.data.gas, rs, theta) @ jet
    return beyond._replace(value=beyond.value + first)


def beyond_first_order(surface: Surface, rs: float, theta: float) -> Thermodynamics:
    """f_xc of the cell and what follows from it, without the first order.

    Errors are widened where the fit has a chi2 above 1.
    """
    jet, jet_covariance = _posterior(
        surface.scales,
        surface.logs,
        surface.factor,
        surface.weights,
        np.log([rs, theta]),
    )
    linear = jet_to_thermodynamics(surface.data.gas, rs, theta)
    widening = max(surface.chi2, 1.0)
    # f, e, s, p, c, B are linear in the jet
    covariance = widening * linear @ np.asarray(jet_covariance) @ linear.T
    return Thermodynamics(linear @ np.asarray(jet), covariance)


def jet_to_thermodynamics(gas: System, rs: float, theta: float) -> np.ndarray:
    """The linear map from h and its derivatives to f, e, s, p, c, B of f = h / r_s.

    The derivatives are h, h_u, h_v, h_uu, h_uv, h_vu, h_vv with u = ln r_s and v = ln Theta.

    Returns:
      The matrix.                                           [6, 7]
    """
    temperature = theta * gas.of_unit_density.fermi_energy / rs**2
    # each derivative as the row that picks it out of the jet
    h, u, v, uu, uv, vu, vv = np.eye(7)
    # derivatives with respect to ln r_s at fixed T, where Theta goes as r_s^2
    along = u + 2 * v
    mixed = uv + vu
    twice = uu + 2 * mixed + 4 * vv
    # those of f = h / r_s: d/dr_s is 1 / r_s d/d ln r_s, and so for T
    quantities = from_derivatives(
        gas,
        rs,
        temperature,
        f=h / rs,
        by_rs=(along - h) / rs**2,
        by_t=v / (temperature * rs),
        by_rs_rs=(twice - 3 * along + 2 * h) / rs**3,
        by_t_t=(vv - v) / (temperature**2 * rs),
    )
    return np.array(quantities)


def from_derivatives(gas: System, rs, temperature, f, by_rs, by_t, by_rs_rs, by_t_t) -> list:
    """f, e, s, p, c, B of f and its derivatives.

    Args:
      gas: has the electrons and the dimension.
      rs, temperature: where the derivatives are taken; bohr, hartree.
      f, by_rs, by_t, by_rs_rs, by_t_t: f(r_s, T), df/dr_s, df/dT, d2f/dr_s2, d2f/dT2, numbers or
        arrays of equal shape.
    """
    dim = gas.dim
    density = gas.of_unit_density.density / rs**dim
    energy = f - temperature * by_t
    entropy = -by_t
    # n as r_s^-d: p = n^2 df/dn = -(n r_s / d) df/dr_s
    pressure = -density * rs / dim * by_rs
    heat_capacity = -temperature * by_t_t
    # p goes as -r_s^(1 - d) df/dr_s
    slope = (1 - dim) * by_rs + rs * by_rs_rs
    bulk_modulus = density * rs / dim**2 * slope
    return [f, energy, entropy, pressure, heat_capacity, bulk_modulus]


@jax.jit
def _regression(scales, logs, noise, h):
    """Cholesky factor of the covariance of the data, its inverse times the data, chi2."""
    factor, weights = _factor_and_weights(scales, logs, noise, h)
    # leaving one out: its residual is weight / (inverse)_ii, with variance 1 / (inverse)_ii
    inverse = cho_solve((factor, True), jnp.eye(len(h)))
    return factor, weights, jnp.mean(weights**2 / jnp.diagonal(inverse))


@jax.jit
@jax.value_and_grad
def _negative_log_likelihood(log_scales, logs, noise, h):
    """-ln of the probability of the data, up to a constant."""
    factor, weights = _factor_and_weights(jnp.exp(log_scales), logs, noise, h)
    # h^T C^-1 h / 2 + ln det C / 2, the determinant from its Cholesky factor
    half_log_determinant = jnp.sum(jnp.log(jnp.diagonal(factor)))
    return h @ weights / 2 + half_log_determinant


def _factor_and_weights(scales, logs, noise, h):
    """Cholesky factor of the covariance of the data, and its inverse times the data."""
    # the covariance of the data: that of the process and their noise
    matrix = jax.vmap(lambda a: _prior_of_data(scales, a, logs))(logs)
    factor = cholesky(matrix + jnp.diag(noise), lower=True)
    return factor, cho_solve((factor, True), h)


def _prior(scales, a, b):
    """Covariance of h at a and b = (ln r_s, ln Theta)."""
    sigma = scales[0]
    lengths = jnp.asarray(scales[1:])
    w = jax.nn.sigmoid(a[0]) * jax.nn.sigmoid(b[0])  # r_s / (1 + r_s) of both
    distance = (a - b) / lengths
    squared = jnp.sum(distance**2)
    return sigma**2 * w * jnp.exp(-squared / 2)


def _prior_of_data(scales, at, logs):
    """Covariances of h at a place and of the data.  [P]"""
    return jax.vmap(lambda other: _prior(scales, at, other))(logs)


@jax.jit
def _posterior(scales, logs, factor, weights, place):
    """The jet of h at a place, and its covariance.  [7], [7, 7]"""
    # a derivative of a Gaussian process has the derivative of its covariance
    to_data = _jet(lambda at: _prior_of_data(scales, at, logs))(place)
    prior = _jet(lambda a: _jet(lambda b: _prior(scales, a, b))(place))(place)
    # what the data determine: K C^-1 K^T
    known = to_data @ cho_solve((factor, True), to_data.T)
    return to_data @ weights, prior - known


def _jet(f: Callable) -> Callable:
    """The function that gives f, its gradient and its second derivatives at a place [2].

    They are along the first axis, [7, ...].
    """
    # forward mode, as a place has two components alone
    gradient = jax.jacfwd(f)
    hessian = jax.jacfwd(gradient)

    def jet(place):
        value = f(place)
        first = gradient(place).reshape(*value.shape, 2)
        second = hessian(place).reshape(*value.shape, 4)
        joined = jnp.concatenate([value[..., None], first, second], axis=-1)
        return jnp.moveaxis(joined, -1, 0)

    return jet


def _first_order(data: Data) -> CubicSpline:
    """r_s v_1, averaged over the twists, as a spline in ln Theta over the range of the data."""
    low = np.log(data.theta.min())
    high = np.log(data.theta.max())
    min_theta, max_theta, _ = RANGES["theta"]
    first_node = max(low - MARGIN, np.log(min_theta))
    last_node = min(high + MARGIN, np.log(max_theta))
    # v_1 costs a sum over all pairs of orbitals at each node
    count = FIRST_ORDER_NODES if high > low else FIRST_ORDER_NODES_OF_ONE
    nodes = np.linspace(first_node, last_node, count)
    values = []
    for node in nodes:
        # exp(ln x) may lie a rounding outside of the range
        theta = float(np.clip(np.exp(node), min_theta, max_theta))
        values.append(_averaged_first_order(data, theta))
    return CubicSpline(nodes, values)


def _averaged_first_order(data: Data, theta: float) -> float:
    """v_1 at r_s = 1, averaged over the twists."""
    gas = data.gas
    total = 0.0
    for twist in data.twists:
        cell = System(
            n_up=gas.n_up,
            n_down=gas.n_down,
            dim=gas.dim,
            rs=1.0,
            theta=theta,
            twist=twist.angle,
        )
        total += twist.weight * first_order(cell)
    return total
