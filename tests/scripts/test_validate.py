"""The ladder's script: which gases it runs, and what it says of the results at hand."""

import csv
import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import ladder  # noqa: E402
import validate  # noqa: E402
import validation_pages  # noqa: E402
import validation_results  # noqa: E402

RUNGS = (*ladder.small_rungs(), *ladder.LARGE)


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
    small = ladder.small_rungs()
    # four kinds of electrons, two dimensions, two twists, three r_s, with and without flow; Theta =
    # 1 for N <= 3
    assert len(small) == 2 * 2 * 3 * 2 * (4 * 2 + 3)
    assert {rung.system.theta for rung in small if sum(rung.system.spins) == 4} == {0.1, 0.5}


def test_gases_that_run_together_differ_by_rs_alone():
    groups = validate.alike(RUNGS)
    assert sorted(rung.name for group in groups for rung in group) == sorted(
        rung.name for rung in RUNGS
    )
    for group in groups:
        kinds = {rung._replace(system=dataclasses.replace(rung.system, rs=1.0)) for rung in group}
        assert len(kinds) == 1


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
        validation_results.verdicts(
            {identity.name: row(identity, -1.0), flow.name: row(flow, -1.0008)}
        )
    )
    assert (
        "1 of 1 within 0.05 mHa per electron of F_diag, 1 within 3 errors" in lines
        and "1 of 1 not below F_exact" in lines
    )
    assert "from 80% to 80%, 1 of 1 at 70 % or more" in lines
    lines = "\n".join(
        validation_results.verdicts(
            {identity.name: row(identity, -0.9999), flow.name: row(flow, -1.0011)}
        )
    )
    assert (
        "0 of 1 within 0.05 mHa per electron of F_diag, 0 within 3 errors" in lines
        and "0 of 1 not below F_exact" in lines
    )


@pytest.fixture
def docs(tmp_path):
    """A folder with the template of the pages alone."""
    template = validation_pages.DOCS / validation_pages.TEMPLATE
    (tmp_path / template.name).write_text(template.read_text())
    return tmp_path


def read_csv(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_pages_hold_every_result_at_hand(docs):
    found = {rung.name: row(rung, -1.0008) for rung in RUNGS[:6] + RUNGS[-3:]}
    validation_pages.write_pages(found, docs)
    pages = [docs / "validation.md", *(docs / "validation").glob("*.md")]
    assert len(pages) == 7
    for page in pages:
        assert "{{" not in page.read_text()
    for name in ("validation", "validation/full_model", "validation/probabilities"):
        assert (docs / f"{name}.png").stat().st_size > 1000
    tables = ("probabilities", "full_model", "large")
    gases = [one["gas"] for name in tables for one in read_csv(docs / f"validation/{name}.csv")]
    assert sorted(gases) == sorted(rung.gas for rung in RUNGS[:6] + RUNGS[-3:])
    large = (docs / "validation/large.md").read_text()
    for rung in RUNGS[-3:]:
        assert f"| {rung.title} |" in large


def with_second_order(rung, left):
    """A row whose F lacks 1 mHa and whose F + F_2 lacks `left` hartree, 1 µHa known."""
    parts = ("statistical", "left_out", "degenerate", "higher_orders", "relaxation", "resummed")
    second = dict.fromkeys(parts, 0.0)
    second |= {"value": left - 1e-3, "error": 1e-6}
    return row(rung, -1.0, exact=-1.001) | {"second_order": second}


def test_pages_name_what_second_order_misses(docs):
    near, far = [rung for rung in RUNGS if rung.flow][:2]
    results = {near.name: with_second_order(near, 1e-5), far.name: with_second_order(far, 5e-4)}
    validation_pages.write_pages(results, docs)
    text = (docs / "validation/second_order.md").read_text()
    missed = text[text.index("## What is missed") :]
    assert f"| {far.title} |" in missed and f"| {near.title} |" not in missed
    assert "1 of 2 within" in text
    rms = np.sqrt((0.01**2 + 0.5**2) / 2)
    assert f"is {rms:.2f} mHa over 2 gases, that of F − F_exact 1.0 mHa" in text
    first, second = read_csv(docs / "validation/second_order.csv")
    assert (first["missed"], second["missed"]) == ("0", "1")
    np.testing.assert_allclose(float(second["left_ha"]), 5e-4, rtol=1e-6)


def test_a_summary_has_a_row_for_each_group():
    gases = [rung for rung in RUNGS if rung.flow][:2]
    rows = [
        validation_results.Comparison(rung, row(rung, -1.001 + distance))
        for rung, distance in zip(gases, (3e-4, 4e-4))
    ]
    columns = validation_pages.FLOW_COLUMNS
    lines = validation_pages.summary(rows, validation_pages.STATE, columns)
    assert lines[2:] == ["| 3D | 0.5 | 4 | 2 | 0.50 | 1.00 | 0.35 | 0.40 | 65% |"]
    lines = validation_pages.summary(rows, validation_pages.ELECTRONS, columns)
    assert [line[:10] for line in lines[2:]] == ["| 3D | 2↑ ", "| 3D | 3↑ "]


@pytest.mark.parametrize(
    ("link", "folder", "expected"),
    [
        ("[a](theory.md)", "validation", "[a](../theory.md)"),
        ("[a](validation/large.csv)", "validation", "[a](large.csv)"),
        ("[a](validation.md#runs)", "validation", "[a](../validation.md#runs)"),
        ("![a](validation/a.png)", ".", "![a](validation/a.png)"),
        ("[a](https://example.org/b)", "validation", "[a](https://example.org/b)"),
    ],
)
def test_links_lead_on_from_where_a_page_is(link, folder, expected):
    assert validation_pages.relinked(link, Path(folder)) == expected


def test_published_values_are_in_hartree_per_electron():
    found = {(gas, method): value for gas, method, value in validation_results.published()}
    gas = "3D 7u7d rs 5 Theta 0.02 twist 0"
    # with the self-image the Hartree-Fock energy of the cell is -0.81254870 Ha, that of a Slater
    # VMC -0.812484(27)
    np.testing.assert_allclose(14 * found[gas, "Hartree-Fock"].mean, -0.81254870, atol=1e-6)
    np.testing.assert_allclose(
        14 * np.array(found[gas, "fixed-node DMC"]), (-1.110199, 0.000032), rtol=1e-12
    )
    two = found["2D 29u rs 10 Theta 0.15 twist 0.25 0.25", "canonical transformation, median"]
    np.testing.assert_allclose(2 * two.mean, -0.1690733, rtol=1e-12)
    assert {gas for gas, _ in found} <= {rung.gas for rung in ladder.LARGE}


def test_a_page_sets_ours_beside_what_is_published(docs):
    rung = next(
        rung for rung in ladder.LARGE if rung.system.rs == 5 and rung.system.electrons == 14
    )
    validation_pages.write_pages({rung.name: row(rung, -1.084963 / 14 + 1e-3)}, docs)
    lines = (docs / "validation/published.md").read_text().splitlines()
    assert any(
        "Slater-Jastrow-backflow" in line and line.endswith("| 1.0000(20) |") for line in lines
    )
