"""Runs of several processes and devices, as mpirun starts them, have one history."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from small_runs import command_line

from heg.errors import ParallelError
from heg.parallel import processes
from heg.runs import text_files

# relative, over 20 steps; seen: 6e-12.  What differs is the rounding of products in groups of other
# sizes.  The control variates of the second step are fitted on the samples of the first: enough of
# them to determine 11 coefficients well
RELATIVE_BOUND = 1e-10
BATCH = "64"


START = "from heg.parallel import processes\nprocesses.start()\n"


def run(code, launcher=(), environment=None, timeout=300):
    """Runs Python code, under a launcher if given."""
    command = [*launcher, sys.executable, "-c", code]
    variables = os.environ | (environment or {})
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=timeout)


def mpirun(count):
    """The mpirun that came with this environment's MPI library."""
    beside = os.path.join(os.path.dirname(sys.executable), "mpirun")
    program = beside if os.path.exists(beside) else shutil.which("mpirun")
    return program, "-n", str(count)


def solve(run_dir, steps, **layout):
    arguments = command_line(
        run_dir,
        electrons="2",
        steps=str(steps),
        save_every="4",
        transformer_layers="0",
        batch=BATCH,
    )
    done = run(f"from heg.cli.solve import solve; solve({arguments!r})", **layout)
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(run_dir):
    """All columns of the history.  [steps, columns]"""
    rows = text_files.read_history(run_dir / "history.csv")
    return np.array([[float(value) for value in row.values()] for row in rows])


def test_a_run_moved_between_layouts_has_the_history_of_one_that_was_not(tmp_path):
    solve(tmp_path / "alone", 20, environment={"JAX_NUM_CPU_DEVICES": "1"})
    moved = tmp_path / "moved"
    output = solve(moved, 10, launcher=mpirun(2))
    assert output.count("free energy, Ha") == 1  # one process speaks
    output = solve(moved, 20, environment={"JAX_NUM_CPU_DEVICES": "4"})
    assert "Continuing from checkpoint-10.h5" in output
    one = numbers(tmp_path / "alone")
    other = numbers(moved)
    assert len(one) == 20 and np.ptp(one[:, 1]) > 0
    np.testing.assert_allclose(other, one, rtol=RELATIVE_BOUND)


def test_a_process_that_fails_ends_the_others_with_its_message():
    code = (
        f"{START}import jax\n"
        "if jax.process_index() == 1: raise ValueError('this went wrong')\n"
        "processes.gathered(1)"  # where the other one waits
    )
    begin = time.monotonic()
    done = run(code, launcher=mpirun(2))
    assert done.returncode != 0 and time.monotonic() - begin < 60
    assert "Process 1 failed" in done.stderr and "this went wrong" in done.stderr


def test_what_the_first_process_raises_all_raise():
    code = f"""
import os
{START}
def fail():
    raise OSError('the disk is full')
try:
    processes.on_first(fail)
except OSError as error:
    seven = processes.on_first(lambda: 7)
    words = f'caught {{error}} {{seven}} {{processes.any_process(False)}}\\n'
    os.write(1, words.encode())  # at once, so that the processes do not interrupt each other
"""
    done = run(code, launcher=mpirun(2))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("caught the disk is full 7 False") == 2


def test_processes_that_do_not_find_each_other_say_so(tmp_path):
    code = f"from heg.cli.solve import solve; solve({command_line(tmp_path / 'a')!r})"
    # each is alone, whatever a variable says of its rank, and speaks
    done = run(code, environment={"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"})
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert not (tmp_path / "a").exists()
    assert "2 processes were started, but each finds itself in a world of 1" in done.stderr


@pytest.mark.parametrize("name", ["SLURM_PROCID", "PMI_RANK", "OMPI_COMM_WORLD_RANK"])
def test_a_rank_variable_left_over_silences_nobody(tmp_path, name):
    words = (
        command_line(tmp_path / "a", rs="-1")
        if name == "PMI_RANK"
        else [*command_line("a"), "--dry-run", "--json"]
    )
    done = run(f"from heg.cli.solve import solve; solve({words!r})", environment={name: "3"})
    if name == "PMI_RANK":
        assert done.returncode == 2 and "rs is -1.0: it must lie between" in done.stderr
    else:
        assert done.returncode == 0 and json.loads(done.stdout)["system"]["n_up"] == 3


FARM = (
    "import os, heg\nrank = os.environ['PMI_RANK']\n"
    "gas = heg.System(2, 0, 2, rs=1.0 + int(rank), theta=0.5)\n"
    "sizes = dict(steps=0, samples=16, batch=16, flow_layers=0, transformer_layers=0)\n"
)


def test_processes_that_ask_for_different_runs_are_all_refused(tmp_path):
    code = f"""
import os
os.chdir({str(tmp_path)!r})
{FARM}
same = heg.System(2, 0, 2, 1.0, 0.5)
calls = (
    lambda: heg.solve(gas, 'farm', **sizes),
    lambda: heg.solve(same, 'farm' + rank, **sizes),
    lambda: heg.measure('farm' + rank),
    lambda: heg.solve(gas, 'farm', alone=True, **sizes),
)
for call in calls:
    try:
        call()
    except (ValueError, heg.errors.ParallelError) as error:
        os.write(1, f'{{error}}\\n'.encode())
"""
    done = run(code, launcher=mpirun(2))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    refusals = Counter(line for line in lines if "process" in line or "alone" in line)
    assert set(refusals.values()) == {2} and len(refusals) == 4, done.stdout
    fields, different, measured, alone = refusals
    assert fields.startswith(
        "rs is 1.0 on the first process and 2.0 on another: give all processes the same, or let"
    )
    assert different.startswith("run_dir is ")
    assert measured.startswith("the run directory is ")
    assert alone == "alone is True, but an earlier call had False: give all calls the same"
    assert not list(tmp_path.iterdir())


def test_command_lines_that_differ_are_refused_and_alone_each_has_its_run(tmp_path):
    small = {"steps": "0", "samples": "16", "transformer_layers": "0", "flow_layers": "0"}
    words = command_line("a", **small)
    code = f"""
import os, sys
os.chdir({str(tmp_path)!r})
sys.path.append({str(Path(__file__).parents[1])!r})
import fake_solver
fake_solver.install()
from heg.cli.solve import solve
words = {words!r}
words[-1] = 'farm' + os.environ['PMI_RANK']
solve(words + sys.argv[1:])
"""
    done = run(code, launcher=mpirun(2))
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    assert done.stderr.count("heg-solve: ") == 1
    refusal = (
        f"argument {len(words)} (after --run-dir) is farm0 on the first process "
        "and farm1 on another"
    )
    assert refusal in done.stderr

    done = run(code.replace("sys.argv[1:]", "['--alone']"), launcher=mpirun(2))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("free energy, Ha") == 2
    results = [
        text_files.load_json(tmp_path / name / "summary.json")["F"] for name in ("farm0", "farm1")
    ]
    assert results[0] == results[1]  # the same run twice, each by itself


def test_without_a_launcher_mpi_is_not_needed(tmp_path):
    code = (
        f"import sys; sys.modules['mpi4py'] = None\n{START}"
        "print(processes.is_first(), processes.on_first(lambda: 3))\n"
        "print(processes.any_process(True), processes.launcher())"
    )
    assert run(code).stdout.splitlines()[:2] == ["True 3", "True none: one process"]
    done = run(code, environment={"PMI_SIZE": "2"})
    assert "mpi4py does not work here" in done.stderr


@pytest.mark.parametrize(
    ("cores", "shares"),
    [
        ([[0, 1, 2, 3]] * 2, [[0, 1], [2, 3]]),
        ([[0, 1, 2]] * 2, [[0], [1, 2]]),
        ([[0, 1], [2, 3]], [[0, 1], [2, 3]]),  # bound by the launcher
        ([[0, 1], [2, 3]] * 2, [[0], [2], [1], [3]]),  # bound in groups
        ([[0]] * 2, [[0], [0]]),  # more processes than cores
    ],
)
def test_processes_of_a_host_share_its_cores(cores, shares):
    assert [processes.share_of_cores(cores, rank) for rank in range(len(cores))] == shares


TWO = ("/dev/nvidia0", "/dev/nvidia1")


@pytest.mark.parametrize(
    ("gpus", "shares"),
    [
        ([(None, TWO)] * 2, [[0], [1]]),
        ([(None, TWO * 2)] * 2, [[0, 1], [2, 3]]),
        ([("0,2", TWO * 4)] * 2, [[0], [1]]),  # counted among the visible
        ([("0", TWO), ("1", TWO)], [[0], [0]]),  # one for each
        ([("0", TWO[:1]), ("0", TWO[1:])], [[0], [0]]),  # one for each, and the other out of reach
        ([("0,1", TWO)] * 2 + [("2,3", TWO)] * 2, [[0], [1], [0], [1]]),
        ([("", TWO)] * 3, [None] * 3),
        ([(None, ())] * 2, [None] * 2),
    ],
)
def test_processes_of_a_host_share_its_gpus(gpus, shares):
    assert [processes.share_of_gpus(gpus, rank) for rank in range(len(gpus))] == shares


def test_more_processes_than_gpus_are_refused():
    with pytest.raises(ParallelError, match="3 processes share 2 GPUs"):
        processes.share_of_gpus([(None, TWO)] * 3, 0)
