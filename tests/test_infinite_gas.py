"""The infinite gas: published f_xc, and the leading size effect by its limits."""

import numpy as np
import pytest
from exact import reference_rows

from heg.infinite_gas import free_energy_correction, potential_correction, reference_fxc
from heg.structure import plasmon_structure
from heg.system import System

ROWS = [row for row in reference_rows("fxc_infinite_gas.csv") if row["xi"] in ("0", "1")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"zeta{row['xi']}-rs{row['rs']}-theta{row['theta']}")
def test_the_fit_is_that_of_the_published_code(row):
    spins = (7, 7) if row["xi"] == "0" else (7, 0)
    system = System(*spins, 3, float(row["rs"]), float(row["theta"]), (0.0,) * 3)
    assert system.temperature == pytest.approx(float(row["T_Ha"]), abs=6e-9)
    assert reference_fxc(system) == pytest.approx(float(row["fxc_ref_Ha"]), rel=1e-6)


def test_it_is_for_three_dimensions_alone():
    with pytest.raises(ValueError, match="three dimensions"):
        reference_fxc(System(7, 0, 2, 1.0, 1.0, (0.0, 0.0)))


@pytest.mark.parametrize("theta", [0.1, 1.0, 8.0])
def test_the_size_effect_is_the_plasmons_share_of_the_longest_waves(theta):
    system = System(33, 0, 3, 2.0, theta, (0.0,) * 3)
    q = np.array([1e-3])
    share = 4 * np.pi / q**2 * plasmon_structure(system, q) / (2 * system.box**3)
    assert potential_correction(system) == pytest.approx(share[0], rel=1e-10)


def test_size_effects_of_free_and_potential_energy_belong_together():
    # v = 2 f + r_s df/dr_s at fixed temperature in hartree; when cold v goes as r_s^-3/2, so that f = 2 v
    at = lambda rs: System(33, 0, 3, rs, 0.3 * (rs / 2.0) ** 2, (0.0,) * 3)
    step = 1e-3
    slope = (free_energy_correction(at(2 + step)) - free_energy_correction(at(2 - step))) / (2 * step)
    whole = 2 * free_energy_correction(at(2.0)) + 2.0 * slope
    assert whole == pytest.approx(potential_correction(at(2.0)), rel=1e-6)
    cold = System(33, 0, 3, 2.0, 1e-5, (0.0,) * 3)
    assert free_energy_correction(cold) == pytest.approx(2 * potential_correction(cold), rel=1e-6)
