"""The command line.  What a person types and sees; nothing is computed here."""

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import cyclopts
import jax
from cyclopts import App, Parameter

from heg import doctor as examination
from heg import figures, parallel, records, storage
from heg.config import Config, ModelConfig, OptimizerConfig, RunConfig, SamplerConfig, SystemConfig, suggestion, tables
from heg.run import HISTORY, RunError
from heg.run import solve as solve_run
from heg.statistics import Estimate
from heg.summary import ideal_reference, system_facts
from heg.training import build

BAD_INPUT, FAILED, CONTINUE = 2, 1, 75  # exit codes; 0: done.  75 is sysexits' "temporary failure, try again"
EVERY = 20.0  # seconds between lines of progress in a log

HELP = """Variational free energy of the uniform electron gas at finite temperature.

Usage: heg-solve [FILE.toml] [FLAGS].  A file has the tables [system] [model] [sampler] [optimizer] [run] with the
names of the flags; flags win.  The same command again continues the run.  Energies are in hartree per electron.
Exit codes: 0 done, 1 failed, 2 bad input, 75 stopped in order: run the same command again.
"""
DOCTOR = "What a run would find here: software, processes, devices, speed, known trouble.  Also under mpirun."
NOTES = {
    "F": "free energy, Ha",
    "E": "energy, Ha",
    "kinetic": "kinetic, Ha",
    "potential": "potential, Ha",
    "S": "entropy, k_B",
}


def _app() -> App:
    app = App(
        name="heg-solve", help=HELP, usage="", exit_on_error=False, print_error=False, result_action="return_value"
    )
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
            bool, Parameter(help="print the resolved configuration and the cost, compute nothing", negative="")
        ] = False,
    ):
        return Config(system, run, model, sampler, optimizer), dry_run

    return app


def parse(arguments: list[str]) -> tuple[Config, bool] | None:
    """Configuration meant by a command line, and whether it is a dry run; None when only help was asked for.

    Raises:
      ValueError, StorageError: with one sentence for the user.
    """
    app = _app()
    if arguments and not arguments[0].startswith("-"):
        file, *arguments = arguments
        app.config = (cyclopts.config.Dict(flatten(file), source=file),)
    try:
        return app(arguments)
    except cyclopts.CycloptsError as error:
        raise ValueError(str(error)) from None  # one that travels between processes


def begin(program: str) -> None:
    """Meets the other processes; one of them speaks for all."""
    try:
        parallel.start()
    except parallel.ParallelError as error:
        sys.exit(complain(error, BAD_INPUT, program))
    if not parallel.launched_first():
        sys.stdout = open(os.devnull, "w")


def doctor(arguments: list[str] | None = None) -> None:
    """heg-doctor: what a run would find here."""
    app = App(name="heg-doctor", help=DOCTOR, usage="", result_action="return_value")

    @app.default
    def examine():
        begin("heg-doctor")
        sys.exit(_examine())

    app(sys.argv[1:] if arguments is None else arguments)


def _examine():
    found, places = examination.versions(), parallel.gathered(examination.place())
    print("software    " + ", ".join(f"{name} {version}" for name, version in found.items()))
    print(f"launcher    {parallel.launcher()}")
    for place in places:
        where = f"process {place.process} on {place.host}, {place.cores} cores, memory in GiB: {place.memory}"
        print(f"rank {place.rank:<7}{where}; devices {' '.join(place.devices)}")
    flops = 2 * examination.SIZE**3 / examination.seconds_of_product()
    print(f"speed       {flops / 1e9:.1f} GFlop/s in double precision, one product of matrices on one device")
    seconds = examination.seconds_of_collective()
    print(f"collective  1 MiB from each of {jax.device_count()} devices to all: {1e3 * seconds:.2f} ms")
    print(f"small step  {examination.seconds_of_step():.3f} s: 64 samples of 7 electrons in 3D, default model")
    of_all = parallel.gathered(examination.findings(found, os.environ, len(places)))
    findings = dict.fromkeys(finding for of_one in of_all for finding in of_one)
    for finding in findings:
        print(f"Trouble: {finding.what}. Remedy: {finding.remedy}.")
    print("Trouble was found." if findings else "No known trouble.")
    return FAILED if findings else 0


def command(program: str, parse: Callable, act: Callable, arguments: list[str] | None) -> NoReturn:
    """Runs a command and leaves with its exit code; what the user can mend is one sentence on standard error.

    Args:
      program: its name.
      parse: arguments -> what they ask for, None where only help was asked for; called by one process.
      act: what was asked for -> exit code; called by all processes.
      arguments: none: those of this process.
    """
    begin(program)
    try:
        asked = parallel.on_first(parse, sys.argv[1:] if arguments is None else arguments)
        code = 0 if asked is None else act(asked)
    except (ValueError, storage.StorageError) as error:
        code = complain(error, BAD_INPUT, program)
    except (RunError, OSError) as error:
        code = complain(error, FAILED, program)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        code = complain(MemoryError("the memory is not enough: lower --batch, --chunk or the sizes"), FAILED, program)
    parallel.end(code)


def solve(arguments: list[str] | None = None) -> NoReturn:
    """heg-solve: from r_s and temperature to a free energy with an error bar."""
    command("heg-solve", parse, lambda asked: _dry_run(asked[0]) if asked[1] else _run(asked[0]), arguments)


def flatten(file: str, schema: type = Config) -> dict:
    """Fields of a TOML file by flag name; its tables are the groups of a schema such as Config.

    Raises:
      ValueError: a table or a key is unknown.
      StorageError: the file cannot be read.
    """
    flat, groups = {}, {field.name: field.type for field in dataclasses.fields(schema)}
    for name, table in records.load_config(Path(file)).items():
        if name not in groups or not isinstance(table, dict):
            raise ValueError(f"{file} has no use for {name!r}: its tables are {', '.join(groups)}")
        known = [field.name for field in dataclasses.fields(groups[name])]
        for key, value in table.items():
            if key not in known:
                raise ValueError(f"{file}: [{name}] has no key {key!r}: {suggestion(key, known)}")
            flat[key.replace("_", "-")] = value
    return flat


class _Progress:
    """A line of progress: on a terminal the same line at every step, in a log a new one now and then."""

    def __init__(self, steps):
        self.steps, self.terminal = steps, sys.stdout.isatty()
        self.begin = None  # step and time from which the time left is judged: after the first step, which compiles
        self.printed = -EVERY

    def __call__(self, step, info):
        now = time.monotonic()
        self.begin = self.begin or (step, now)
        last = step == self.steps
        if not self.terminal and not last and now - self.printed < EVERY:
            return
        self.printed = now
        seconds = (now - self.begin[1]) / max(step - self.begin[0], 1) * (self.steps - step)
        free_energy, entropy = (Estimate(*map(float, info.estimates[name])) for name in "FS")
        line = f"step {step}/{self.steps}  F/N {free_energy} Ha  S/N {entropy} k_B  min_det {info.min_det:.2g}"
        line += f"  {time.strftime('%H:%M:%S', time.gmtime(seconds))} left" if step > self.begin[0] else ""
        print(f"\r\033[K{line}" if self.terminal else line, end="" if self.terminal and not last else "\n", flush=True)


def stop_signals(limit: float | None) -> Callable[[], bool]:
    """Has this process been asked to stop in order, or has the time limit (s) passed since now?"""
    start, signals = time.monotonic(), []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: signals.append(number))
    return lambda: bool(signals) or (limit is not None and time.monotonic() - start > limit)


def _run(config):
    say = lambda sentence: print(sentence, flush=True)
    summary = solve_run(config, say, _Progress(config.run.steps), stop_signals(config.run.max_seconds))
    if not summary:
        say(f"Stopped in order; the same command continues the run in {config.run.run_dir}.")
        return CONTINUE
    _print_summary(summary)
    if parallel.is_first():
        _draw(config, summary)
    return 0


def _print_summary(summary):
    facts = summary["system"]
    print(
        f"\n{facts['n_up']} up + {facts['n_down']} down electrons, {facts['dim']}D, r_s {facts['rs_bohr']:g} bohr, "
        f"Theta {facts['theta']:g}: T {facts['temperature_ha']:.6g} Ha, E_F {facts['fermi_energy_ha']:.6g} Ha"
    )
    print(f"{'per electron':18}{'result':>20}{'at the start':>20}{'ideal gas':>16}")
    for name, label in NOTES.items():
        result, before = (Estimate(**part[name]) for part in (summary, summary["initial"]))
        print(f"{label:18}{str(result):>20}{str(before):>20}{summary['ideal'][name]['mean']:16.6f}")
    quality = summary["quality"]
    print(
        f"{summary['steps']} steps, {summary['samples']} samples, {summary['seconds']:.0f} s;  variance of E_loc "
        f"{quality['E_variance_cell_ha2']:.3g} Ha^2, largest deviation {quality['largest_deviation_sigma']:.1f} sigma, "
        f"min_det {quality['min_det']:.2g}, "
        f"folded measure {Estimate(**quality['folded_measure'])}, redrawn {quality['redrawn']}"
    )
    if quality["min_det"] <= 0:
        print("Warning: det J <= 0 was found; the bound holds up to the measure lost there (docs/theory.md).")


def _draw(config, summary):
    run_dir = Path(config.run.run_dir)
    history = records.read_history(run_dir / HISTORY)
    if not history:
        return
    try:
        figure = figures.training_curve(records.columns(history), Estimate(**summary["ideal"]["S"]))
    except ImportError:
        print("No figure: matplotlib is not installed; pip install 'heg[plot]' brings it.")
    else:
        print(f"Training curve: {save_figure(figure, run_dir / 'training.png')}")


def save_figure(figure, path: Path) -> Path:
    """Writes a figure as a PNG; the path."""
    figure.savefig(path, dpi=150)
    return path


def _dry_run(config):
    solver = build(config)
    for name, table in tables(config).items():
        print(f"[{name}]")
        for field, value in table.items():
            print(f"  {field} = {value}")
    print("\nsystem")
    for name, value in system_facts(solver).items():
        print(f"  {name} = {value}")
    print(
        "  exact ideal gas, per electron: "
        + ", ".join(f"{k} {v.mean:.10g}" for k, v in ideal_reference(solver.system).items())
    )
    blocks = [jax.eval_shape(part.init, jax.random.key(0)) for part in (solver.model.occupations, solver.model.flow)]
    counts = [sum(leaf.size for leaf in jax.tree.leaves(block)) for block in blocks]
    rows, total = config.sampler.batch, config.run.steps * config.sampler.batch + 2 * config.run.samples
    print("cost")
    print(f"  parameters = {counts[0]} of p(K), {counts[1]} of the flow")
    print(f"  samples = {total} in all")
    print(f"  scores = {8 * rows * (counts[0] + 2 * counts[1]) / 2**20:.1f} MiB")
    return 0


def complain(error: Exception, code: int, program: str = "heg-solve") -> int:
    """One sentence on standard error; the exit code."""
    if parallel.launched_first():
        print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
    return code
