"""The ladder's script: which gases it runs, and what it says of the results at hand."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import validate  # noqa: E402

RUNGS = (*validate.small_rungs(), *validate.LARGE)


def row(rung, free_energy, exact=-1.001, degenerate=-1.0005, diagonal=-1.0):
    kinds = {"exact": (exact, 1e-6), "degenerate": (degenerate, 1e-6), "diagonal": (diagonal, 0.0)}
    estimate = {"mean": free_energy, "error": 1e-6}
    quality = {"E_variance_cell_ha2": 0.1, "min_det": 0.5, "redrawn": 0, "folded_measure": estimate}
    rest = {
        "thirds": [[-1.0, 1e-5], [-1.0, 1e-5]],
        "steps": 150,
        "seconds": 1.0,
        "untrained": estimate,
    }
    return {
        "name": rung.name,
        "F": estimate,
        "S": estimate,
        "quality": quality,
        "references": kinds,
        **rest,
    }


def test_rungs_are_those_of_the_ladder():
    names = [rung.name for rung in RUNGS]
    assert len(set(names)) == len(names)
    small = validate.small_rungs()
    # four kinds of electrons, two dimensions, two twists, three r_s, with and without flow; Theta =
    # 1 for N <= 3
    assert len(small) == 2 * 2 * 3 * 2 * (4 * 2 + 3)
    assert {rung.system.theta for rung in small if sum(rung.system.spins) == 4} == {0.1, 0.5}


@pytest.mark.parametrize("rung", [RUNGS[0], RUNGS[1], RUNGS[-1]], ids=lambda rung: rung.name)
def test_every_command_is_one_that_heg_solve_reads(rung, tmp_path):
    from heg.cli import solve

    program, *words = rung.command(tmp_path)
    config, dry_run = solve.parse(words)
    assert program == "heg-solve" and not dry_run
    assert config.system.build() == rung.system
    assert (config.model.flow_layers == 0) == (not rung.flow)


def test_verdicts_count_what_is_above_and_below():
    identity, flow = (
        next(r for r in RUNGS if r.flow == f and r.system.n_down == 0) for f in (False, True)
    )
    lines = "\n".join(
        validate.verdicts({identity.name: row(identity, -1.0), flow.name: row(flow, -1.0008)})
    )
    assert (
        "1 of 1 within 0.05 mHa per electron of F_diag, 1 within 3 errors" in lines
        and "1 of 1 not below F_exact" in lines
    )
    assert "from 80% to 80%, 1 of 1 at 70 % or more" in lines
    lines = "\n".join(
        validate.verdicts({identity.name: row(identity, -0.9999), flow.name: row(flow, -1.0011)})
    )
    assert (
        "0 of 1 within 0.05 mHa per electron of F_diag, 0 within 3 errors" in lines
        and "0 of 1 not below F_exact" in lines
    )


def test_page_holds_every_result_at_hand(tmp_path, monkeypatch):
    (tmp_path / "validation.in.md").write_text((validate.DOCS / "validation.in.md").read_text())
    monkeypatch.setattr(validate, "DOCS", tmp_path)
    found = {rung.name: row(rung, -1.0008) for rung in RUNGS[:6] + RUNGS[-3:]}
    validate.page(found)
    text = (tmp_path / "validation.md").read_text()
    assert "{{" not in text and (tmp_path / "validation.png").stat().st_size > 1000
    for rung in RUNGS[:6] + RUNGS[-3:]:
        assert f"| {rung.name.rsplit(' ', 1)[0]} |" in text


def test_published_values_are_in_hartree_per_electron():
    found = {(gas, method): value for gas, method, value in validate.published()}
    gas = "3D 7u7d rs 5 Theta 0.02 twist 0"
    # with the self-image the Hartree-Fock energy of the cell is -0.81254870 Ha, that of a Slater
    # VMC -0.812484(27)
    np.testing.assert_allclose(14 * found[gas, "Hartree-Fock"].mean, -0.81254870, atol=1e-6)
    np.testing.assert_allclose(
        14 * np.array(found[gas, "fixed-node DMC"]), (-1.110199, 0.000032), rtol=1e-12
    )
    two = found["2D 29u rs 10 Theta 0.15 twist 0.25 0.25", "canonical transformation, median"]
    np.testing.assert_allclose(2 * two.mean, -0.1690733, rtol=1e-12)
    assert {gas for gas, _ in found} <= {rung.gas for rung in validate.LARGE}


def test_page_sets_ours_beside_what_is_published(tmp_path, monkeypatch):
    (tmp_path / "validation.in.md").write_text((validate.DOCS / "validation.in.md").read_text())
    monkeypatch.setattr(validate, "DOCS", tmp_path)
    rung = next(
        rung for rung in validate.LARGE if rung.system.rs == 5 and rung.system.electrons == 14
    )
    validate.page({rung.name: row(rung, -1.084963 / 14 + 1e-3)})
    lines = (tmp_path / "validation.md").read_text().splitlines()
    assert any(
        "Slater-Jastrow-backflow" in line and line.endswith("| 1.0000(20) |") for line in lines
    )
