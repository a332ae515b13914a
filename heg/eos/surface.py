r"""The equation of state as a surface: f_xc of a cell over r_s and Theta, fitted, and all that
follows by derivatives.

What is fitted is h = r_s f_xc - r_s v_1(Theta), v_1 the first order of the same cell and twists,
which is exact (heg.gas.first_order).  h is a Gaussian process in ln r_s and ln Theta of mean zero
with the covariance

.. math:: \sigma^2 w(r_s) w(r_s') \exp\Big[-\frac{\ln^2(r_s / r_s')}{2 \ell_r^2}
          - \frac{\ln^2(\Theta / \Theta')}{2 \ell_\Theta^2}\Big], \qquad w(r_s) = \frac{r_s}{1 +
            r_s} ,

so that h vanishes in first order of r_s, where the ideal gas and exchange are all there is.  sigma
and the lengths maximise the likelihood of the data with their errors.  With f(r_s, T) at fixed
numbers of electrons

.. math:: s = -\frac{\partial f}{\partial T}, \quad e = f + T s, \quad c = -T \frac{\partial^2 f}{\partial T^2},
          \quad p = -\frac{n r_s}{d} \frac{\partial f}{\partial r_s},
          \quad B = -\frac{r_s}{d} \frac{\partial p}{\partial r_s} .

These are linear in f, so that the process gives each with its error, and their covariances.
Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (MIT Press, 2006), chapters
2, 5 and 9.4.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, cholesky
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize

from heg.gas.first_order import first_order
from heg.gas.system import RANGES, System

NAMES = ("f", "e", "s", "p", "c", "B")
FEWEST = 3  # points of a surface
FIRST_ORDER_NODES = 24  # of v_1 over ln Theta
BOUNDS = ((1e-3, 10.0), (0.5, 10.0), (0.5, 10.0))  # of sigma (hartree bohr) and the two lengths


class Data(NamedTuple):
    """f_xc of cells of the same electrons and twists, hartree per electron.

    Attributes:
      gas: one of the cells; its r_s, Theta and twist do not matter.
      twists: their angles and weights.
      rs, theta, f_xc, error: of each.                      [P]
    """

    gas: System
    twists: list
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
    logs: jax.Array
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
    if len(data.rs) < FEWEST:
        raise ValueError(
            f"{len(data.rs)} points make no surface: give {FEWEST} or more of one cell"
        )
    first = _first_order(data)
    logs = jnp.stack([jnp.log(data.rs), jnp.log(data.theta)], axis=1)
    h = jnp.asarray(data.rs * data.f_xc - first(np.log(data.theta)))
    noise = jnp.asarray((data.rs * data.error) ** 2)

    starts = np.log([[0.3, 2.0, 2.0], [0.1, 1.0, 1.0], [1.0, 4.0, 4.0]])
    descend = lambda start: minimize(
        _surprise, start, (logs, noise, h), jac=True, bounds=np.log(BOUNDS), method="L-BFGS-B"
    )
    scales = np.exp(min(map(descend, starts), key=lambda one: one.fun).x)
    factor, weights, chi2 = _regression(scales, logs, noise, h)
    return Surface(data, scales, logs, first, factor, weights, float(chi2))


def excess(surface: Surface, rs: float, theta: float) -> Thermodynamics:
    """f_xc of the cell and what follows, less the ideal gas's."""
    found, gas = beyond_first_order(surface, rs, theta), surface.data.gas
    g, slope, curvature = (float(surface.first_order(np.log(theta), order)) for order in range(3))
    of_first = of_jet(gas, rs, theta) @ [g, 0.0, slope, 0.0, 0.0, 0.0, curvature]
    return found._replace(value=found.value + of_first)


def beyond_first_order(surface: Surface, rs: float, theta: float) -> Thermodynamics:
    """The same without the first order of the cell.  Errors are widened where the fit has chi2
    above 1."""
    arrays = surface.scales, surface.logs, surface.factor, surface.weights
    jet, covariance = map(np.asarray, _posterior(*arrays, np.log([rs, theta])))
    linear = of_jet(surface.data.gas, rs, theta)
    return Thermodynamics(linear @ jet, max(surface.chi2, 1.0) * linear @ covariance @ linear.T)


def of_jet(gas: System, rs: float, theta: float) -> np.ndarray:
    """The linear map from h and its derivatives (`_jet`) to f, e, s, p, c, B of f = h / r_s.  [6,
    7]"""
    temperature = theta * gas.of_unit_density.fermi_energy / rs**2
    h, u, v, uu, uv, vu, vv = np.eye(7)  # derivatives by u = ln r_s and v = ln Theta
    along, twice = u + 2 * v, uu + 2 * (uv + vu) + 4 * vv  # at fixed T, Theta goes as r_s^2
    by_rs, by_rs_rs = (along - h) / rs**2, (twice - 3 * along + 2 * h) / rs**3
    by_t, by_t_t = v / (temperature * rs), (vv - v) / (temperature**2 * rs)
    return np.array(from_derivatives(gas, rs, temperature, h / rs, by_rs, by_t, by_rs_rs, by_t_t))


def from_derivatives(gas: System, rs, temperature, *derivatives) -> list:
    """f, e, s, p, c, B of f and its derivatives df/dr_s, df/dT, d2f/dr_s2, d2f/dT2, arrays of equal
    shape."""
    f, by_rs, by_t, by_rs_rs, by_t_t = derivatives
    dim, density = gas.dim, gas.of_unit_density.density / rs**gas.dim
    # p goes as -r_s^(1 - d) df/dr_s
    bulk = density * rs / dim**2 * ((1 - dim) * by_rs + rs * by_rs_rs)
    return [
        f,
        f - temperature * by_t,
        -by_t,
        -density * rs / dim * by_rs,
        -temperature * by_t_t,
        bulk,
    ]


@jax.jit
def _regression(scales, logs, noise, h):
    """Cholesky factor of the covariance of the data, its inverse times the data, chi2."""
    factor, weights = _weights(scales, logs, noise, h)
    # leaving one out: its residual is weight / (inverse)_ii, with variance 1 / (inverse)_ii
    inverse = cho_solve((factor, True), jnp.eye(len(h)))
    return factor, weights, jnp.mean(weights**2 / jnp.diagonal(inverse))


@jax.jit
@jax.value_and_grad
def _surprise(log_scales, logs, noise, h):
    """-ln of the likelihood of the data, but for a constant."""
    factor, weights = _weights(jnp.exp(log_scales), logs, noise, h)
    return h @ weights / 2 + jnp.sum(jnp.log(jnp.diagonal(factor)))


def _weights(scales, logs, noise, h):
    matrix = jax.vmap(lambda a: jax.vmap(lambda b: _prior(scales, a, b))(logs))(logs)
    factor = cholesky(matrix + jnp.diag(noise), lower=True)
    return factor, cho_solve((factor, True), h)


def _prior(scales, a, b):
    """Covariance of h at a and b = (ln r_s, ln Theta)."""
    sigma, length = scales[0], jnp.asarray(scales[1:])
    w = jax.nn.sigmoid(a[0]) * jax.nn.sigmoid(b[0])
    return sigma**2 * w * jnp.exp(-jnp.sum(((a - b) / length) ** 2) / 2)


def _prior_of_data(scales, at, logs):
    """Covariances of h at a place and of the data.  [P]"""
    return jax.vmap(lambda other: _prior(scales, at, other))(logs)


def _jet(f):
    """Of f(place [2]): its value, gradient and second derivatives, along the first axis.  [7,
    ...]"""
    gradient = jax.jacfwd(f)

    def of(place):
        value, first, second = f(place), gradient(place), jax.jacfwd(gradient)(place)
        flat = lambda derivative, axes: derivative.reshape(*value.shape, 2**axes)
        return jnp.moveaxis(
            jnp.concatenate([value[..., None], flat(first, 1), flat(second, 2)], axis=-1), -1, 0
        )

    return of


@jax.jit
def _posterior(scales, logs, factor, weights, place):
    """The jet of h at a place, and its covariance.  [7], [7, 7]"""
    to_data = _jet(lambda at: _prior_of_data(scales, at, logs))(place)
    prior = _jet(lambda a: _jet(lambda b: _prior(scales, a, b))(place))(place)
    return to_data @ weights, prior - to_data @ cho_solve((factor, True), to_data.T)


def _first_order(data):
    """r_s v_1, averaged over the twists, as a spline in ln Theta over the range of the data."""
    low, high = np.log(data.theta.min()), np.log(data.theta.max())
    least, most, _ = RANGES["theta"]
    nodes = np.linspace(
        max(low - 1e-3, np.log(least)),
        min(high + 1e-3, np.log(most)),
        FIRST_ORDER_NODES if high > low else 4,
    )
    gas = data.gas.of_unit_density

    def at(theta):
        gases = [
            (System(gas.n_up, gas.n_down, gas.dim, 1.0, theta, angle), weight)
            for angle, weight in data.twists
        ]
        return sum(weight * first_order(one) for one, weight in gases)

    return CubicSpline(nodes, [at(float(np.clip(np.exp(node), least, most))) for node in nodes])
