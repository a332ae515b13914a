import jax
import numpy as np
import pyblock
import pytest
from emcee.autocorr import integrated_time
from known_systems import assert_equal_within_errors
from scipy.signal import lfilter

from heg.statistics import (
    Estimate,
    autocorrelation_time,
    blocking,
    chain_mean,
    independent,
    jackknife,
    reweighted,
    widening,
)

# of the chain x_t = 0.8 x_{t-1} + noise
MEMORY = 0.8
TAU = 9.0  # (1 + 0.8) / (1 - 0.8)
VARIANCE = 1 / 0.36  # 1 / (1 - 0.8^2)


def autoregressive_chain(steps, chains=1, seed=1):
    """Stationary from its first step.  [steps, chains]"""
    noise = np.random.default_rng(seed).normal(size=(steps + 200, chains))
    return lfilter([1.0], [1.0, -MEMORY], noise, axis=0)[200:]


def test_autocorrelation_time_of_an_autoregressive_chain():
    steps = 200_000
    error = TAU * np.sqrt(2 * (2 * 5 * TAU + 1) / steps)  # of Sokal's window of 5 tau
    assert_equal_within_errors(
        autocorrelation_time(autoregressive_chain(steps)[:, 0]), error, TAU, bound=0.3
    )


def test_several_chains_share_their_autocorrelation_time():
    steps, chains = 2000, 100
    error = TAU * np.sqrt(2 * (2 * 5 * TAU + 1) / (steps * chains))
    # subtracting each chain's own mean lowers rho by about tau / steps at every lag of the window
    bias = -TAU * 2 * 5 * TAU / steps
    tau = autocorrelation_time(autoregressive_chain(steps, chains))
    assert_equal_within_errors(tau - bias, error, TAU, bound=0.3)


def test_white_noise_has_no_memory():
    noise = np.random.default_rng(2).normal(size=100_000)
    assert_equal_within_errors(
        autocorrelation_time(noise), np.sqrt(2 * 11 / 100_000), 1.0, bound=0.02
    )
    assert autocorrelation_time(np.ones(100)) == 1.0


def test_agrees_with_emcee():
    chain = autoregressive_chain(20_000)[:, 0]
    np.testing.assert_allclose(autocorrelation_time(chain), integrated_time(chain)[0], rtol=1e-10)


def test_error_of_a_chain_is_that_known_in_closed_form():
    steps = 100_000
    estimate = chain_mean(autoregressive_chain(steps)[:, 0])
    np.testing.assert_allclose(estimate.error, np.sqrt(VARIANCE * TAU / steps), rtol=0.15)


@pytest.mark.parametrize("error_of", [chain_mean, blocking])
def test_deviations_of_many_chains_follow_their_errors(error_of):
    chains = autoregressive_chain(4096, 300).T
    deviations = np.array([estimate.mean / estimate.error for estimate in map(error_of, chains)])
    mean_square, spread = np.mean(deviations**2), np.sqrt(2 / 300)
    # the largest of several blocked errors errs on the safe side
    assert (1 if error_of is chain_mean else 0.75) - 4 * spread < mean_square < 1 + 4 * spread
    naive = np.array([independent(chain).error for chain in chains])
    assert np.mean((chains.mean(axis=1) / naive) ** 2) > TAU / 2


def test_blocking_of_white_noise_is_the_plain_error():
    noise = np.random.default_rng(3).normal(size=(50, 4096))
    ratio = np.mean([blocking(chain).error / independent(chain).error for chain in noise])
    assert 1 <= ratio < 1.4  # the largest of nine errors, the last of 16 blocks


@pytest.mark.parametrize("chains", [1, 3])
def test_chain_shorter_than_fifty_times_is_refused(chains):
    with pytest.raises(ValueError, match="shorter than 50 autocorrelation times"):
        autocorrelation_time(autoregressive_chain(200, chains))
    with pytest.raises(ValueError, match="run longer"):
        chain_mean(np.arange(1000.0))
    with pytest.raises(ValueError, match="too short to block"):
        blocking(np.arange(15.0))


def test_independent_samples_by_hand():
    mean, error = independent([1.0, 2.0, 3.0, 4.0])
    # Student's t of 3 degrees of freedom at 84.13 %, where the normal one is at 1: 1.197
    np.testing.assert_allclose([mean, error], [2.5, 1.1969 * np.sqrt(5 / 3) / 2], rtol=1e-4)
    with pytest.raises(ValueError, match="at least 2"):
        independent([1.0])


@pytest.mark.parametrize(
    "mean, error, printed",
    [
        (-0.52312, 0.00041, "-0.52312(41)"),
        (12.3456, 0.02, "12.346(20)"),
        (12.3456, 1.5, "12.3(1.5)"),
        (-0.5, 0.0, "-0.5"),
        (1.25, np.nan, "1.25(nan)"),
        (1.5e-10, 1.0e-10, "1.5(1.0)e-10"),
        (-2.34567e-7, 1.2e-9, "-2.346(12)e-07"),
        (0.0, 2e-9, "0.0(2.0)e-09"),
    ],
)
def test_estimate_prints_two_digits_of_its_error(mean, error, printed):
    assert str(Estimate(mean, error)) == printed


def test_blocking_agrees_with_pyblock():
    chain = autoregressive_chain(2**15)[:, 0]
    levels = pyblock.blocking.reblock(chain)
    # the same errors at the same block lengths; pyblock's own choice among them is near the largest
    ours = [independent(chain.reshape(-1, 2**level).mean(axis=1)).error for level in range(8)]
    np.testing.assert_allclose(ours, [level.std_err for level in levels[:8]], rtol=1e-10)
    chosen = levels[pyblock.blocking.find_optimal_block(len(chain), levels)[0]].std_err
    assert 0.85 * chosen < blocking(chain).error < 1.4 * chosen


def test_jackknife_of_a_mean_is_the_plain_error_and_keeps_correlations():
    rng = np.random.default_rng(3)
    mixing = np.array([[1.0, 0.0], [0.8, 0.6]])
    samples = rng.normal(size=(200, 2)) @ mixing.T
    found = jackknife(samples, lambda mean: mean)
    np.testing.assert_allclose(found.value, samples.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(found.covariance, np.cov(samples.T) / 200, rtol=1e-10)


def test_jackknife_of_a_ratio_has_its_error_and_little_bias():
    # mean of y over mean of x with y = 2 x + noise: the ratio is 2, its error the noise's alone,
    # over the mean of x
    rng = np.random.default_rng(4)
    x = 1 + 0.5 * rng.normal(size=(300, 40))
    y = 2 * x + 0.1 * rng.normal(size=x.shape)
    found = [jackknife({"x": a, "y": b}, lambda mean: mean["y"] / mean["x"]) for a, b in zip(x, y)]
    deviation = np.array([one.value - 2 for one in found])
    error = np.array([one.error for one in found])
    np.testing.assert_allclose(error.mean(), 0.1 / np.sqrt(40), rtol=0.05)
    assert_equal_within_errors(deviation.mean(), error.mean() / np.sqrt(300), 0.0, bound=0.002)
    mean_square = np.mean((deviation / error) ** 2)
    assert 1 - 4 * np.sqrt(2 / 300) < mean_square < 1 + 5 * np.sqrt(2 / 300)


def test_jackknife_corrects_the_bias_of_a_square():
    rng = np.random.default_rng(5)
    samples = rng.normal(
        size=(4000, 20)
    )  # the square of their mean is 0, of the mean of 20: 1 / 20
    values = np.array([jackknife(one, lambda mean: mean**2).value for one in samples])
    assert_equal_within_errors(values.mean(), values.std() / np.sqrt(4000), 0.0, bound=0.002)


def test_jackknife_pools_blocks():
    samples = np.random.default_rng(6).normal(size=1000)
    found = jackknife(samples, lambda mean: mean, groups=50)
    np.testing.assert_allclose(found.value, samples.mean(), atol=1e-12)
    np.testing.assert_allclose(found.error, 1 / np.sqrt(1000), rtol=0.35)
    with pytest.raises(ValueError, match="gives no error"):
        jackknife(samples[:1], lambda mean: mean)


@pytest.mark.parametrize("count", [2, 3, 8, 16])
def test_an_error_of_few_samples_holds_the_mean_as_often_as_one_of_many(count):
    trials = 20_000
    samples = np.random.default_rng(7).normal(size=(trials, count))
    plain = np.std(samples, axis=1, ddof=1) / np.sqrt(count) * widening(count)
    assert independent(samples[0]).error == pytest.approx(plain[0], rel=1e-12)
    assert jackknife(samples[0], lambda mean: mean).error == pytest.approx(plain[0], rel=1e-9)
    inside = np.mean(np.abs(samples.mean(axis=1)) < plain)
    # from 16 on the error is not widened: 66.7 % by Student's distribution
    expected = 0.6827 if count < 16 else 0.6667
    assert abs(inside - expected) < 4 * np.sqrt(expected * (1 - expected) / trials)


def test_reweighting_of_normal_weights_is_exact_within_its_error(key):
    # E[e^{sigma u}] = e^{sigma^2 / 2}, and the weighted mean of u is sigma
    sigma = 0.8
    u = np.asarray(jax.random.normal(key, (20_000,)))
    result = reweighted(sigma * u - 1000.0, u)
    assert result.is_estimate
    assert result.log_mean.error < 0.02 and result.value.error < 0.02
    assert abs(result.log_mean.mean - (sigma**2 / 2 - 1000.0)) < 4 * result.log_mean.error
    assert abs(result.value.mean - sigma) < 4 * result.value.error
    assert result.effective == pytest.approx(len(u) * np.exp(-(sigma**2)), rel=0.1)


def test_few_samples_that_carry_the_weight_are_no_estimate(key):
    u = np.asarray(jax.random.normal(key, (4096,)))
    assert not reweighted(5 * u, u).is_estimate
