"""The grid of an equation of state: which runs it needs, in what order, and which starts from
which."""

import dataclasses
import zlib
from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

from cyclopts import Parameter

from heg.checks import Whole, make_plain, one_of, require, within
from heg.config import (
    MOST_STEPS,
    Config,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    SamplerConfig,
    SystemConfig,
)
from heg.gas.twists import Twist, random_twists, special_twists

MANY = Parameter(consume_multiple=True, negative="")
MOST_TWISTS = 1000  # divisions or number
SOLVED = 1024  # final samples of the runs themselves; what counts is measured afterwards


@dataclasses.dataclass(frozen=True)
class GridConfig:
    """[grid]: the gases, and how well they are to be known."""

    dim: Literal[2, 3]
    "dimensions, 2 or 3"
    electrons: Annotated[tuple[Whole, ...], MANY]
    "numbers of electrons in the cell"
    rs: Annotated[tuple[float, ...], MANY]
    "Wigner-Seitz radii r_s, bohr"
    theta: Annotated[tuple[float, ...], MANY]
    "temperatures over the Fermi energy of the majority spin"
    polarization: Annotated[tuple[str, ...], MANY] = ("0",)
    "spin polarisations, 0 ... 1 or ratios such as 3/7"
    twists: Whole = 1
    "special: divisions of the grid of twists, 1 is no twist and 2 the point (1/4, 1/4 ...); random: their number"
    twist_kind: Literal["special", "random"] = "special"
    "the grid of Monkhorst and Pack, or independent uniform twists"
    accuracy: float = 2e-3
    "error of F at r_s = 1, hartree per electron; that over r_s at others"
    steps: Whole = 300
    "training steps of a point at most"
    samples: Whole = 65536
    "samples of the measurement of a point at most"
    warm: bool = True
    "start each point from a trained neighbour"
    retries: Whole = 2
    "times that a failed point is tried again, with steps half as large"
    seed: Whole = 0
    "of all random numbers"

    def __post_init__(self):
        make_plain(self)
        for name in ("electrons", "rs", "theta", "polarization"):
            values = getattr(self, name)
            require(
                self,
                len(set(values)) == len(values) > 0,
                name,
                "must be a list of different values",
            )
        one_of(self, "twist_kind")
        within(self, 1, MOST_TWISTS, "twists")
        within(self, 30, MOST_STEPS, "steps")
        within(self, 2 * SOLVED, MOST_STEPS, "samples")
        within(self, 0, 100, "retries")
        within(self, 0, 2**63 - 1, "seed")
        within(self, 1e-12, 1e12, "accuracy")


@dataclasses.dataclass(frozen=True)
class TableConfig:
    """Everything that heg-eos is told: the tables of grid.toml."""

    grid: GridConfig
    model: ModelConfig = ModelConfig()
    sampler: SamplerConfig = SamplerConfig()
    optimizer: OptimizerConfig = OptimizerConfig()


class Point(NamedTuple):
    """One run.

    Attributes:
      name: of its directory.
      system: the gas.
      weight: of its twist.
      neighbours: names of the points that it may start from, the nearest first.
      accuracy: error of F wanted, hartree per electron.
    """

    name: str
    system: SystemConfig
    weight: float
    neighbours: tuple[str, ...]
    accuracy: float


def twists(grid: GridConfig) -> list[Twist]:
    """Those to be averaged over."""
    if grid.twist_kind == "random":
        return random_twists(grid.dim, grid.twists, grid.seed)
    return special_twists(grid.dim, grid.twists)


def points(grid: GridConfig) -> list[Point]:
    """All runs, each after those that it may start from, rows of r_s together: a row is compiled
    once.

    Raises:
      ValueError: a gas is impossible; the message names the field.
    """
    found = list(_points(grid))
    if len({point.name for point in found}) < len(found):
        raise ValueError(
            "the grid has a gas twice: give each electrons, polarization, rs and theta once"
        )
    return found


def _points(grid: GridConfig) -> Iterator[Point]:
    """Hot rows first, as the plane waves of a colder gas are among those of a hotter one."""
    for electrons in grid.electrons:
        for polarization in grid.polarization:
            before = {}  # names by Theta and r_s, of the twist before
            for twist in twists(grid):
                hotter = {}
                for theta in sorted(grid.theta, reverse=True):
                    last = ()
                    for rs in sorted(grid.rs):
                        system = SystemConfig(
                            electrons, grid.dim, rs, theta, polarization, twist.angle
                        )
                        name = _name(system)
                        near = last + hotter.get(rs, ()) + before.get((theta, rs), ())
                        yield Point(name, system, twist.weight, near, grid.accuracy / rs)
                        last = hotter[rs] = before[theta, rs] = (name,)


def _name(system):
    gas = system.build()
    twist = "-twist" + "_".join(f"{angle:g}" for angle in gas.twist) if any(gas.twist) else ""
    return f"{gas.dim}d-{gas.label}-rs{gas.rs:g}-theta{gas.theta:g}{twist}"


def run_config(
    table: TableConfig, point: Point, run_dir: str, start: str | None, attempt: int = 0
) -> Config:
    """The run of a point: its random numbers are its own, its steps half as large in each further
    attempt."""
    seed = zlib.crc32(f"{point.name} {table.grid.seed}".encode())
    run = RunConfig(run_dir, table.grid.steps, point.accuracy, start, SOLVED, seed)
    optimizer = dataclasses.replace(table.optimizer, max_norm=table.optimizer.max_norm / 2**attempt)
    return Config(point.system, run, table.model, table.sampler, optimizer)
