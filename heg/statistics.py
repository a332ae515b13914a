"""Means with honest errors, of independent samples and of chains."""

import math
from typing import NamedTuple

import jax
import numpy as np
from scipy import stats

WINDOW = 5.0  # the sum over lags stops at the first lag >= WINDOW tau (Sokal)
SHORTEST = 50.0  # a chain must last SHORTEST autocorrelation times
SMALL = 1e-6  # numbers that are printed with a power of ten
BLOCKS = 16  # fewest blocks from which an error is read as it is


class Estimate(NamedTuple):
    """A mean and its standard error, of the same unit; prints with two digits of the error, as
    -0.52312(41).

    Where both are below SMALL a power of ten follows, as 1.5(10)e-10.
    """

    mean: float
    error: float

    def __str__(self):
        if not math.isfinite(self.error):
            return f"{self.mean:.10g}({self.error})"
        if self.error <= 1e-12 * abs(self.mean):
            return f"{self.mean:.10g}"
        largest = max(abs(self.mean), self.error)
        if largest < SMALL:
            power = math.floor(math.log10(largest))
            return f"{Estimate(self.mean / 10.0**power, self.error / 10.0**power)}e{power:03d}"
        digits = max(0, 1 - math.floor(math.log10(self.error)))
        error = f"{self.error * 10**digits:.0f}" if digits > 1 else f"{self.error:.{digits}f}"
        return f"{self.mean:.{digits}f}({error})"


def widening(count: int) -> float:
    """Factor by which an error from few independent values is widened: Student's, as their spread
    is badly known too.

    The interval of one error then holds the true mean in 68 % of all cases; 1 from BLOCKS values
    on.
    """
    return 1.0 if count >= BLOCKS else float(stats.t.ppf(stats.norm.cdf(1.0), count - 1))


def independent(samples) -> Estimate:
    """Mean of independent samples [B] and its standard error, s / sqrt(B), widened below 16
    samples.

    Raises:
      ValueError: fewer than two samples.
    """
    samples = np.asarray(samples)
    if len(samples) < 2:
        raise ValueError(f"{len(samples)} sample gives no error: draw at least 2")
    error = np.std(samples, ddof=1) / np.sqrt(len(samples))
    return Estimate(float(np.mean(samples)), float(error * widening(len(samples))))


def autocorrelation_time(chain) -> float:
    r"""Integrated autocorrelation time tau = 1 + 2 sum_t rho(t) of one chain, in its steps.

    Args:
      chain: values in order, or one chain per column, whose correlations are averaged.  [T] or [T, chains]
    Raises:
      ValueError: the chain is shorter than 50 tau; no error of it can be trusted.
    Accuracy: biased low by the window, by less than its own statistical error for T > 50 tau.
    Source: Sokal's window, in Functional Integration (Plenum, 1997), p. 131,
      doi:10.1007/978-1-4899-0319-8_6.
    """
    chain = np.asarray(chain, float)
    deviations = (chain - chain.mean(axis=0)).reshape(len(chain), -1)
    spectrum = np.fft.rfft(deviations, n=2 * len(chain), axis=0)
    covariance = np.fft.irfft(np.abs(spectrum) ** 2, axis=0)[: len(chain)].sum(axis=1)
    if covariance[0] == 0:
        return 1.0
    tau = 2 * np.cumsum(covariance / covariance[0]) - 1
    windowed = np.flatnonzero(np.arange(len(tau)) >= WINDOW * tau)
    result = float(tau[windowed[0]]) if len(windowed) else np.inf
    if len(chain) < SHORTEST * result:
        raise ValueError(
            f"a chain of {len(chain)} steps is shorter than {SHORTEST:g} autocorrelation times: run longer"
        )
    return max(result, 1.0)


def chain_mean(chain) -> Estimate:
    """Mean of a correlated chain [T] or of several [T, chains], its error from the autocorrelation
    time.

    Raises:
      ValueError: the chain is too short for its error.
    """
    chain = np.asarray(chain, float)
    tau = autocorrelation_time(chain)
    return Estimate(float(chain.mean()), float(chain.std(ddof=1) * np.sqrt(tau / chain.size)))


def blocking(chain) -> Estimate:
    """Mean of a chain [T]; its error is the largest over block lengths 1, 2, 4, ... with at least
    16 blocks.

    Source: Flyvbjerg and Petersen, J. Chem. Phys. 91, 461 (1989), doi:10.1063/1.457480.
    """
    blocks, errors = np.asarray(chain, float), []
    mean = float(blocks.mean())
    while len(blocks) >= BLOCKS:
        errors.append(independent(blocks).error)
        blocks = blocks[: len(blocks) // 2 * 2].reshape(-1, 2).mean(axis=1)
    if not errors:
        raise ValueError(
            f"a chain of {len(blocks)} steps is too short to block: give at least {BLOCKS}"
        )
    return Estimate(mean, max(errors))


class Derived(NamedTuple):
    """Quantities derived from means, and how their errors go together.

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


def jackknife(blocks, function, groups: int = 256) -> Derived:
    """A function of means, from the means of independent blocks of equally many samples.

    Args:
      blocks: pytree of arrays with the blocks along the first axis.
      function: the pytree of means -> array or number.
      groups: blocks are pooled to at most so many, each left out once.
    Accuracy:
      The value's bias is of order 1 / groups^2 (it is corrected for that of order 1 / groups); the
      error is known to a share of 1 / sqrt(2 groups), and widened below 16 groups.
    Raises:
      ValueError: fewer than two blocks.
    Source: Efron and Stein, Ann. Statist. 9, 586 (1981), doi:10.1214/aos/1176345462.
    """
    count = len(jax.tree.leaves(blocks)[0])
    if count < 2:
        raise ValueError(f"{count} block of samples gives no error: draw more samples")
    size = -(-count // groups)
    groups = count // size  # a rest smaller than a group joins the mean, not the error
    pool = lambda leaf: leaf[: groups * size].reshape(groups, size, *leaf.shape[1:]).mean(axis=1)
    pooled = jax.tree.map(pool, blocks)
    whole = jax.tree.map(lambda leaf: leaf.mean(axis=0), pooled)
    without = lambda place: jax.tree.map(
        lambda mean, leaf: mean + (mean - leaf[place]) / (groups - 1), whole, pooled
    )
    left_out = np.stack([np.asarray(function(without(place))) for place in range(groups)])
    deviation = (left_out - left_out.mean(axis=0)).reshape(groups, -1)
    covariance = widening(groups) ** 2 * (groups - 1) / groups * deviation.T @ deviation
    bias = (groups - 1) * (left_out.mean(axis=0) - np.asarray(function(whole)))
    best = np.asarray(function(jax.tree.map(lambda leaf: leaf.mean(axis=0), blocks))) - bias
    return Derived(best, covariance)


def intercept(x, y, error) -> tuple[Estimate, float]:
    """Value at x = 0 of a straight line through points with independent errors, and chi^2 per
    degree of freedom.

    Args:
      x, y, error: of each point; two points at least.      [P]
    """
    error, unit = np.maximum(error, 1e-300), np.mean(np.abs(x)) or 1.0
    regressors = np.stack([np.ones(len(x)), np.asarray(x) / unit], axis=1) / error[:, None]
    covariance = np.linalg.pinv(regressors.T @ regressors)
    best = covariance @ regressors.T @ (y / error)
    chi2 = np.sum((y / error - regressors @ best) ** 2)
    return Estimate(float(best[0]), float(np.sqrt(covariance[0, 0]))), float(
        chi2 / max(len(x) - 2, 1)
    )
