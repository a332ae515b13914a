"""The command line of heg-solve: what a person types, and the progress and results printed."""

import functools
import logging
import sys
import time
from pathlib import Path
from typing import Annotated, NamedTuple, NoReturn

import cyclopts
import numpy as np
from cyclopts import App, Parameter

from heg.cli.common import (
    CONTINUE,
    Common,
    CommonFlags,
    Interval,
    aligned,
    command,
    courtesy,
    duration,
    new_app,
    run_app,
    stop_signals,
)
from heg.config import (
    Config,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    SamplerConfig,
    SystemConfig,
    tables,
)
from heg.gas.ideal import ideal_reference, system_facts
from heg.gas.plasma import Plasma
from heg.gas.units import density_in_units, energy_in_units
from heg.observables.evaluation import infinite_gas
from heg.observables.quantities import Quantity
from heg.parallel import processes
from heg.reference.published import PAPERS, out_of_range
from heg.report import run_figures
from heg.runs import text_files
from heg.runs.files import save_figure
from heg.runs.run_directory import HISTORY, RunDirectory
from heg.runs.solve import solve as solve_run
from heg.statistics import Estimate
from heg.training.cost import cost, product_rate
from heg.training.step import build
from heg.training.verdict import sentence_of

LOG = logging.getLogger(__name__)

HELP = """Variational free energy of the homogeneous electron gas at finite temperature.

Usage: heg-solve [FILE.toml] [FLAGS].  A file has the tables [system] [model] [sampler] [optimizer]
[run] with the names of the flags; flags win.  The same command again continues the run; so does
--run-dir DIR alone, which reads config.toml there.  Energies are in hartree per electron.
The classical plasma, the limit of high temperature: --statistics classical --gamma GAMMA in place
of --rs and --theta.
Exit codes: 0 done, 1 failed, 2 bad input, 75 stopped in order: run the same command again.
"""
COMPILING = "17 to 27"  # two cores or a GPU (docs/performance.md)
JUDGED_STEPS = 3  # steps from which the time left can be judged
NOTES = {
    "F": "free energy, Ha",
    "E": "energy, Ha",
    "kinetic": "kinetic, Ha",
    "potential": "potential, Ha",
    "S": "entropy, k_B",
}


def solve(arguments: list[str] | None = None) -> NoReturn:
    """heg-solve: from r_s and temperature to a free energy with an error bar."""
    command("heg-solve", parse, _act, arguments)


def _act(asked):
    config, dry = asked
    return _run(config) if dry is None else _dry_run(config, dry)


class Dry(NamedTuple):
    """A command line that computes nothing.

    Attributes:
      file: where the configuration is to be written; none: nowhere.
    """

    file: Path | None = None


def parse(arguments: list[str]) -> tuple[Config, Dry | None] | None:
    """Configuration meant by a command line, and whether it computes nothing.

    Returns:
      None when only help was asked for.
    Raises:
      ValueError, StorageError: with one sentence for the user.
    """
    asked = run_app(_app(), arguments, Config)
    if asked is not None:
        config, _ = asked
        _refuse_a_copy(config, arguments)
    return asked


def _refuse_a_copy(config, arguments):
    """Refuses to continue a run that nobody named.

    The config.toml of a copied run directory still has the directory of the original.
    """
    named = any(word.partition("=")[0] == "--run-dir" for word in arguments)
    file = Path(arguments[0])
    lies_in_a_run = file.name == "config.toml" and (file.parent / HISTORY).exists()
    if named or not lies_in_a_run:
        return
    meant = config.run.run_dir
    if Path(meant).resolve() != file.parent.resolve():
        raise ValueError(
            f"{file} lies in a run directory, but its run_dir is {meant}: "
            f"say which run is meant with --run-dir {file.parent} or --run-dir {meant}"
        )


def _app() -> App:
    """The flags of heg-solve, in the groups of Config and in its order."""
    app = new_app("heg-solve", HELP)
    groups = list(Config.__annotations__)

    def group(name):
        return Parameter(name="*", group=cyclopts.Group(name, sort_key=groups.index(name)))

    @app.default
    def run(
        *,
        system: Annotated[SystemConfig, group("system")],
        run: Annotated[RunConfig, group("run")],
        model: Annotated[ModelConfig, group("model")] = ModelConfig(),
        sampler: Annotated[SamplerConfig, group("sampler")] = SamplerConfig(),
        optimizer: Annotated[OptimizerConfig, group("optimizer")] = OptimizerConfig(),
        dry_run: Annotated[
            bool,
            Parameter(
                help="print the resolved configuration and the cost, compute nothing", negative=""
            ),
        ] = False,
        write_config: Annotated[
            Path | None,
            Parameter(help="write the resolved configuration to this new file, compute nothing"),
        ] = None,
        common: CommonFlags = Common(),
    ):
        dry = Dry(write_config) if dry_run or write_config else None
        return Config(system, run, model, sampler, optimizer), dry

    return app


def _run(config):
    """Runs or continues a run and prints its result; exit code and summary."""
    directory = RunDirectory(Path(config.run.run_dir))
    # the estimate is of a whole run, not of the rest of one that goes on
    if not processes.on_first(directory.history_file.exists):
        solver = build(config)
        estimate = cost(solver, config, product_rate())
        time_and_memory = (
            f"{duration(estimate['seconds'])} on these devices, "
            f"{estimate['memory_mib']:.0f} MiB for the largest arrays"
        )
        LOG.info(f"Expected: {time_and_memory}.")
    # a run that is at its end compiles no step
    if not processes.on_first(directory.summary_file.exists):
        LOG.info(f"Compiling the first step, which usually takes {COMPILING} s.")
    stop = stop_signals(config.run.max_seconds)
    show = _Progress(config.run.steps)
    summary = solve_run(config, show, stop)
    if not summary:
        LOG.info(f"Stopped in order; the same command continues the run in {config.run.run_dir}.")
        return CONTINUE, None
    if processes.is_first():
        system = config.system.build()
        print(f"\n{_headline(system)}")
        _print_summary(summary)
        if system.coupling:
            _print_infinite(system, summary)
        if "reweighted" in summary:
            _print_reweighted(summary["reweighted"])
        print(sentence_of(summary))
        _draw(directory, summary)
    return 0, summary


class _Begin(NamedTuple):
    """Step and time from which the time left is judged: after the first step, which compiles."""

    step: int
    time: float


class _Progress:
    """Lines of progress.

    On a terminal every step writes the same line again; a log has one line a minute, an early one
    and the last.
    """

    def __init__(self, steps):
        self.steps = steps
        self.terminal = sys.stdout.isatty()
        self.begin = None
        self.interval = Interval()

    def __call__(self, step, info):
        now = time.monotonic()
        # the first step that is seen, not step 0: a run may go on from a checkpoint
        self.begin = self.begin or _Begin(step, now)
        last = step == self.steps
        early = step == self.begin.step + JUDGED_STEPS
        if not self.interval.is_over(at_once=self.terminal or last or early):
            return
        line = _line_of_step(step, self.steps, info)
        if step > self.begin.step:
            line += f"  {_clock(self._seconds_left(step, now))} left"
        self._print(line, last)

    def _seconds_left(self, step, now):
        # the step that compiled is not counted
        seconds_per_step = (now - self.begin.time) / (step - self.begin.step)
        return seconds_per_step * (self.steps - step)

    def _print(self, line, last):
        if self.terminal:
            # back to the start of the line, and clear what was there
            print(f"\r\033[K{line}", end="\n" if last else "", flush=True)
        else:
            print(line, flush=True)


def _line_of_step(step, steps, info):
    free_energy = Estimate(*map(float, info.estimates["F"]))
    entropy = Estimate(*map(float, info.estimates["S"]))
    return (
        f"step {step}/{steps}  F/N {free_energy} Ha  S/N {entropy} k_B  min_det {info.min_det:.2g}"
    )


def _clock(seconds):
    # hours, minutes and seconds
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}"


@functools.singledispatch
def _headline(system):
    """The gas and the energies that set its scale."""
    return (
        f"{system.n_up} up + {system.n_down} down electrons, {system.dim}D, "
        f"r_s {system.rs:g} bohr, Theta {system.theta:g}: "
        f"T {system.temperature:.6g} Ha, E_F {system.fermi_energy:.6g} Ha"
    )


@_headline.register
def _(system: Plasma):
    return (
        f"{system.electrons} classical electrons, {system.dim}D, Gamma {system.coupling:g}, beyond "
        "the ideal gas; units r_s = 1 bohr, T = 1 Ha: F is beta f_exc"
    )


def _print_summary(summary):
    """The results beside the untrained and the ideal ones, and what they cost."""
    rows = [["per electron", "result", "at the start", "ideal gas"]]
    for name, label in NOTES.items():
        result = Estimate(**summary[name])
        initial = Estimate(**summary["initial"][name])
        ideal = summary["ideal"][name]["mean"]
        cells = [str(result), str(initial), f"{ideal:.6g}"]
        rows.append([label, *cells])
    print(aligned(rows))
    # signs of trouble that the means do not show
    quality = summary["quality"]
    print(f"{summary['steps']} steps, {summary['samples']} samples, {summary['seconds']:.0f} s")
    print(
        f"variance of E_loc {quality['E_variance_cell_ha2']:.3g} Ha^2, "
        f"largest deviation {quality['largest_deviation_sigma']:.1f} sigma"
    )


def _print_infinite(system, summary):
    """f_xc of the cell and of the infinite gas beside the published ones."""
    bound = summary["F"]
    ideal = summary["ideal"]["F"]  # exact
    f_xc = Estimate(bound["mean"] - ideal["mean"], bound["error"])
    values = _infinite_values(system, f_xc)
    infinite = Estimate(**values["f_xc_of_the_bound_ha"])
    rows = [
        ["f_xc, Ha per electron", "value", "ours less published"],
        ["this cell", str(f_xc), ""],
        ["infinite gas", str(infinite), ""],
    ]
    extrapolated = out_of_range(system.dim, system.rs, system.theta)
    for name, paper in PAPERS.items():
        published = values.get(f"f_xc_{name}_ha")
        if published is None:
            continue
        # a fit beyond its data is no reference: the reader must see it
        label = f"{paper}, extrapolated" if name in extrapolated else paper
        difference = infinite.mean - published
        with_error = Estimate(difference, infinite.error)
        rows.append([label, f"{published:.6g}", str(with_error)])
    print(f"\n{aligned(rows)}\n")


def _print_reweighted(beyond):
    """F and E by reweighting, or why there are none."""
    for name in ("F", "E"):
        if name in beyond:
            print(f"{NOTES[name]} per electron, reweighted: {Estimate(**beyond[name])}")
    print(beyond["sentence"])


def _infinite_values(system, f_xc):
    """Values of the infinite gas by name, from f_xc of the cell."""
    mean = np.asarray(f_xc.mean)
    error = np.asarray(f_xc.error)
    return infinite_gas(system, {"f_xc": Quantity(mean, error, None, "hartree per electron")})


def _draw(directory, summary):
    """The training curve, unless nothing was trained."""
    history = directory.history()
    if not history:
        return

    def draw():
        ideal = Estimate(**summary["ideal"]["S"])
        figure = run_figures.training_curve(text_files.columns(history), ideal)
        return save_figure(figure, directory.path / "training.png")

    if path := courtesy(draw):
        print(f"Training curve: {path}")


def _dry_run(config, dry=Dry()):
    """Prints the configuration as TOML, everything else in its comments.

    The output is a file for heg-solve.
    """
    solver = build(config)
    if dry.file:
        processes.on_first(_write_config, config, dry.file)
    facts = system_facts(solver.system, solver.cutoff)
    reference = ideal_reference(solver.system)
    ideal = {name: estimate.mean for name, estimate in reference.items()}
    estimate = cost(solver, config, product_rate())
    # comments of TOML: the output can be given to heg-solve as it is
    print(text_files.as_toml(tables(config)))
    units = _in_units(solver.system)
    lines = [*_lines_of_system(facts, ideal), *_lines_of_units(units), *_lines_of_cost(estimate)]
    for line in lines:
        print(f"# {line}")
    return 0, {
        "config": tables(config),
        "system": facts,
        "in_units": units,
        "ideal": ideal,
        "cost": estimate,
    }


def _lines_of_system(facts, ideal):
    lines = [f"  {name} = {value}" for name, value in facts.items()]
    values = ", ".join(f"{name} {value:.10g}" for name, value in ideal.items())
    return ["system", *lines, f"  exact ideal gas, per electron: {values}"]


def _in_units(gas):
    """Temperature, Fermi energy and density by the names of their units."""
    return {
        "temperature": energy_in_units(gas.temperature),
        "fermi_energy": energy_in_units(gas.fermi_energy),
        "density": density_in_units(gas.density, gas.dim),
    }


def _lines_of_units(units):
    lines = []
    for name, values in units.items():
        numbers = " = ".join(f"{value:.6g} {unit}" for unit, value in values.items())
        lines.append(f"  {name} = {numbers}")
    return ["in other units (CODATA)", *lines]


def _lines_of_cost(estimate):
    of_p = estimate["parameters_of_p"]
    of_flow = estimate["parameters_of_flow"]
    memory = f"about {estimate['memory_mib']:.0f} MiB for the largest arrays, beside the program"
    seconds = f"{duration(estimate['seconds'])} on these devices, within a factor of two or so"
    return [
        "cost",
        f"  parameters = {of_p} of p(K), {of_flow} of the flow",
        f"  samples = {estimate['samples']} in all",
        f"  memory = {memory}",
        f"  time = {seconds}",
    ]


def _write_config(config, path):
    if path.exists():
        raise ValueError(f"write_config is {path}: the file exists; give a new name")
    text_files.save_config(path, tables(config))
