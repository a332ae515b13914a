"""The command line of heg-solve.  What a person types and sees; nothing is computed here."""

import sys
import time
from pathlib import Path
from typing import Annotated, NamedTuple, NoReturn

import cyclopts
import numpy as np
from cyclopts import App, Parameter

from heg.cli.common import (
    CONTINUE,
    EVERY,
    Common,
    CommonFlags,
    aligned,
    command,
    courtesy,
    new_app,
    run_app,
    save_figure,
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
from heg.observables.evaluation import infinite_gas
from heg.observables.thermodynamics import Quantity
from heg.parallel import processes
from heg.reference.published import PAPERS, out_of_range
from heg.report import run_figures
from heg.runs import text_files
from heg.runs.run_directory import HISTORY
from heg.runs.solve import solve as solve_run
from heg.statistics import Estimate
from heg.training.cost import cost, product_rate
from heg.training.step import build
from heg.training.verdict import sentence_of

HELP = """Variational free energy of the uniform electron gas at finite temperature.

Usage: heg-solve [FILE.toml] [FLAGS].  A file has the tables [system] [model] [sampler] [optimizer]
[run] with the names of the flags; flags win.  The same command again continues the run; so does
--run-dir DIR alone, which reads config.toml there.  Energies are in hartree per electron.
Exit codes: 0 done, 1 failed, 2 bad input, 75 stopped in order: run the same command again.
"""
JUDGED = 3  # steps after which the time left is worth telling
NOTES = {
    "F": "free energy, Ha",
    "E": "energy, Ha",
    "kinetic": "kinetic, Ha",
    "potential": "potential, Ha",
    "S": "entropy, k_B",
}


def solve(arguments: list[str] | None = None) -> NoReturn:
    """heg-solve: from r_s and temperature to a free energy with an error bar."""
    command(
        "heg-solve",
        parse,
        lambda asked: _dry_run(*asked) if asked[1] else _run(asked[0]),
        arguments,
    )


class Dry(NamedTuple):
    """A command line that computes nothing.

    Attributes:
      file: where the configuration is to be written; none: nowhere.
    """

    file: Path | None = None


def parse(arguments: list[str]) -> tuple[Config, Dry | None] | None:
    """Configuration meant by a command line, and whether it computes nothing; None when only help
    was asked for.

    Raises:
      ValueError, StorageError: with one sentence for the user.
    """
    asked = run_app(_app(), arguments, Config)
    if asked is not None:
        _refuse_a_copy(asked[0], arguments)
    return asked


def _refuse_a_copy(config, arguments):
    """Refuses to continue, by the configuration of one run directory, the run in another that
    nobody named."""
    named = any(word.partition("=")[0] == "--run-dir" for word in arguments)
    file = Path(arguments[0])
    if named or file.name != "config.toml" or not (file.parent / HISTORY).exists():
        return
    meant = config.run.run_dir
    if Path(meant).resolve() != file.parent.resolve():
        raise ValueError(
            f"{file} lies in a run directory, but its run_dir is {meant}: say which run is meant with "
            f"--run-dir {file.parent} or --run-dir {meant}"
        )


def _app() -> App:
    app = new_app("heg-solve", HELP)
    group = lambda name: Parameter(
        name="*", group=cyclopts.Group(name, sort_key=list(Config.__annotations__).index(name))
    )

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
        return Config(system, run, model, sampler, optimizer), Dry(
            write_config
        ) if dry_run or write_config else None

    return app


def _run(config):
    say = lambda sentence: print(sentence, flush=True)
    if not processes.on_first((Path(config.run.run_dir) / HISTORY).exists):
        found = cost(build(config), config, product_rate())
        say(f"Expected: {_expectation(found)}.")
    summary = solve_run(
        config, say, _Progress(config.run.steps), stop_signals(config.run.max_seconds)
    )
    if not summary:
        say(f"Stopped in order; the same command continues the run in {config.run.run_dir}.")
        return CONTINUE, None
    _print_summary(summary)
    if processes.is_first():
        if config.system.coupling:
            _print_infinite(config.system.build(), summary)
        print(sentence_of(summary))
        _draw(config, summary)
    return 0, summary


def _expectation(found):
    return f"{_duration(found['seconds'])} on these devices, {found['memory_mib']:.0f} MiB for the largest arrays"


def _duration(seconds):
    """A time that is known within a factor of two or so."""
    units = (("days", 86400), ("hours", 3600), ("minutes", 60), ("seconds", 1))
    name, unit = next((name, unit) for name, unit in units if seconds >= 2 * unit or unit == 1)
    return (
        f"about {seconds / unit:.2g} {name}"
        if seconds < 99.5 * unit
        else f"about {seconds / unit:.0f} {name}"
    )


class _Progress:
    """A line of progress: on a terminal the same line at every step, in a log one a minute and an
    early one."""

    def __init__(self, steps):
        self.steps, self.terminal = steps, sys.stdout.isatty()
        self.begin = None  # step and time from which the time left is judged: after the first step, which compiles
        self.printed = -EVERY

    def __call__(self, step, info):
        now = time.monotonic()
        self.begin = self.begin or (step, now)
        last, telling = step == self.steps, step == self.begin[0] + JUDGED
        if not (self.terminal or last or telling) and now - self.printed < EVERY:
            return
        self.printed = now
        seconds = (now - self.begin[1]) / max(step - self.begin[0], 1) * (self.steps - step)
        free_energy, entropy = (Estimate(*map(float, info.estimates[name])) for name in "FS")
        line = f"step {step}/{self.steps}  F/N {free_energy} Ha  S/N {entropy} k_B  min_det {info.min_det:.2g}"
        minutes, seconds = divmod(round(seconds), 60)
        line += (
            f"  {minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d} left"
            if step > self.begin[0]
            else ""
        )
        print(
            f"\r\033[K{line}" if self.terminal else line,
            end="" if self.terminal and not last else "\n",
            flush=True,
        )


def _print_summary(summary):
    facts = summary["system"]
    print(
        f"\n{facts['n_up']} up + {facts['n_down']} down electrons, {facts['dim']}D, r_s {facts['rs_bohr']:g} bohr, "
        f"Theta {facts['theta']:g}: T {facts['temperature_ha']:.6g} Ha, E_F {facts['fermi_energy_ha']:.6g} Ha"
    )
    rows = [["per electron", "result", "at the start", "ideal gas"]]
    for name, label in NOTES.items():
        result, before = (Estimate(**part[name]) for part in (summary, summary["initial"]))
        rows.append([label, str(result), str(before), f"{summary['ideal'][name]['mean']:.6g}"])
    print(aligned(rows))
    quality = summary["quality"]
    print(
        f"{summary['steps']} steps, {summary['samples']} samples, {summary['seconds']:.0f} s\n"
        f"variance of E_loc {quality['E_variance_cell_ha2']:.3g} Ha^2, largest deviation "
        f"{quality['largest_deviation_sigma']:.1f} sigma"
    )


def _print_infinite(system, summary):
    """f_xc of the cell and of the infinite gas beside the published ones."""
    f_xc = summary["F"]["mean"] - summary["ideal"]["F"]["mean"], summary["F"]["error"]
    infinite = infinite_gas(
        system, {"f_xc": Quantity(*map(np.asarray, f_xc), None, "hartree per electron")}
    )
    ours = Estimate(**infinite["f_xc_of_the_bound_ha"])
    rows = [
        ["f_xc, Ha per electron", "value", "ours less published"],
        ["this cell", str(Estimate(*f_xc)), ""],
    ]
    rows.append(["infinite gas", str(ours), ""])
    extrapolated = out_of_range(system.dim, system.rs, system.theta)
    for name, paper in PAPERS.items():
        if (value := infinite.get(f"f_xc_{name}_ha")) is not None:
            label = paper + (", extrapolated" if name in extrapolated else "")
            rows.append([label, f"{value:.6g}", str(Estimate(ours.mean - value, ours.error))])
    print(f"\n{aligned(rows)}\n")


def _draw(config, summary):
    run_dir = Path(config.run.run_dir)
    history = text_files.read_history(run_dir / HISTORY)
    if not history:
        return
    ideal = Estimate(**summary["ideal"]["S"])
    draw = lambda: save_figure(
        run_figures.training_curve(text_files.columns(history), ideal), run_dir / "training.png"
    )
    if path := courtesy(draw):
        print(f"Training curve: {path}")


def _dry_run(config, dry=Dry()):
    """Prints the configuration as TOML, everything else in its comments: the output is a file for
    heg-solve."""
    solver = build(config)
    if dry.file:
        processes.on_first(_write_config, config, dry.file)
    ideal = {name: estimate.mean for name, estimate in ideal_reference(solver.system).items()}
    found = cost(solver, config, product_rate())
    lines = [
        "system",
        *(
            f"  {name} = {value}"
            for name, value in system_facts(solver.system, solver.cutoff).items()
        ),
    ]
    lines += [
        "  exact ideal gas, per electron: "
        + ", ".join(f"{name} {value:.10g}" for name, value in ideal.items())
    ]
    lines += [
        "cost",
        f"  parameters = {found['parameters_of_p']} of p(K), {found['parameters_of_flow']} of the flow",
        f"  samples = {found['samples']} in all",
        f"  memory = about {found['memory_mib']:.0f} MiB for the largest arrays, beside the program",
        f"  time = {_duration(found['seconds'])} on these devices, within a factor of two or so",
    ]
    print(text_files.as_toml(tables(config)))
    print("\n".join(f"# {line}" for line in lines))
    return 0, {
        "config": tables(config),
        "system": system_facts(solver.system, solver.cutoff),
        "ideal": ideal,
        "cost": found,
    }


def _write_config(config, path):
    if path.exists():
        raise ValueError(f"write_config is {path}: the file exists; give a new name")
    text_files.save_config(path, tables(config))
