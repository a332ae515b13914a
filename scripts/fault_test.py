"""Does anything get lost?  Disturbs small runs at random moments and counts those that recover.

    python scripts/fault_test.py --count 50 --seed 0

Every run is disturbed once, then the same command is given again, on another layout now and then,
until it is done.  Of a farm, two runs of one launcher that work alone, one is killed.  A run has
recovered if its history is that of an undisturbed run, row by row, and its free energy the same, up
to the rounding of sums.  A disk is filled on a small tmpfs, which needs root; without it that kind
is left out and named.
"""

import collections
import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cyclopts
import numpy as np

from heg.runs.run_directory import RunDirectory
from heg.runs.text_files import read_history

STEPS = 200  # of a run
RELATIVE_BOUND = 1e-9  # between a disturbed history and the other
LONGEST = 300  # seconds until a run counts as hung
MOST_STARTS = 5  # of a disturbed run
FLAGS = (
    "--electrons 3 --dim 2 --polarization 1 --rs 4 --theta 0.3 --twist 0.1 0.2 "
    f"--flow-layers 0 --transformer-layers 0 --batch 32 --steps {STEPS} --samples 64 "
    "--save-every 10"
)
BIN = Path(sys.executable).parent


class Fault(NamedTuple):
    """One disturbed run: what was done to it, at which row of the history, and how it ended."""

    kind: str
    row: int
    codes: list[int]
    recovered: bool
    words: str
    applied: bool


class Run(NamedTuple):
    """A run directory, how many processes compute it, and on which cores, none: all."""

    directory: Path
    processes: int
    cores: frozenset[int] | None = None

    def start(self, *extra: str) -> subprocess.Popen:
        command = [BIN / "heg-solve", *FLAGS.split(), "--run-dir", self.directory, *extra]
        return self.launch([*(launcher() if self.processes > 1 else []), *command])

    def start_farm(self, *extra: str) -> subprocess.Popen:
        """This run and another beside it, each a process of one launcher."""
        program = f"exec {BIN / 'heg-solve'} {FLAGS} {' '.join(extra)}"
        command = f"{program} --run-dir {self.directory}$PMI_RANK"
        return self.launch([*launcher(), "sh", "-c", command])

    def of_farm(self) -> list["Run"]:
        """The two runs of `start_farm`."""
        name = self.directory.name
        directories = [self.directory.with_name(f"{name}{rank}") for rank in (0, 1)]
        return [self._replace(directory=directory) for directory in directories]

    def launch(self, words: list) -> subprocess.Popen:
        # a group of its own, so that a signal reaches every process
        return subprocess.Popen(
            list(map(str, words)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, self.cores or os.sched_getaffinity(0)),
        )

    def rows(self) -> int:
        path = self.directory / "history.csv"
        return max(path.read_text().count("\n") - 1, 0) if path.exists() else 0

    def wait_for(self, row: int, process: subprocess.Popen) -> None:
        """Until the history has so many rows, or the process has ended."""
        end = time.monotonic() + LONGEST
        while self.rows() < row and process.poll() is None and time.monotonic() < end:
            time.sleep(0.005)


def launcher() -> list[str]:
    """mpirun of two processes, that of this environment first."""
    return [shutil.which("mpirun", path=f"{BIN}:{os.environ['PATH']}"), "-n", "2"]


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """Exit code and output; a process that hangs is killed, code -9 and the word `hung`."""
    try:
        output = process.communicate(timeout=LONGEST)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return -9, "hung: " + process.communicate()[0]
    return process.returncode, output


def send(number):
    def disturb(run, process, random):
        os.killpg(process.pid, number)

    return disturb


def kill_one_process(run, process, random):
    """Of two, under mpirun."""
    children = subprocess.run(
        ["pgrep", "-f", f"heg-solve.*{run.directory}"], capture_output=True, text=True
    ).stdout
    own = [int(pid) for pid in children.split() if int(pid) != process.pid]
    if own:
        os.kill(int(random.choice(own)), signal.SIGKILL)


def stop_file(run, process, random):
    (run.directory / "STOP").touch()


def damage(change):
    """Kills the run and damages its newest checkpoint."""

    def disturb(run, process, random):
        send(signal.SIGKILL)(run, process, random)
        process.wait()
        for path in RunDirectory(run.directory).checkpoints()[:1]:
            content = bytearray(path.read_bytes())
            path.write_bytes(change(content, random))

    return disturb


def truncate(content, random):
    return content[: random.integers(len(content))]


def flip(content, random):
    content[random.integers(len(content))] ^= 1 << int(random.integers(8))
    return content


def cut_history(run, process, random):
    """Kills the run in the middle of a row."""
    send(signal.SIGKILL)(run, process, random)
    process.wait()
    path = run.directory / "history.csv"
    if path.exists():
        path.write_bytes(path.read_bytes()[: -int(random.integers(1, 40))])


def vanish(run, process, random):
    """The directory is moved away, and back when the run has ended."""
    away = run.directory.with_name(run.directory.name + ".away")
    run.directory.rename(away)
    finish_quietly(process)
    if run.directory.exists():  # made anew by the run: it must hold nothing of worth
        shutil.rmtree(run.directory)
    away.rename(run.directory)


def finish_quietly(process):
    try:
        process.wait(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def second_run(run, process, random):
    """Another run in the same directory must be refused while this one goes on."""
    code, output = finish(run._replace(processes=1).start())
    if process.poll() is None and (code != 2 or "is in use by" not in output):
        raise AssertionError(f"a second run was not refused: {code} {output}")


def fill_disk(run, process, random):
    """The tmpfs below the run is filled; made larger when the run has ended."""
    with contextlib.suppress(OSError), (run.directory / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    finish_quietly(process)
    subprocess.run(["mount", "-o", "remount,size=64m", run.directory], check=True)
    (run.directory / "ballast").unlink(missing_ok=True)


def farm(run: Run, random: np.random.Generator, reference: Run) -> Fault:
    """Two runs of one launcher: refused where they would be mixed; alone, one is killed and both
    come to their end."""
    refusal, words = finish(run.start_farm())
    refused = refusal == 2 and "by itself with --alone" in words
    if not refused or any(one.directory.exists() for one in run.of_farm()):
        return Fault("farm", 0, [refusal], False, f"a farm was not refused: {words}", True)
    row = int(random.integers(1, STEPS))
    victim = run.of_farm()[random.integers(2)]
    process = run.start_farm("--alone")
    victim.wait_for(row, process)
    applied = process.poll() is None
    kill_one_process(victim, process, random)
    code, _ = finish(process)
    codes = [refusal, code]
    output = []
    for one in run.of_farm():  # the launcher may have ended the other one too
        code, words = finish(one.start())
        codes.append(code)
        output.append(words)
    recovered = all(same(one, reference) for one in run.of_farm())
    return Fault("farm", row, codes, recovered, "" if recovered else "\n".join(output), applied)


KINDS = {
    "killed": send(signal.SIGKILL),
    "terminated": send(signal.SIGTERM),
    "interrupted": send(signal.SIGINT),
    "one of two processes killed": kill_one_process,
    "STOP file": stop_file,
    "time limit": None,
    "checkpoint truncated": damage(truncate),
    "checkpoint flipped": damage(flip),
    "history cut": cut_history,
    "directory moved away": vanish,
    "second run": second_run,
    "disk full": fill_disk,
    "farm": farm,
}


def disturbed(kind: str, run: Run, random: np.random.Generator, reference: Run) -> Fault:
    """Disturbs a run of that kind and brings it to its end."""
    if kind == "farm":
        return farm(run, random, reference)
    if kind == "disk full":
        run.directory.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", run.directory]
        subprocess.run(mount, check=True)
    # one in eight before the first step is done
    row = int(random.integers(1, STEPS)) if random.random() > 1 / 8 else 0
    limit = ["--max-seconds", f"{random.uniform(1, 12):.1f}"] if kind == "time limit" else []
    process = run.start(*limit)
    if row:
        run.wait_for(row, process)
    else:
        time.sleep(random.uniform(0, 8))
    applied = process.poll() is None and run.directory.exists()
    if KINDS[kind] and applied:
        KINDS[kind](run, process, random)
    codes, words = to_the_end(run, process, random)
    if kind == "time limit":
        applied = codes[0] == 75  # it came before the end
    recovered = codes[-1] == 0 and same(run, reference)
    if kind == "disk full":
        subprocess.run(["umount", run.directory], check=True)
    return Fault(kind, row, codes, recovered, "" if recovered else "\n".join(words), applied)


def to_the_end(run: Run, process: subprocess.Popen, random) -> tuple[list[int], list[str]]:
    """Gives the command again until the run is done; exit codes and outputs."""
    codes = []
    words = []
    while True:
        code, output = finish(process)
        codes.append(code)
        words.append(output)
        if code == 0 or len(codes) == MOST_STARTS:
            return codes, words
        process = run._replace(processes=layout(random)).start()


def same(run: Run, reference: Run) -> bool:
    """Same history and free energy?"""
    one = numbers(run)
    other = numbers(reference)
    return (
        one.shape == other.shape
        and np.allclose(one, other, rtol=RELATIVE_BOUND, atol=1e-12)
        and np.isclose(free_energy(run), free_energy(reference), rtol=RELATIVE_BOUND)
    )


def numbers(run: Run) -> np.ndarray:
    """All columns of a history.  [steps, columns]"""
    rows = read_history(run.directory / "history.csv")
    return np.array([list(map(float, row.values())) for row in rows])


def free_energy(run: Run) -> float:
    return json.loads((run.directory / "summary.json").read_text())["F"]["mean"]


def layout(random) -> int:
    """Processes of a run: two, one time in four."""
    return 2 if random.random() < 1 / 4 else 1


def main(
    *,
    count: int = 50,
    first: int = 0,
    seed: int = 0,
    jobs: int = 1,
    run_dir: Path = Path("runs/faults"),
) -> None:
    """Disturbs runs.

    Args:
      count: of disturbances.
      first: the number of the first, which decides its kind and, with the seed, its moment.
      seed: of their moments and layouts.
      jobs: runs at once, each on cores of its own.
      run_dir: for the runs; emptied first if it holds those of an earlier test.
    """
    run_dir = prepared(run_dir)
    reference = Run(run_dir / "undisturbed", 1)
    code, output = finish(reference.start())
    assert code == 0, output
    kinds = [kind for kind in KINDS if kind != "disk full" or os.geteuid() == 0]
    if len(kinds) < len(KINDS):
        print("Left out, as it needs root: disk full")
    cores = sorted(os.sched_getaffinity(0))
    free = queue.SimpleQueue()
    for job in range(jobs):
        free.put(frozenset(cores[job::jobs]))

    def one(number):
        kind = kinds[number % len(kinds)]
        random = np.random.default_rng([seed, number])
        own = free.get()
        processes = 2 if kind == "one of two processes killed" else layout(random)
        run = Run(run_dir / f"{number:03d}", processes, own)
        try:
            fault = disturbed(kind, run, random, reference)
        finally:
            free.put(own)
        state = "recovered" if fault.recovered else f"LOST\n{fault.words}"
        print(
            f"{number:3d} {kind:28} {processes} processes, row {fault.row:3d}, "
            f"codes {fault.codes}: {state}",
            flush=True,
        )
        return fault

    with ThreadPoolExecutor(jobs) as pool:
        faults = list(pool.map(one, range(first, first + count)))
    print_tally(kinds, faults, seed)
    sys.exit(0 if all(fault.recovered for fault in faults) else 1)


def prepared(run_dir: Path) -> Path:
    """The directory of the runs, made or emptied; one that holds something else is left alone."""
    mark = run_dir / "fault-test"
    if mark.exists():
        shutil.rmtree(run_dir)
    run_dir.mkdir(parents=True)
    mark.touch()
    return run_dir.resolve()


def print_tally(kinds: list[str], faults: list[Fault], seed: int) -> None:
    """Counts of what recovered and what was lost, by kind."""
    applied = [fault for fault in faults if fault.applied]
    missed = len(faults) - len(applied)  # the run was over, or had not begun
    recovered = collections.Counter(fault.kind for fault in applied if fault.recovered)
    lost = collections.Counter(fault.kind for fault in applied if not fault.recovered)
    print(f"\n{'disturbance':28} recovered lost")
    for kind in kinds:
        print(f"{kind:28} {recovered[kind]:9d} {lost[kind]:4d}")
    total = recovered.total()
    print(f"{total} of {len(applied)} recovered, {missed} missed (seed {seed})")


if __name__ == "__main__":
    cyclopts.run(main)
