"""What the commands have in common: how they begin, end, read a file and speak."""

import contextlib
import dataclasses
import io
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

from heg.config import suggestion
from heg.errors import ParallelError, RunError, StorageError
from heg.parallel import processes
from heg.runs import files, text_files


@dataclasses.dataclass(frozen=True)
class Common:
    """Flags of every command."""

    json: Annotated[bool, Parameter(negative="")] = False
    "print the result as JSON on standard output, all else on standard error"
    alone: Annotated[bool, Parameter(negative="")] = False
    "do not join the other processes of a launcher: each runs a job of its own"


CommonFlags = Annotated[Common, Parameter(name="*")]
BAD_INPUT, FAILED, CONTINUE = (
    2,
    1,
    75,
)  # exit codes; 0: done.  75 is sysexits' "temporary failure, try again"
EVERY = 60.0  # seconds between lines of progress in a log


def command(program: str, parse: Callable, act: Callable, arguments: list[str] | None) -> NoReturn:
    """Runs a command and leaves with its exit code; what the user can mend is one sentence on
    standard error.

    Args:
      program: its name.
      parse: arguments -> what they ask for, None where only help was asked for; called by one
        process.
      act: what was asked for -> exit code, and what --json is to print or None; called by all
        processes.
      arguments: none: those of this process.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    begin(program, alone="--alone" in arguments)
    output = sys.stdout
    try:
        speaks = "--json" in arguments and processes.is_first()
        with contextlib.redirect_stdout(sys.stderr) if speaks else contextlib.nullcontext():
            processes.agree(_by_place(arguments))
            asked = processes.on_first(parse, arguments)
            code, result = (0, None) if asked is None else act(asked)
        if "--json" in arguments and result is not None:
            print(text_files.as_json(result), file=output)
    except (ValueError, StorageError) as error:
        code = complain(error, BAD_INPUT, program)
    except (RunError, OSError) as error:
        code = complain(error, FAILED, program)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        of_memory = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
        if not of_memory or jax.process_count() > 1:
            raise  # the other processes do not know of it
        code = complain(
            MemoryError("the memory is not enough: lower batch, chunk or the sizes"),
            FAILED,
            program,
        )
    processes.end(code)


def begin(program: str, alone: bool = False) -> None:
    """Meets the other processes, unless this one is to work alone; one of them speaks for all."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what the locale has no letter for
    try:
        processes.start(alone)
    except ParallelError as error:
        sys.exit(complain(error, BAD_INPUT, program))
    if not processes.is_first():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")


def _by_place(arguments):
    """The words of a command line by name, and where they count from."""
    words = {
        f"argument {number + 1} (after {before})": word
        for number, (before, word) in enumerate(zip(["the command", *arguments], arguments))
    }
    return {"the working directory": os.getcwd(), "the number of arguments": len(arguments)} | words


def new_app(name: str, help: str) -> App:
    """A command line that returns what it means, and raises what is wrong with it."""
    return App(
        name,
        help=help,
        usage="",
        exit_on_error=False,
        print_error=False,
        result_action="return_value",
    )


def check_limit(max_seconds: float | None) -> None:
    """Refuses a time limit that no run can keep: a ValueError."""
    if max_seconds is not None and not max_seconds > 0:
        raise ValueError(f"max_seconds is {max_seconds}: it must be positive")


def run_app(
    app: App, arguments: list[str], schema: type | None = None, stored: str = "config.toml"
):
    """What an app makes of arguments; with a schema the first may be a TOML file of its tables.

    Without a file and with required flags left out, they are those of the directory of --run-dir:
    of its file `stored`.

    Raises:
      ValueError: they make no sense; one that travels between processes.
      StorageError: the file cannot be read.
    """
    file = None
    if schema and arguments and not arguments[0].startswith("-"):
        file, *arguments = arguments
    elif schema and _missing(app, arguments):
        file = _stored_in_run_dir(arguments, stored)
    flat = flatten(file, schema) if file else {}
    if file:
        app.config = (cyclopts.config.Dict(flat, source=file),)
    try:
        return app(arguments)
    except cyclopts.MissingArgumentError as error:
        raise ValueError(_left_out(app, arguments, flat, error)) from None
    except cyclopts.CycloptsError as error:
        raise ValueError(str(error)) from None


def _flags(arguments):
    """Flags in a command line, without their values."""
    return [word.partition("=")[0] for word in arguments if word.startswith("--")]


def _missing(app, arguments, flat=()):
    """Required flags that neither a command line nor a file has."""
    given = {*_flags(arguments), *(f"--{name}" for name in flat)}
    needed = [
        one
        for one in app.assemble_argument_collection()
        if one.required and one.name.startswith("--")
    ]
    return [one.name for one in needed if not given.intersection(one.names)]


def _stored_in_run_dir(arguments, name):
    """The file of that name in the directory of --run-dir; None if there is none."""
    for word, following in zip(arguments, [*arguments[1:], ""]):
        flag, _, value = word.partition("=")
        if flag == "--run-dir" and (path := Path(value or following) / name).is_file():
            return str(path)
    return None


def _left_out(app, arguments, flat, error):
    """What is wrong with a command line that lacks something: a flag that does not exist, or those
    that are missing."""
    collection = app.assemble_argument_collection()
    known = {name for one in collection for name in (*one.names, *one.negatives)}
    for word in _flags(arguments):
        if word not in known:
            token = cyclopts.Token(keyword=word, source="cli")
            return str(
                cyclopts.UnknownOptionError(
                    token=token, argument_collection=collection, verbose=False
                )
            )
    missing = _missing(app, arguments, flat)
    if not missing and error.keyword:  # a flag without its value
        return str(error)
    return f"missing {', '.join(missing or [error.argument.name])}: see {app.name[0]} --help"


def flatten(file: str, schema: type) -> dict:
    """Fields of a TOML file by flag name; its tables are the groups of a schema such as Config.

    Raises:
      ValueError: a table or a key is unknown.
      StorageError: the file cannot be read.
    """
    flat, groups = {}, {field.name: field.type for field in dataclasses.fields(schema)}
    for name, table in text_files.load_config(Path(file)).items():
        if name not in groups or not isinstance(table, dict):
            raise ValueError(f"{file} has no use for {name!r}: its tables are {', '.join(groups)}")
        known = [field.name for field in dataclasses.fields(groups[name])]
        for key, value in table.items():
            if key not in known:
                raise ValueError(f"{file}: [{name}] has no key {key!r}: {suggestion(key, known)}")
            flat[key.replace("_", "-")] = value
    return flat


def stop_signals(limit: float | None) -> Callable[[], bool]:
    """Has this process been asked to stop in order, or has the time limit (s) passed since now?"""
    start, signals = time.monotonic(), []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: signals.append(number))
    return lambda: bool(signals) or (limit is not None and time.monotonic() - start > limit)


def courtesy(draw: Callable):
    """What `draw` returns, its figures in matplotlib's own style; None, with a line that says why,
    if it fails.

    A figure is a courtesy: nothing that goes wrong with it may decide how a command ends.
    """
    os.environ["MPLBACKEND"] = "agg"  # figures go to files, whatever shows them elsewhere
    try:
        from matplotlib import style

        with style.context("default"):
            return draw()
    except ImportError:
        print("No figures: pip install matplotlib, then run the command again.")
    except Exception as error:
        print(f"No figures: {' '.join(str(error).split()) or type(error).__name__}")
    return None


def save_figure(figure, path: Path) -> Path:
    """Writes a figure as a PNG, atomically; the path."""
    files.replace(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))
    return path


def aligned(rows: list[list[str]]) -> str:
    """Lines of a table: each column as wide as its widest cell, two blanks between them, all but
    the first right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:])),
            ]
        )
        for row in rows
    )


def complain(error: Exception, code: int, program: str = "heg-solve") -> int:
    """One sentence on standard error; the exit code."""
    if processes.is_first():
        print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
    return code
