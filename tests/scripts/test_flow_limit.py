"""What a flow of pairs can reach in second order: identities and limits."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import flow_limit  # noqa: E402


def by_pairs(n, f, q):
    """Moments sum w dE^m, m = -1, 1, 3, from every two electrons."""
    place = {tuple(k): number for number, k in enumerate(n)}
    sums = dict.fromkeys((-1, 1, 3), 0.0)
    for a in range(len(n)):
        for b in range(len(n)):
            c, d = place.get(tuple(n[a] + q)), place.get(tuple(n[b] - q))
            if c is not None and d is not None:
                energy = (n[c] @ n[c] - n[a] @ n[a] + n[d] @ n[d] - n[b] @ n[b]) / 2
                weight = f[a] * f[b] * (1 - f[c]) * (1 - f[d]) - f[c] * f[d] * (1 - f[a]) * (
                    1 - f[b]
                )
                for m in sums if energy > 0 else ():
                    sums[m] += weight * energy**m
    return sums


def test_transitions_are_those_of_all_pairs():
    n, q = flow_limit.lattice(2, 4), np.array([1, 2])
    # nothing leaves the lattice
    f = np.where(np.abs(n).max(axis=1) <= 2, flow_limit.occupations(n, 5, 0.6), 0.0)
    energy, weight = flow_limit.transitions(n, f, q)
    for m, expected in by_pairs(n, f, q).items():
        np.testing.assert_allclose(np.sum(weight * energy**m), expected, rtol=1e-12)


def test_the_exact_amplitude_gains_all():
    n = flow_limit.lattice(3, 6)
    energy, weight = flow_limit.transitions(
        n, flow_limit.occupations(n, 7, 0.0), np.array([1, 1, 0])
    )
    np.testing.assert_allclose(
        flow_limit.share(energy, weight, (-1,)), np.sum(weight / energy), rtol=1e-12
    )
    # more freedom, more gain, never more than all
    gains = [flow_limit.share(energy, weight, powers) for powers in ((1,), (1, 2), (1, 2, 3))]
    assert 0 < gains[0] < gains[1] < gains[2] < np.sum(weight / energy)


def test_a_hot_gas_keeps_a_third_at_long_waves():
    # dE is then Gaussian and p_a - p_b proportional to it: <x^2>^2 / <x^4>
    n = flow_limit.lattice(2, 100)
    energy, weight = flow_limit.transitions(
        n, flow_limit.occupations(n, 5, 300.0), np.array([1, 0])
    )
    ratio = flow_limit.share(energy, weight, (1,)) / np.sum(weight / energy)
    np.testing.assert_allclose(ratio, 1 / 3, atol=0.01)


def test_a_large_momentum_is_reached_by_every_kind():
    n = flow_limit.lattice(2, 24)
    energy, weight = flow_limit.transitions(n, flow_limit.occupations(n, 5, 0.0), np.array([20, 0]))
    for power in (0, 1):
        assert flow_limit.share(energy, weight, (power,)) > 0.95 * np.sum(weight / energy)
