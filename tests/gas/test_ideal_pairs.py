"""Two forms of the occupations of pairs against each other."""

import numpy as np
import pytest

from heg.gas.ideal import occupation_numbers
from heg.gas.ideal_pairs import pair_occupations, projections


@pytest.mark.parametrize("electrons", [1, 2, 4, 7, 8])
@pytest.mark.parametrize("beta", [1e-3, 1.0, 8.0, 1e4])
def test_projections_add_up_to_the_occupations_of_pairs(electrons, beta):
    levels = beta * np.array([0.0, 1, 1, 1, 2, 2, 3, 4.5])
    gases = list(projections(levels, electrons))
    pairs = sum(np.real(weight * np.outer(n, n)) for weight, n in gases)
    expected = pair_occupations(levels, electrons)
    apart = ~np.eye(len(levels), dtype=bool)
    np.testing.assert_allclose(pairs[apart], expected[apart], atol=1e-9)  # that of pair_occupations
    single = sum(np.real(weight * n) for weight, n in gases)
    np.testing.assert_allclose(single, occupation_numbers(levels, electrons), atol=1e-12)
