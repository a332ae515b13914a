"""What more processes and devices bring: a training step on each layout, and what has to be moved
for it.

    python scripts/bench_scaling.py                    # up to as many processes as there are cores
    python scripts/bench_scaling.py --processes 8 --launcher "srun -n {n}" --batch 4096    # on a
    cluster

A device is a core of the CPU or a GPU.  Strong scaling: the same batch on every layout; weak: the
same batch for each device.  Every number of devices is used by one process, then by as many
processes.  Bytes are those of the collectives in the compiled programs, as one device receives
them; the time of moving them is that of one gathering of as many bytes alone.
"""

import itertools
import json
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
from heg.training.step import build, programs

GAS = SystemConfig(13, 2, rs=10.0, theta=0.15, polarization="1", twist=(0.25, 0.25))
WARM, STEPS = 2, 8
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
COLLECTIVE = re.compile(
    r"= (\(.*?\)|\S+) (?:all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-done)?\("
)


def received(text: str, devices: int) -> float:
    """Bytes that one device receives in a program, by its compiled text: what collectives give it
    beyond its share."""
    total = 0
    for result in COLLECTIVE.findall(text):
        for kind, shape in re.findall(r"(\w+)\[([\d,]*)\]", result):
            count = 1
            for number in filter(None, shape.split(",")):
                count *= int(number)
            total += BYTES[kind] * count
    return total * (devices - 1) / devices


def seconds(function) -> float:
    """Median time of a call after compilation."""
    times = []
    for number in range(WARM + STEPS):
        begin = time.perf_counter()
        jax.block_until_ready(function())
        if number >= WARM:
            times.append(time.perf_counter() - begin)
    return statistics.median(times)


def measure(batch: int) -> None:
    """One layout: this process and those started with it."""
    processes.start()
    config = Config(GAS, RunConfig("none"), sampler=SamplerConfig(batch=batch))
    system, solver = GAS.build(), build(config)
    kind = system.of_unit_density
    of_gas = programs(kind, config.model, config.sampler, config.optimizer)
    state = solver.init(jax.random.key(0))
    carried = [state]

    def step():
        carried[0] = solver.step(carried[0])[0]
        return carried[0]

    of_step, devices = seconds(step), jax.device_count()
    moved = {}
    if jax.process_count() == 1:
        key = jax.random.key(1)
        walk = of_gas.draw(system, state.params, key)
        samples = of_gas.evaluate(system, state.params, walk.walkers)
        calls = {
            "draw": of_gas.draw.lower(system, state.params, key),
            "evaluate": of_gas.evaluate.lower(system, state.params, walk.walkers),
            "update": of_gas.update.lower(system, state, walk, samples),
        }
        moved = {name: received(call.compile().as_text(), devices) for name, call in calls.items()}
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    if processes.is_first():
        row = {
            "devices": devices,
            "batch": batch,
            "step": of_step,
            "moved": moved,
            "parameters": parameters,
        }
        print("RESULT " + json.dumps(row), flush=True)


def collective(megabytes: float) -> None:
    """Time of gathering as many bytes, the same share from each device."""
    processes.start()
    devices = jax.device_count()
    share = everywhere(jax.numpy.zeros((devices, max(1, int(megabytes * 2**20 / 8 / devices)))))
    gather = jit(lambda share: map_walkers(lambda row: row + 1, share, 1))
    of_gathering = seconds(lambda: gather(share))
    if processes.is_first():
        print("RESULT " + json.dumps({"seconds": of_gathering}), flush=True)


def on_layout(words: list[str], processes: int, devices: int, launcher: str) -> dict:
    """What a worker says, started in that many processes with so many devices in all, the first of
    this machine."""
    variables, cores = dict(os.environ), sorted(os.sched_getaffinity(0))
    if Path("/dev/nvidia0").exists():
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(devices)))
        own = cores
    else:
        own = cores[:devices]
    start = launcher.format(n=processes).split() if processes > 1 else []
    command = [*start, sys.executable, __file__, *words]
    pin = lambda: os.sched_setaffinity(0, own)
    done = subprocess.run(command, env=variables, capture_output=True, text=True, preexec_fn=pin)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return json.loads(lines[0].removeprefix("RESULT "))


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
    beside = Path(sys.executable).parent / "mpirun"
    launcher = launcher or f"{beside if beside.exists() else shutil.which('mpirun')} -n {{n}}"
    most = devices or len(os.sched_getaffinity(0))
    counts = [n for n in (2, 4, 8, 16, 32, 64, 128) if n <= most]
    alone = on_layout(["measure", str(batch)], 1, 1, launcher)
    print(
        f"2D polarised N = 13, r_s 10, Theta 0.15, {batch} samples; {alone['parameters']} parameters"
    )
    print(
        f"{'':8}{'layout':28}{'batch':>7}{'step, s':>10}{'speed-up':>10}{'moving, s':>11}{'share':>8}"
    )
    rows, moved = [], {}

    def show(kind, name, row, moving):
        speed = alone["step"] / row["step"] * row["batch"] / batch
        rows.append(row | {"kind": kind, "layout": name, "moving": moving})
        cells = f"{kind:8}{name:28}{row['batch']:7d}{row['step']:10.4f}{speed:10.2f}{moving:11.5f}"
        print(f"{cells}{moving / row['step']:8.1%}", flush=True)

    show("", "1 process, 1 device", alone, 0.0)
    for n, (kind, size) in itertools.product(counts, (("strong", batch), ("weak", None))):
        size = size or n * batch
        for count in (1, n):
            row = on_layout(["measure", str(size)], count, n, launcher)
            moved = row["moved"] or moved  # counted in one process: the programs are the same
            megabytes = str(sum(moved.values()) / 2**20)
            moving = on_layout(["collective", megabytes], count, n, launcher)["seconds"]
            show(kind, f"{count} process{'es' * (count > 1)}, {n} devices", row, moving)
            if count == 1:
                print(" " * 8 + "received by a device, KiB: " + _kibibytes(moved))
    print(f"\nthe parameters in double precision: {8 * alone['parameters'] / 1024:.1f} KiB")
    if output:
        output.write_text(json.dumps(rows, indent=1) + "\n")


def _kibibytes(moved):
    return ", ".join(f"{name} {bytes_ / 1024:.1f}" for name, bytes_ in moved.items())


if __name__ == "__main__":
    app = cyclopts.App(help=__doc__)
    app.default(compare)
    app.command(lambda batch: measure(int(batch)), name="measure", show=False)
    app.command(lambda megabytes: collective(float(megabytes)), name="collective", show=False)
    app()
