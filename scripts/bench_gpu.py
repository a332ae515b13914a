"""Numbers, speed and memory of a GPU in ten minutes.

    python scripts/bench_gpu.py --store               # on a CPU: writes scripts/bench_gpu.json
    python scripts/bench_gpu.py --minutes 8           # on a GPU

First the walkers and local energies of shipped checkpoints beside those that a CPU has computed
from the same random numbers; then the phases of a training step, from small gases to large ones and
from small batches to large ones, until the time is over. Each line is printed as soon as it is
known.
"""

import json
import math
import time
from pathlib import Path
from typing import Annotated

import bench_step
import cyclopts
import jax
import numpy as np

from heg import Config, RunConfig, SamplerConfig, SystemConfig, build
from heg.model.density_matrix import Params
from heg.parallel.devices import everywhere
from heg.parallel.processes import start
from heg.runs.run_directory import RunDirectory
from heg.training.cost import operations, product_rate
from heg.training.state import MEASURING, stream

ROOT = Path(__file__).parents[1]
STORED = Path(__file__).with_suffix(".json")
CHECKED = ("2d-13u-rs10-theta0.15", "3d-7u7d-rs2-theta0.25", "3d-7u-rs1-theta1")
WALKERS = 16  # of each that are compared
PHASES = ("draw K", "draw x", "kinetic", "Coulomb", "scores", "solve", "step")
# electrons, dimensions, polarisation, batch
ROWS = (
    (29, 2, "1", 256),
    (14, 3, "0", 256),
    (29, 2, "1", 2048),
    (14, 3, "0", 2048),
    (38, 3, "0", 256),
    (66, 3, "0", 256),
    (29, 2, "1", 8192),
    (38, 3, "0", 1024),
    (14, 3, "0", 8192),
)


def first_walkers(name: str) -> dict[str, list]:
    """x and E_loc of the first walkers of the first batch that a measurement of a checkpoint
    draws."""
    directory = RunDirectory(ROOT / "checkpoints" / name)
    solver = build(directory.configuration())
    state = everywhere(directory.trained_state(solver.template))
    key = jax.random.fold_in(stream(state, MEASURING), 0)
    samples, walk = solver.measure(state.average, key)
    energy = np.asarray(samples.energy.total)[:WALKERS]
    return {
        "x": np.asarray(walk.walkers.x)[:WALKERS].tolist(),
        "energy": [energy.real.tolist(), energy.imag.tolist()],
    }


def compare(name: str, stored: dict) -> str:
    """How far this device is from the stored numbers."""
    here = first_walkers(name)
    x = np.array(here["x"])
    distance = np.abs(x - np.array(stored["x"])).max(axis=(1, 2))
    # another rounding may send a draw elsewhere, which is no error
    same = distance < 1e-6
    energy = np.array(here["energy"])[:, same]
    expected = np.array(stored["energy"])[:, same]
    error = np.abs(energy - expected).max() / np.abs(expected).max()
    return (
        f"{name}: {same.sum()} of {len(same)} walkers within {distance[same].max():.1e} bohr, "
        f"E_loc within {error:.1e}"
    )


def bench(row: tuple, peak: float, phases: tuple[str, ...]) -> dict:
    """Milliseconds for a sample, MiB, and share of the peak of each phase."""
    electrons, dim, polarization, batch = row
    rs, theta = (10.0, 0.15) if dim == 2 else (5.0, 0.15)
    gas = SystemConfig(electrons, dim, rs, theta, polarization, (0.25,) * dim)
    config = Config(gas, RunConfig("unused"), sampler=SamplerConfig(batch=batch))
    solver = build(config)
    state = solver.init(jax.random.key(0))
    flow = bench_step.correlated(state.params.flow, solver.system)
    state = state._replace(params=Params(state.params.occupations, flow))
    prepared = bench_step.phases(solver, config, state)
    counts = operations(solver, config)
    counts["step"] = sum(counts[name] for name in bench_step.STEP)
    result = {"electrons": electrons, "dim": dim, "polarization": polarization, "batch": batch}
    for name in phases:
        timed = bench_step.Timed(*prepared[name], batch)
        timed.again()
        rate = counts[name] / (timed.ms / 1e3) if name in counts else math.nan
        share = rate / peak
        result[name] = {
            "ms": timed.ms,
            "mib": timed.mib,
            "share": share,
            "compile_s": timed.compile_seconds,
        }
        print(
            f"  {name:8} {timed.ms:10.4f} ms {timed.mib:9.0f} MiB {share:8.1%} of peak, "
            f"compiled in {timed.compile_seconds:.0f} s",
            flush=True,
        )
    return result


def main(
    *,
    store: bool = False,
    minutes: float = 8.0,
    output: Path | None = None,
    phases: Annotated[tuple[str, ...], cyclopts.Parameter(consume_multiple=True)] = PHASES,
    skip: int = 0,
) -> None:
    """Compares, then times.

    Args:
      store: write the numbers that others are compared with.
      minutes: after this time no row is begun.
      output: JSON file of the rows.
      phases: of a step, those that are timed.
      skip: rows left out in front.
    """
    begin = time.monotonic()
    start()
    device = jax.devices()[0].device_kind
    print(f"{device} x {jax.device_count()}, JAX {jax.__version__}", flush=True)
    if store:
        STORED.write_text(json.dumps({name: first_walkers(name) for name in CHECKED}) + "\n")
        return
    for name, numbers in json.loads(STORED.read_text()).items():
        print(compare(name, numbers), flush=True)
    peak = product_rate()
    print(f"matrix product, double precision: {peak / 1e12:.2f} TFlop/s", flush=True)
    rows = []
    for row in ROWS[skip:]:
        if time.monotonic() - begin > 60 * minutes:
            break
        electrons, dim, polarization, batch = row
        print(f"{dim}D, N = {electrons}, zeta = {polarization}, {batch} samples", flush=True)
        rows.append(bench(row, peak, phases))
        if output:  # after each row: the time on a GPU may end
            output.write_text(json.dumps({"device": device, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    cyclopts.run(main)
