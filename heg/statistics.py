"""Means and their standard errors, of independent samples and of Markov chains."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

WINDOW = 5.0  # the sum over lags stops at the first lag >= WINDOW tau (Sokal)
MIN_CHAIN_TIMES = 50.0  # a chain must last so many autocorrelation times
SMALL = 1e-6  # smaller numbers are printed with a power of ten
MIN_EFFECTIVE = 100.0  # effective samples from which on reweighted means are estimates
MIN_BLOCKS = 16  # from so many blocks on an error is taken as it is, not widened


class Estimate(NamedTuple):
    """A mean and its standard error, of the same unit.

    It prints with two digits of the error, as -0.52312(41); where both are below SMALL a power of
    ten follows, as 1.5(1.0)e-10.
    """

    mean: float
    error: float

    def __str__(self):
        if not math.isfinite(self.error):
            return f"{self.mean:.10g}({self.error})"
        # an exact value: its error is rounding, if it has one
        if self.error <= 1e-12 * abs(self.mean):
            return f"{self.mean:.10g}"
        largest = max(abs(self.mean), self.error)
        if largest < SMALL:
            power = math.floor(math.log10(largest))
            unit = 10.0**power
            return f"{Estimate(self.mean / unit, self.error / unit)}e{power:03d}"
        # decimals of the mean so that its last two are those of the error
        decimals = max(0, 1 - math.floor(math.log10(self.error)))
        if decimals > 1:
            error = f"{self.error * 10**decimals:.0f}"
        else:
            error = f"{self.error:.{decimals}f}"
        return f"{self.mean:.{decimals}f}({error})"


def widening(count: int) -> float:
    """Factor by which an error from few independent values is widened.

    It is that of Student's distribution, as few values determine their own spread badly.  The
    interval of one error then holds the true mean in 68 % of all cases.  The factor is 1 from
    MIN_BLOCKS values on.
    """
    if count >= MIN_BLOCKS:
        return 1.0
    probability = stats.norm.cdf(1.0)
    return float(stats.t.ppf(probability, count - 1))


def independent(samples: ArrayLike) -> Estimate:
    """Mean of independent samples and its standard error, s / sqrt(B).

    Args:
      samples: the values.                                  [B]

    Raises:
      ValueError: fewer than two samples.

    Accuracy: below 16 samples the error is widened, as in `widening`.
    """
    samples = np.asarray(samples)
    count = len(samples)
    if count < 2:
        raise ValueError(f"{count} sample gives no error: draw at least 2")
    error = np.std(samples, ddof=1) / np.sqrt(count)
    return Estimate(float(np.mean(samples)), float(error * widening(count)))


class Reweighted(NamedTuple):
    """Means over a distribution w p / E_p[w], from independent samples of p.

    Attributes:
      log_mean: ln E_p[w] and its error.
      value: mean of a quantity with the weights, and its error.
      effective: (sum w)^2 / sum w^2, the effective number of samples.
    """

    log_mean: Estimate
    value: Estimate
    effective: float

    @property
    def is_estimate(self) -> bool:
        """Whether enough samples carry the means: their errors mean something."""
        return self.effective >= MIN_EFFECTIVE


def reweighted(log_weight: ArrayLike, values: ArrayLike) -> Reweighted:
    """ln of the mean weight and the weighted mean of a quantity.

    Args:
      log_weight: ln w of independent samples.              [B]
      values: the quantity.                                 [B]
    Accuracy: the errors are those of the leading order, the bias of the logarithm at that order is
      taken off.  Both need many effective samples, see `Reweighted.is_estimate`.
    Source: Kish, Survey Sampling (Wiley, 1965), for the effective number.
    """
    log_weight = np.asarray(log_weight)
    values = np.asarray(values)
    # the largest weight is one: none overflows
    largest = log_weight.max()
    weight = np.exp(log_weight - largest)
    mean = weight.mean()
    share = weight / weight.sum()
    relative_variance = np.var(weight, ddof=1) / len(weight) / mean**2
    # E[ln(mean)] lies below ln(E[mean]) by half of the relative variance
    log_mean = largest + np.log(mean) + relative_variance / 2
    average = np.sum(share * values)
    deviation = values - average
    variance = np.sum(share**2 * deviation**2)
    error_of_value = np.sqrt(variance)
    return Reweighted(
        log_mean=Estimate(float(log_mean), float(np.sqrt(relative_variance))),
        value=Estimate(float(average), float(error_of_value)),
        effective=float(1 / np.sum(share**2)),
    )


def autocorrelation_time(chain: ArrayLike) -> float:
    r"""Integrated autocorrelation time tau = 1 + 2 sum_t rho(t) of a chain, in its steps.

    Args:
      chain: values in order, or one chain per column, whose correlations are averaged.
        [T] or [T, chains]

    Raises:
      ValueError: the chain is shorter than 50 tau; no error of it can be trusted.

    Accuracy: biased low by the window, by less than its own statistical error for T > 50 tau.
    Source: Sokal's window, in Functional Integration (Plenum, 1997), p. 131,
      doi:10.1007/978-1-4899-0319-8_6.
    """
    chain = np.asarray(chain, float)
    steps = len(chain)
    deviations = (chain - chain.mean(axis=0)).reshape(steps, -1)
    # zeros behind the chain: the Fourier transform would wrap it around
    spectrum = np.fft.rfft(deviations, n=2 * steps, axis=0)
    power = np.abs(spectrum) ** 2
    of_chains = np.fft.irfft(power, axis=0)[:steps]
    covariance = of_chains.sum(axis=1)
    # a chain that never moves, as one that is exact
    if covariance[0] == 0:
        return 1.0
    rho = covariance / covariance[0]
    # 1 + 2 sum_t rho(t), the sum over lags up to each window
    tau_of_window = 2 * np.cumsum(rho) - 1
    is_long_enough = np.arange(steps) >= WINDOW * tau_of_window
    long_enough = np.flatnonzero(is_long_enough)
    tau = float(tau_of_window[long_enough[0]]) if len(long_enough) else np.inf
    if steps < MIN_CHAIN_TIMES * tau:
        raise ValueError(
            f"a chain of {steps} steps is shorter than "
            f"{MIN_CHAIN_TIMES:g} autocorrelation times: run longer"
        )
    return max(tau, 1.0)


def chain_mean(chain: ArrayLike) -> Estimate:
    """Mean of a correlated chain, its error from the autocorrelation time.

    Args:
      chain: values in order, or one chain per column.      [T] or [T, chains]

    Raises:
      ValueError: the chain is too short for its error.
    """
    chain = np.asarray(chain, float)
    # steps between values that know nothing of each other
    tau = autocorrelation_time(chain)
    # as many values as chain.size / tau independent ones
    error = chain.std(ddof=1) * np.sqrt(tau / chain.size)
    return Estimate(float(chain.mean()), float(error))


def blocking(chain: ArrayLike) -> Estimate:
    """Mean of a correlated chain, its error from means over blocks.

    The error is the largest over block lengths 1, 2, 4, ... with at least 16 blocks.

    Args:
      chain: values in order.                               [T]

    Raises:
      ValueError: the chain is shorter than 16 steps.

    Source: Flyvbjerg and Petersen, J. Chem. Phys. 91, 461 (1989), doi:10.1063/1.457480.
    """
    blocks = np.asarray(chain, float)
    mean = float(blocks.mean())
    errors = []
    while len(blocks) >= MIN_BLOCKS:
        errors.append(independent(blocks).error)
        # pairs of blocks become blocks; an odd last one is left out
        pairs = len(blocks) // 2
        even = blocks[: 2 * pairs]
        blocks = even.reshape(-1, 2).mean(axis=1)
    if not errors:
        raise ValueError(
            f"a chain of {len(blocks)} steps is too short to block: give at least {MIN_BLOCKS}"
        )
    return Estimate(mean, max(errors))


class Derived(NamedTuple):
    """Quantities derived from means, with the covariance of their errors.

    Attributes:
      value: quantities.                                    [...]
      covariance: of the flattened value.                   [size, size]
    """

    value: np.ndarray
    covariance: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """Standard errors, of the shape of the value."""
        return np.sqrt(np.diagonal(self.covariance)).reshape(self.value.shape)


def jackknife(blocks: Any, function: Callable[[Any], ArrayLike], groups: int = 256) -> Derived:
    """A function of means, from the means of independent blocks of equally many samples.

    Args:
      blocks: pytree of arrays with the blocks along the first axis.
      function: takes the pytree of means, gives an array or a number.
      groups: largest number of groups to which blocks are pooled, each left out once.

    Raises:
      ValueError: fewer than two blocks.

    Accuracy: the bias of the value is of order 1 / groups^2, as that of order 1 / groups is
      corrected.  The error is known to a share of 1 / sqrt(2 groups), and widened below 16 groups.
    Source: Efron and Stein, Ann. Statist. 9, 586 (1981), doi:10.1214/aos/1176345462.
    """
    count = len(jax.tree.leaves(blocks)[0])
    if count < 2:
        raise ValueError(f"{count} block of samples gives no error: draw more samples")
    # blocks in a group, rounded up
    size = -(-count // groups)
    groups = count // size  # a rest smaller than a group joins the mean, not the error
    pooled = jax.tree.map(lambda leaf: _pool(leaf, groups, size), blocks)
    mean_of_groups = jax.tree.map(_mean_of_blocks, pooled)

    def evaluate(means) -> np.ndarray:
        return np.asarray(function(means))

    # the mean of all groups but one, without a sum over the others
    def mean_without(index):
        leave_out = lambda mean, leaf: mean + (mean - leaf[index]) / (groups - 1)
        return jax.tree.map(leave_out, mean_of_groups, pooled)

    left_out = np.stack([evaluate(mean_without(index)) for index in range(groups)])
    mean_left_out = left_out.mean(axis=0)
    deviation = (left_out - mean_left_out).reshape(groups, -1)
    # (g - 1) / g times the sum of squares: the values with one group left out are close together
    covariance = widening(groups) ** 2 * (groups - 1) / groups * deviation.T @ deviation
    # f of a mean is off by b / groups, with one group left out by b / (groups - 1)
    bias = (groups - 1) * (mean_left_out - evaluate(mean_of_groups))
    mean_of_all = jax.tree.map(_mean_of_blocks, blocks)
    return Derived(evaluate(mean_of_all) - bias, covariance)


def _pool(leaf, groups: int, size: int):
    """Means of so many groups of so many blocks."""
    whole_groups = leaf[: groups * size]
    return whole_groups.reshape(groups, size, *leaf.shape[1:]).mean(axis=1)


def _mean_of_blocks(leaf):
    return leaf.mean(axis=0)


def intercept(x: ArrayLike, y: ArrayLike, error: ArrayLike) -> tuple[Estimate, float]:
    """Value at x = 0 of a straight line through points with independent errors.

    Args:
      x, y, error: of each point; two points at least.      [P]

    Returns:
      The value, and chi^2 per degree of freedom of the fit.
    """
    x = np.asarray(x)
    y = np.asarray(y)
    error = np.maximum(error, 1e-300)
    unit = np.mean(np.abs(x)) or 1.0
    # a constant and a slope, both of order one, in units of the errors
    constant = np.ones(len(x))
    line = np.stack([constant, x / unit], axis=1)
    regressors = line / error[:, None]
    targets = y / error
    # normal equations; pinv, as all x may be the same
    normal = regressors.T @ regressors
    covariance = np.linalg.pinv(normal)
    best = covariance @ regressors.T @ targets
    residuals = targets - regressors @ best
    degrees_of_freedom = max(len(x) - 2, 1)
    chi2 = np.sum(residuals**2) / degrees_of_freedom
    error_at_zero = np.sqrt(covariance[0, 0])
    at_zero = Estimate(float(best[0]), float(error_at_zero))
    return at_zero, float(chi2)
