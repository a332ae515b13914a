"""heg-solve as its user runs it: whole runs of a small gas, stops, continuations and bad input."""

import contextlib
import csv
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_runs import command_line

from heg.cli import common, solve
from heg.config import tables
from heg.eos import survey
from heg.runs.run_directory import RunDirectory


def start(run_dir, **changed):
    """Starts heg-solve as a process of its own."""
    command = [
        sys.executable,
        "-c",
        "from heg.cli.solve import solve; solve()",
        *command_line(run_dir, **changed),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that was never disturbed, and what it printed."""
    run_dir = tmp_path_factory.mktemp("runs") / "a"
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert exit_code(command_line(run_dir)) == 0
    return run_dir, output.getvalue()


def test_a_run_leaves_what_is_promised(finished):
    run_dir, output = finished
    summary = json.loads((run_dir / "summary.json").read_text())
    verdict = summary["verdict"]
    assert verdict["good"] is False
    assert "6 steps are too few" in verdict["sentence"]
    assert verdict["sentence"] in output
    assert "infinite gas" in output
    assert "Attaccalite" in output
    assert "0.00000000" not in output
    for table in (summary, summary["initial"]):
        for name in ("F", "E", "kinetic", "potential", "S"):
            assert table[name]["error"] > 0
    assert summary["ideal"]["F"]["error"] == 0
    assert summary["steps"] == 6
    assert summary["samples"] == 64
    # E = K + V and F = E - T S, sample by sample
    mean = {name: summary[name]["mean"] for name in ("F", "E", "kinetic", "potential", "S")}
    temperature = summary["system"]["temperature_ha"]
    assert mean["E"] == pytest.approx(mean["kinetic"] + mean["potential"], rel=1e-12)
    assert mean["F"] == pytest.approx(mean["E"] - temperature * mean["S"], rel=1e-12)
    with (run_dir / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == list("123456")
    assert list(rows[0])[:5] == ["step", "F_ha", "F_error_ha", "E_ha", "E_error_ha"]
    assert (run_dir / "training.png").stat().st_size > 1000
    assert "per electron" in output
    assert "Training curve" in output


def test_a_killed_run_continues_bit_for_bit(finished, tmp_path, capsys):
    """In another process than the one that was killed."""
    process = start(tmp_path / "b")
    history = tmp_path / "b" / "history.csv"
    deadline = time.monotonic() + 500
    # three rows below the heading: one after the checkpoint
    while not (history.exists() and history.read_text().count("\n") >= 4):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    newest = RunDirectory(tmp_path / "b").checkpoints()[0]
    newest.write_bytes(newest.read_bytes()[:-100])  # and its newest checkpoint is damaged
    assert exit_code(command_line(tmp_path / "b")) == 0
    output = "".join(capsys.readouterr())
    assert "did not end in order" in output
    assert "checkpoint before it is used" in output
    assert history.read_bytes() == (finished[0] / "history.csv").read_bytes()
    undisturbed = json.loads((finished[0] / "summary.json").read_text())
    continued = json.loads((tmp_path / "b" / "summary.json").read_text())
    del undisturbed["seconds"], continued["seconds"]
    assert continued == undisturbed


def test_a_run_that_is_done_is_not_done_again_and_changed_physics_is_refused(finished, capsys):
    run_dir, _ = finished
    before = (run_dir / "history.csv").read_bytes()
    assert exit_code(command_line(run_dir, rs="5")) == common.BAD_INPUT
    assert "rs is 5.0, the run has 4.0" in capsys.readouterr().err
    assert exit_code(command_line(run_dir, flow_width="5")) == common.BAD_INPUT
    assert "flow_width is 5, the run has 4" in capsys.readouterr().err
    assert (run_dir / "history.csv").read_bytes() == before


def test_a_stopped_run_says_so_and_can_go_on(tmp_path):
    assert exit_code(command_line(tmp_path / "c", max_seconds="0.001")) == common.CONTINUE
    assert RunDirectory(tmp_path / "c").checkpoints()


def exit_code(arguments):
    with pytest.raises(SystemExit) as caught:
        solve.solve(arguments)
    return caught.value.code


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("rs", "-1", "rs is -1.0: it must lie between 0.0001 and 100000 bohr"),
        ("theta", "0", "theta is 0.0: it must lie between 1e-05 and 10000 E_F"),
        ("dim", "4", "Choose from: 2, 3"),
        ("twist", "0.5 0", "each must lie in [-0.5, 0.5)"),
        ("twist", "0.1 0 0", "twist has 3 numbers"),
        ("polarization", "0", "with 3 electrons it must be one of 1/3, 1"),
        ("polarization", "half", "give a number or a ratio such as 3/7"),
        ("batch", "1", "batch is 1"),
        ("flow_width", "0", "flow_width is 0"),
        ("thet", "3", "Did you mean --theta?"),
        ("temperature", "5 eV", "--temperature"),  # beside --theta
        ("steps", "many", "--steps"),
    ],
)
def test_bad_input_is_one_sentence_that_names_the_field(tmp_path, capsys, field, value, words):
    run_dir = tmp_path / "d"
    assert exit_code(command_line(run_dir, **{field: value})) == common.BAD_INPUT
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not run_dir.exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--temp 5eV --run-dir x", "Unknown option: --temp."),
        ("--thet=3", "Unknown option: --thet. Did you mean --theta?"),
        ("--electrons 2 --rs=1 --run-dir x", "missing --dim: see heg-solve --help"),
        ("--electrons 2 --rs 1 --dim 2 --run-dir x --theta", "--theta requires an argument"),
    ],
)
def test_what_a_command_line_lacks_is_named(capsys, words, sentence):
    assert exit_code(words.split()) == common.BAD_INPUT
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_a_run_goes_on_by_its_directory(finished):
    run_dir = str(finished[0])
    config, dry = solve.parse(["--run-dir", run_dir, "--steps", "8"])
    assert not dry
    assert config.run.steps == 8
    assert config.run.run_dir == run_dir
    before = solve.parse(command_line(run_dir))
    assert solve.parse([f"--run-dir={run_dir}"]) == before


def test_a_file_gives_the_settings_and_flags_win(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("""
[system]
electrons = 7
dim = 3
rs = 1
theta = 1
polarization = "3/7"
twist = [0.1, 0.2, 0.3]
[model]
flow_layers = 1
[run]
run_dir = "x"
""")
    config, dry_run = solve.parse([str(path), "--rs", "5", "--dry-run"])
    assert dry_run
    assert config.system.rs == 5
    assert config.model.flow_layers == 1
    system = config.system.build()
    assert (system.n_up, system.n_down, system.twist) == (5, 2, (0.1, 0.2, 0.3))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[system]\nrss = 1", "[system] has no key 'rss': did you mean 'rs'?"),
        ("[sistem]\nrs = 1", "has no use for 'sistem'"),
        ("rs = 1", "has no use for 'rs'"),
        ("[system]\nrs = [", "is not TOML"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path, capsys, text, words):
    path = tmp_path / "run.toml"
    path.write_text(text)
    assert exit_code([str(path)]) == common.BAD_INPUT
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_a_byte_order_mark_and_letters_of_any_alphabet_are_read(tmp_path):
    path = tmp_path / "run.toml"
    text = """# Elektronengas für Θ = 1
[system]
electrons = 2
dim = 2
rs = 1
theta = 1
[run]
run_dir = 'x'
"""
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert solve.parse([str(path)])[0].system.electrons == 2


def test_a_copied_run_is_not_taken_for_the_original(finished, tmp_path):
    original = finished[0]
    copy = shutil.copytree(original, tmp_path / "copy")
    file = str(copy / "config.toml")
    words = r"copy/config\.toml lies in a run directory, but its run_dir is .*: say which"
    with pytest.raises(ValueError, match=words):
        solve.parse([file, "--steps", "7"])
    config, _ = solve.parse([file, "--run-dir", str(copy)])
    assert config.run.run_dir == str(copy)
    config, _ = solve.parse([str(original / "config.toml")])
    assert config.run.run_dir == str(original)


def test_what_goes_wrong_with_a_figure_decides_nothing(tmp_path):
    """Not even what ends the import of matplotlib, or a style without its program."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    run_dir = tmp_path / "a"
    code = (
        f"import sys; sys.path.append({str(Path(__file__).parents[1])!r})\n"
        "import fake_solver; fake_solver.install()\n"
        f"from heg.cli.solve import solve; solve({[*command_line(run_dir), '--json']!r})"
    )
    unknown_backend = {"MPLBACKEND": "foo"}
    style_without_program = {
        "MATPLOTLIBRC": str(tmp_path / "matplotlibrc"),
        "PATH": "/nowhere",
    }
    for variables in (unknown_backend, style_without_program):
        (run_dir / "training.png").unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | variables,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["steps"] == 6
        assert "Traceback" not in done.stderr
        assert (run_dir / "training.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("error", "words"), [(RuntimeError("no\nfont"), "no font"), (ImportError(), "pip install")]
)
def test_a_figure_that_fails_is_a_line_that_says_why(capsys, error, words):
    def draw():
        raise error

    assert common.courtesy(draw) is None
    assert words in capsys.readouterr().out


def test_columns_never_run_together():
    lines = common.aligned(
        [["gas", "F, Ha"], ["a", "-0.488(59)"], ["bcde", "-0.5408818579378(19)"]]
    ).splitlines()
    assert lines == [
        f"gas   {'F, Ha':>20}",
        f"a     {'-0.488(59)':>20}",
        "bcde  -0.5408818579378(19)",
    ]


def test_small_numbers_of_the_ideal_gas_are_shown(capsys):
    estimate = {"mean": -0.5408818579378, "error": 1.9e-12}
    ideal = {"mean": 1.234567e-9, "error": 0.0}
    results = dict.fromkeys(solve.NOTES, estimate)
    quality = {"E_variance_cell_ha2": 1, "largest_deviation_sigma": 1}
    facts = {
        "n_up": 1,
        "n_down": 1,
        "dim": 2,
        "rs_bohr": 1e5,
        "theta": 1,
        "temperature_ha": 1,
        "fermi_energy_ha": 1,
    }
    summary = {
        "system": facts,
        "initial": results,
        "ideal": dict.fromkeys(solve.NOTES, ideal),
        "quality": quality,
        "steps": 0,
        "samples": 2,
        "seconds": 1,
    }
    solve._print_summary(results | summary)
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("free energy")]
    assert line.split() == ["free", "energy,", "Ha", *["-0.5408818579378(19)"] * 2, "1.23457e-09"]


def test_a_dry_run_prints_the_cutoff_and_computes_nothing(tmp_path, capsys):
    run_dir = tmp_path / "e"
    assert exit_code([*command_line(run_dir), "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "orbitals_missing_probability" in output and not run_dir.exists()
    (tmp_path / "run.toml").write_text(output)  # all but the configuration is in comments
    assert solve.parse([str(tmp_path / "run.toml")]) == solve.parse(command_line(run_dir))


def test_a_configuration_is_written_once(tmp_path, capsys):
    file = tmp_path / "run.toml"
    run_dir = tmp_path / "e"
    words = command_line(run_dir)
    writing = [*words, "--write-config", str(file)]
    assert exit_code(writing) == 0
    written = file.read_text()
    assert solve.parse([str(file)]) == solve.parse(words)
    assert exit_code(writing) == common.BAD_INPUT
    assert "the file exists" in capsys.readouterr().err
    assert file.read_text() == written
    assert not run_dir.exists()


def test_help_lists_every_field(capsys):
    assert exit_code(["--help"]) == 0
    text = capsys.readouterr().out
    config, _ = solve.parse(command_line("x"))
    for table in tables(config).values():
        for field in table:
            assert f"--{field.replace('_', '-')}" in text


def test_json_is_all_that_standard_output_gets(tmp_path, capsys):
    run_dir = tmp_path / "d"
    assert exit_code([*command_line(run_dir), "--dry-run", "--json"]) == 0
    output, words = capsys.readouterr()
    result = json.loads(output)
    assert result["config"]["system"]["electrons"] == 3
    assert result["cost"]["samples"] == 6 * 16 + 2 * 64  # steps, and twice the final samples
    assert "exact ideal gas" in words
    assert not run_dir.exists()


def test_a_log_has_what_is_printed_and_grows(tmp_path, capsys):
    log = tmp_path / "run.log"
    words = [*command_line(tmp_path / "d"), "--log", str(log)]
    assert exit_code([*words, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    first, rest = log.read_text().split("\n", 1)
    assert first.startswith("# ") and " heg-solve --" in first and rest == shown
    # complaints belong to it too, and streams are as before
    assert exit_code([*words, "--batch", "1"]) == common.BAD_INPUT
    complaint = capsys.readouterr().err
    assert log.read_text().startswith(f"{first}\n{shown}") and log.read_text().endswith(complaint)
    assert not isinstance(sys.stdout, common.Copied)


def test_what_the_package_logs_is_printed_as_it_is_while_a_command_runs(capsys):
    log = logging.getLogger("heg")
    before = log.level, list(log.handlers)
    with common._sentences_printed():
        logging.getLogger("heg.cli.solve").info("About %d %% of it.")
        logging.getLogger("heg.runs.solve").warning("Continuing from checkpoint-4.h5.")
        # the points of a table are silent between their steps
        with survey._silent_runs():
            logging.getLogger("heg.runs.solve").warning("Continuing from checkpoint-8.h5.")
            logging.getLogger("heg.eos.survey").warning("a is passed over.")
    shown = ["About %d %% of it.", "Continuing from checkpoint-4.h5.", "a is passed over."]
    assert capsys.readouterr().out.splitlines() == shown
    assert (log.level, log.handlers) == before


def test_a_log_that_cannot_be_written_is_refused(tmp_path, capsys):
    words = [*command_line(tmp_path / "d"), f"--log={tmp_path / 'none' / 'run.log'}"]
    assert exit_code([*words, "--dry-run"]) == common.BAD_INPUT
    assert "run.log: it cannot be written, No such file" in capsys.readouterr().err


def test_a_shell_completes_the_flags(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert exit_code(["--install-completion", "--shell", "bash"]) == 0
    script = tmp_path / ".local" / "share" / "bash-completion" / "completions" / "heg-solve"
    asked = (
        f"source {script}; COMP_WORDS=(heg-solve --temp); COMP_CWORD=1; _heg_solve; "
        'echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["--temperature"]
