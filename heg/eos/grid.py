"""The grid of an equation of state: its runs, their order, and where each may start from."""

import dataclasses
import functools
import itertools
import zlib
from typing import Annotated, Literal, NamedTuple

from cyclopts import Parameter

from heg.checks import Whole, make_plain, one_of, require, within
from heg.config import (
    MAX_SEED,
    MAX_STEPS,
    Config,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    SamplerConfig,
    SystemConfig,
)
from heg.gas.ideal import choose_cutoff
from heg.gas.system import System
from heg.gas.twists import Twist, random_twists, special_twists

VALUES = Parameter(consume_multiple=True, negative="")  # a flag with several values
MAX_TWISTS = 1000  # divisions or number
FINAL_SAMPLES = 1024  # of the runs themselves; what counts is measured afterwards
MIN_STEPS = 30  # fewer do not show whether a training has settled
SIZE_CLASS = 4  # the most plane waves that a point has, in units of those that it needs


@dataclasses.dataclass(frozen=True)
class GridConfig:
    """[grid]: the gases, and how well they are to be known."""

    dim: Literal[2, 3]
    "dimensions, 2 or 3"
    electrons: Annotated[tuple[Whole, ...], VALUES]
    "numbers of electrons in the cell"
    rs: Annotated[tuple[float, ...], VALUES]
    "Wigner-Seitz radii r_s, bohr"
    theta: Annotated[tuple[float, ...], VALUES]
    "temperatures over the Fermi energy of the majority spin"
    polarization: Annotated[tuple[str, ...], VALUES] = ("0",)
    "spin polarisations, 0 ... 1 or ratios such as 3/7"
    twists: Whole = 1
    (
        "special: divisions of the grid of twists, 1 is no twist and 2 the point (1/4, 1/4 ...); "
        "random: their number"
    )
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
            are_different = len(set(values)) == len(values) > 0
            require(self, are_different, name, "must be a list of different values")
        one_of(self, "twist_kind")
        within(self, 1, MAX_TWISTS, "twists")
        within(self, MIN_STEPS, MAX_STEPS, "steps")
        within(self, 2 * FINAL_SAMPLES, MAX_STEPS, "samples")
        within(self, 0, 100, "retries")
        within(self, 0, MAX_SEED, "seed")
        within(self, 1e-12, 1e12, "accuracy")


@dataclasses.dataclass(frozen=True)
class TableConfig:
    """All settings of heg-eos: the tables of grid.toml."""

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


# the points of one number of electrons, by indices of twist, Theta and r_s
PointsByPlace = dict[tuple[int, int, int], Point]


def twists(grid: GridConfig) -> list[Twist]:
    """Twists of the boundary condition to be averaged over."""
    if grid.twist_kind == "random":
        return random_twists(grid.dim, grid.twists, grid.seed)
    return special_twists(grid.dim, grid.twists)


def points(grid: GridConfig) -> list[Point]:
    """All runs of a grid, each after those that it may start from.

    Rows of r_s are together, and rows of the temperatures that share what is compiled.

    Raises:
      ValueError: a gas is impossible; the message names the field.
    """
    every: list[Point] = []
    for polarization in grid.polarization:
        smaller: PointsByPlace = {}
        # small cells first: larger ones take their flows over
        for electrons in sorted(grid.electrons):
            cell = _points_of_cell(grid, electrons, polarization, smaller)
            every.extend(cell.values())
            first = next(iter(cell.values()))
            # a lone electron of each spin has no pairs of equal spins to hand on
            has_equal_pairs = first.system.build().n_up > 1
            smaller = cell if has_equal_pairs else {}
    names = {point.name for point in every}
    if len(names) < len(every):
        raise ValueError(
            "the grid has a gas twice: give each electrons, polarization, rs and theta once"
        )
    return every


def _points_of_cell(
    grid: GridConfig, electrons: int, polarization: str, smaller: PointsByPlace
) -> PointsByPlace:
    """Points of all twists, temperatures and densities of the same electrons.

    Args:
      grid: the grid.
      electrons, polarization: of the cell.
      smaller: points of the next smaller cell.
    """
    # hot rows first: the plane waves of a colder gas are among those of a hotter one
    thetas = sorted(grid.theta, reverse=True)
    radii = sorted(grid.rs)
    cell: PointsByPlace = {}
    places = itertools.product(enumerate(twists(grid)), enumerate(thetas), enumerate(radii))
    for (twist_index, twist), (row, theta), (column, rs) in places:
        system = SystemConfig(
            electrons=electrons,
            dim=grid.dim,
            rs=rs,
            theta=theta,
            polarization=polarization,
            twist=twist.angle,
        )
        place = (twist_index, row, column)
        # where parameters change least comes first
        nearest = (
            cell.get((twist_index, row, column - 1)),  # the denser gas
            cell.get((twist_index, row - 1, column)),  # the hotter gas
            cell.get((twist_index - 1, row, column)),  # the gas of the twist before
            smaller.get(place),  # the same gas in a smaller cell
        )
        cell[place] = Point(
            name=_name(system),
            system=system,
            weight=twist.weight,
            neighbours=tuple(point.name for point in nearest if point),
            # energies of the interaction go as 1 / r_s, and so does the error that is wanted
            accuracy=grid.accuracy / rs,
        )
    return cell


def _name(config: SystemConfig) -> str:
    gas = config.build()
    name = f"{gas.dim}d-{gas.label}-rs{gas.rs:g}-theta{gas.theta:g}"
    if any(gas.twist):
        name += "-twist" + "_".join(f"{angle:g}" for angle in gas.twist)
    return name


def run_config(
    table: TableConfig, point: Point, run_dir: str, start: str | None, attempt: int = 0
) -> Config:
    """The configuration of the run of a point.

    Its random numbers are its own; its steps are half as large in each further attempt.

    Args:
      table: settings of the table.
      point: the point.
      run_dir: its directory.
      start: directory of the run that it starts from; None for the ideal gas.
      attempt: number of earlier attempts, which failed.
    """
    run = RunConfig(
        run_dir=run_dir,
        steps=table.grid.steps,
        accuracy=point.accuracy,
        start=start,
        samples=FINAL_SAMPLES,
        seed=zlib.crc32(f"{point.name} {table.grid.seed}".encode()),
    )
    # smaller steps are safer, not better: a first attempt takes the usual ones
    max_norm = table.optimizer.max_norm / 2**attempt
    optimizer = dataclasses.replace(table.optimizer, max_norm=max_norm)
    # as many plane waves for neighbouring temperatures, so that a program serves them all
    gas = point.system.build()
    shared = _shared_orbitals(gas.shape, table.grid.theta, table.model)
    model = dataclasses.replace(table.model, min_orbitals=shared[gas.theta])
    return Config(point.system, run, model, table.sampler, optimizer)


@functools.lru_cache(maxsize=32)
def _shared_orbitals(
    gas: System, temperatures: tuple[float, ...], model: ModelConfig
) -> dict[float, int]:
    """The number of plane waves at each temperature: that of a hotter one within SIZE_CLASS.

    Args:
      gas: of heg.gas.system.System.shape.
      temperatures: Theta of the rows of a table.
      model: its own smallest number counts too.
    """
    shared: dict[float, int] = {}
    largest = 0
    for theta in sorted(temperatures, reverse=True):
        here = dataclasses.replace(gas, theta=theta)
        cutoff = choose_cutoff(here, model.orbital_tolerance, model.min_orbitals)
        needed = len(cutoff.orbitals.energy)
        # the hottest of a class decides for all of it
        if not shared or needed * SIZE_CLASS < largest:
            largest = needed
        shared[theta] = largest
    return shared
