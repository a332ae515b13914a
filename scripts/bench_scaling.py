"""The gain from more processes and devices: a training step on each layout, and the bytes moved.

    python scripts/bench_scaling.py        # up to as many processes as there are cores
    python scripts/bench_scaling.py --devices 8 --launcher "srun -n {n}" --batch 4096  # a cluster

A device is a core of the CPU or a GPU.  Strong scaling: the same batch on every layout; weak: the
same batch for each device.  Every number of devices is used by one process, then by as many
processes.  Bytes are those of the collectives in the compiled programs, as one device receives
them; the time of moving them is that of one gathering of as many bytes alone.
"""

import itertools
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import cyclopts
import jax

from heg.config import Config, RunConfig, SamplerConfig, SystemConfig
from heg.parallel import processes
from heg.parallel.devices import everywhere, jit, map_walkers
from heg.training.step import build

GAS = SystemConfig(13, 2, rs=10.0, theta=0.15, polarization="1", twist=(0.25, 0.25))
WARM_CALLS = 2  # that compile and fill caches
TIMED_CALLS = 8
RESULT = "RESULT "  # begins the line of a worker
BYTES = {
    "f64": 8,
    "s64": 8,
    "u64": 8,
    "c128": 16,
    "f32": 4,
    "s32": 4,
    "u32": 4,
    "c64": 8,
    "pred": 1,
}
# where a collective is split in two, its end has the result
COLLECTIVES = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
COLLECTIVE = re.compile(rf"= (\(.*?\)|\S+) (?:{COLLECTIVES})(?:-done)?\(")


def received(text: str, devices: int) -> float:
    """Bytes that one device receives in a program, by its compiled text: what collectives give it
    beyond its share."""
    total = 0
    for result in COLLECTIVE.findall(text):
        for kind, shape in re.findall(r"(\w+)\[([\d,]*)\]", result):
            lengths = [int(length) for length in shape.split(",") if length]
            total += BYTES[kind] * math.prod(lengths)
    return total * (devices - 1) / devices


def seconds(function) -> float:
    """Median time of a call after compilation."""
    times = []
    for _ in range(WARM_CALLS + TIMED_CALLS):
        begin = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - begin)
    return statistics.median(times[WARM_CALLS:])


def report(result: dict) -> None:
    """Gives a result to the process that started this one."""
    if processes.is_first():
        print(RESULT + json.dumps(result), flush=True)


def measure(batch: int) -> None:
    """One layout: this process and those started with it."""
    processes.start()
    config = Config(GAS, RunConfig("none"), sampler=SamplerConfig(batch=batch))
    solver = build(config)
    state = solver.init(jax.random.key(0))
    carried = [state]

    def step():
        carried[0], _ = solver.step(carried[0])
        return carried[0]

    result = {
        "devices": jax.device_count(),
        "batch": batch,
        "step": seconds(step),
        "moved": {},
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
    }
    if jax.process_count() == 1:
        result["moved"] = moved_in_step(config, state)
    report(result)


def moved_in_step(config: Config, state) -> dict[str, float]:
    """Bytes that a device receives in each program of a step."""
    system = config.system.build()
    step = build(config).programs
    key = jax.random.key(1)
    states = step.states(system, state.params, key)
    walk = step.draw(system, state.params, states, key)
    samples = step.evaluate(system, state.params, walk.walkers)
    min_det = step.lowest(system, state.params.flow, walk.walkers)
    lowered = {
        "states": step.states.lower(system, state.params, key),
        "draw": step.draw.lower(system, state.params, states, key),
        "evaluate": step.evaluate.lower(system, state.params, walk.walkers),
        "update": step.update.lower(system, state, walk, samples, min_det),
        "lowest": step.lowest.lower(system, state.params.flow, walk.walkers),
    }
    devices = jax.device_count()
    return {
        name: received(program.compile().as_text(), devices) for name, program in lowered.items()
    }


def collective(megabytes: float) -> None:
    """Time of gathering as many bytes, the same share from each device."""
    processes.start()
    devices = jax.device_count()
    numbers = int(megabytes * 2**20 / 8 / devices)
    share = everywhere(jax.numpy.zeros((devices, max(1, numbers))))
    gather = jit(lambda share: map_walkers(lambda row: row + 1, share, 1))
    report({"seconds": seconds(lambda: gather(share))})


def on_layout(words: list[str], processes: int, devices: int, launcher: str) -> dict:
    """Result of a worker that is started in so many processes, with so many devices in all.

    The devices are the first ones of this machine.
    """
    variables = dict(os.environ)
    cores = sorted(os.sched_getaffinity(0))
    if Path("/dev/nvidia0").exists():
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(devices)))
    else:
        cores = cores[:devices]
    start = launcher.format(n=processes).split() if processes > 1 else []
    command = [*start, sys.executable, __file__, *words]
    done = subprocess.run(
        command,
        env=variables,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(RESULT)]
    if done.returncode or not lines:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return json.loads(lines[0].removeprefix(RESULT))


def compare(
    *, batch: int = 256, devices: int = 0, launcher: str = "", output: Path | None = None
) -> None:
    """Prints the tables.

    Args:
      batch: samples of a step, in all (strong), for each device (weak).
      devices: the most; 0: as many as cores.
      launcher: command that starts {n} processes; none: the mpirun at hand.
      output: JSON file for the numbers.
    """
    launcher = launcher or f"{mpirun()} -n {{n}}"
    most = devices or len(os.sched_getaffinity(0))
    alone = on_layout(["measure", str(batch)], 1, 1, launcher)
    print(
        f"2D polarised N = 13, r_s 10, Theta 0.15, {batch} samples; "
        f"{alone['parameters']} parameters"
    )
    print(
        f"{'':8}{'layout':28}{'batch':>7}{'step, s':>10}"
        f"{'speed-up':>10}{'moving, s':>11}{'share':>8}"
    )
    rows = []
    moved = {}

    def show(kind, layout, row, moving):
        rows.append(row | {"kind": kind, "layout": layout, "moving": moving})
        speed_up = alone["step"] / row["step"] * row["batch"] / batch
        print(
            f"{kind:8}{layout:28}{row['batch']:7d}{row['step']:10.4f}"
            f"{speed_up:10.2f}{moving:11.5f}{moving / row['step']:8.1%}",
            flush=True,
        )

    show("", "1 process, 1 device", alone, 0.0)
    counts = [n for n in (2, 4, 8, 16, 32, 64, 128) if n <= most]
    for n, kind in itertools.product(counts, ("strong", "weak")):
        size = batch if kind == "strong" else n * batch
        for count in (1, n):
            row = on_layout(["measure", str(size)], count, n, launcher)
            moved = row["moved"] or moved  # counted in one process: the programs are the same
            megabytes = str(sum(moved.values()) / 2**20)
            moving = on_layout(["collective", megabytes], count, n, launcher)["seconds"]
            plural = "es" if count > 1 else ""
            show(kind, f"{count} process{plural}, {n} devices", row, moving)
            if count == 1:
                print(f"{'':8}received by a device, KiB: {_kibibytes(moved)}")
    print(f"\nthe parameters in double precision: {8 * alone['parameters'] / 1024:.1f} KiB")
    if output:
        output.write_text(json.dumps(rows, indent=1) + "\n")


def mpirun() -> str:
    """The mpirun of this environment, or the one on PATH."""
    beside = Path(sys.executable).parent / "mpirun"
    return str(beside) if beside.exists() else str(shutil.which("mpirun"))


def _kibibytes(moved):
    return ", ".join(f"{name} {bytes_ / 1024:.1f}" for name, bytes_ in moved.items())


if __name__ == "__main__":
    app = cyclopts.App(help=__doc__)
    app.default(compare)
    app.command(lambda batch: measure(int(batch)), name="measure", show=False)
    app.command(lambda megabytes: collective(float(megabytes)), name="collective", show=False)
    app()
