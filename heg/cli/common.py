"""Beginning, end, input and output that all commands have in common."""

import contextlib
import dataclasses
import io
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO, cast

import cyclopts
import jax
from cyclopts import App, Parameter

from heg.config import suggestion
from heg.errors import ParallelError, RunError, StorageError
from heg.parallel import processes
from heg.runs import text_files

# exit codes; 0: done
FAILED = 1
BAD_INPUT = 2
CONTINUE = 75  # "temporary failure, try again" of sysexits.h
PROGRESS_SECONDS = 60.0  # between lines of progress in a log
UNITS_OF_TIME = (("days", 86400), ("hours", 3600), ("minutes", 60), ("seconds", 1))
NO_MEMORY = "the memory is not enough: lower batch, chunk or the sizes"


@dataclasses.dataclass(frozen=True)
class Common:
    """Flags of every command."""

    json: Annotated[bool, Parameter(negative="")] = False
    "print the result as JSON on standard output, all else on standard error"
    alone: Annotated[bool, Parameter(negative="")] = False
    "do not join the other processes of a launcher: each runs a job of its own"
    log: Path | None = None
    "add all that is printed, JSON apart, to the end of this file too"


CommonFlags = Annotated[Common, Parameter(name="*")]


def command(program: str, parse: Callable, act: Callable, arguments: list[str] | None) -> NoReturn:
    """Runs a command and leaves with its exit code.

    An error that the user can mend becomes one sentence on standard error.

    Args:
      program: its name.
      parse: arguments -> what they ask for, None where only help was asked for; called by one
        process.
      act: what was asked for -> exit code, and what --json is to print or None; called by all
        processes.
      arguments: none: those of this process.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    # the flag is looked for here: the command line is parsed only once the processes have met
    begin(program, alone="--alone" in arguments)
    streams = sys.stdout, sys.stderr  # which a log replaces
    code = _exit_code(program, parse, act, arguments)
    # after a failure of the program itself they stay: its traceback belongs in the log
    sys.stdout, sys.stderr = streams
    processes.end(code)


def _exit_code(program, parse, act, arguments):
    """Does what is asked for; what goes wrong becomes a sentence and an exit code."""
    try:
        return _answer(program, parse, act, arguments)
    except (ValueError, StorageError) as error:
        return complain(error, BAD_INPUT, program)
    except (RunError, OSError) as error:
        return complain(error, FAILED, program)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not _is_lack_of_memory(error) or jax.process_count() > 1:
            raise  # the other processes do not know of it
        return complain(MemoryError(NO_MEMORY), FAILED, program)


def _answer(program, parse, act, arguments):
    """Does what is asked for, and prints the result if that is wanted; the exit code."""
    as_json = "--json" in arguments
    output = sys.stdout  # kept, as all else that is printed goes to standard error
    with _standard_output(to_errors=as_json and processes.is_first()), _sentences_printed():
        # processes with different commands would wait for each other for ever
        processes.agree(_words_by_position(arguments))
        # the flag is looked for here, so that a log has the complaints about other flags too
        if log := _value_of("--log", arguments):
            processes.on_first(_begin_log, Path(log), [program, *arguments])
        # parsing reads files, which belong to the first process
        asked = processes.on_first(parse, arguments)
        if asked is None:
            return 0
        code, result = act(asked)
    if as_json and result is not None:
        print(text_files.as_json(result), file=output)
    return code


def _value_of(flag, arguments):
    """The word after a flag, written as one word, --flag=WORD, or as two; None without it."""
    for word, following in zip(arguments, [*arguments[1:], None]):
        # --flag=value or --flag value
        name, is_one_word, value = word.partition("=")
        if name == flag:
            return value if is_one_word else following
    return None


def _begin_log(path, words):
    """Sends all that is printed to the end of a file too, after a line with time and command."""
    try:
        # by lines: what was printed is in the file whatever happens
        file = open(path, "a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise ValueError(f"log is {path}: it cannot be written, {error.strerror}") from None
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    file.write(f"# {now}  {shlex.join(words)}\n")
    sys.stdout = cast(TextIO, Copied(sys.stdout, file))
    sys.stderr = cast(TextIO, Copied(sys.stderr, file))


class Copied(io.TextIOBase):
    """A stream whose text goes to a file too.

    It is no terminal: lines that are written over each other have no place in a file.
    """

    def __init__(self, stream: TextIO, file: TextIO):
        self.stream = stream
        self.file = file

    def write(self, text: str) -> int:
        """Writes to both; the number of characters."""
        self.stream.write(text)
        return self.file.write(text)

    def flush(self) -> None:
        """Nothing stays behind in either."""
        self.stream.flush()
        self.file.flush()


def _standard_output(to_errors):
    """Standard output, or standard error in its place."""
    return contextlib.redirect_stdout(sys.stderr) if to_errors else contextlib.nullcontext()


class _Printer(logging.Handler):
    """Prints each sentence of a log now, even if standard output is a file."""

    def emit(self, record):
        print(self.format(record), flush=True)


@contextlib.contextmanager
def _sentences_printed() -> Iterator[None]:
    """What the package logs is printed, as the bare sentence."""
    log = logging.getLogger("heg")
    printer = _Printer()
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(printer)
    try:
        yield
    finally:
        log.removeHandler(printer)
        log.setLevel(level)


def _is_lack_of_memory(error):
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def begin(program: str, alone: bool = False) -> None:
    """Meets the other processes, unless this one is to work alone; one of them speaks for all."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # the locale may lack letters such as Greek ones: they are printed as codes
            stream.reconfigure(errors="backslashreplace")
    try:
        processes.start(alone)
    except ParallelError as error:
        sys.exit(complain(error, BAD_INPUT, program))
    if not processes.is_first():
        # for the rest of the process: libraries print, too
        sys.stdout = open(os.devnull, "w", encoding="utf-8")


def _words_by_position(arguments):
    """The words of a command line by position, and the directory in which they were given."""
    # what must be the same for all processes of a job
    words = {
        "the working directory": os.getcwd(),
        "the number of arguments": len(arguments),
    }
    before = "the command"
    for number, word in enumerate(arguments, start=1):
        words[f"argument {number} (after {before})"] = word
        before = word
    return words


def new_app(name: str, help: str) -> App:
    """A command line that returns what it means, and raises what is wrong with it."""
    app = App(
        name,
        help=help,
        usage="",
        exit_on_error=False,
        print_error=False,
        result_action="return_value",
    )
    app.register_install_completion_command(help="complete flags with Tab in this shell")
    return app


def check_limit(max_seconds: float | None) -> None:
    """Refuses a time limit that no run can keep.

    Raises:
      ValueError: it is not positive.
    """
    if max_seconds is not None and not max_seconds > 0:
        raise ValueError(f"max_seconds is {max_seconds}: it must be positive")


def run_app(
    app: App, arguments: list[str], schema: type | None = None, stored: str = "config.toml"
):
    """The value that an app returns for arguments.

    With a schema the first argument may be a TOML file of its tables. Where there is no file and
    required flags are left out, the settings are those in the directory of --run-dir.

    Args:
      app: of the command.
      arguments: words of the command line.
      schema: a dataclass of tables, such as Config; none: no file is read.
      stored: name of the file of settings in a run directory.
    Raises:
      ValueError: they make no sense; one that travels between processes.
      StorageError: the file cannot be read.
    """
    settings: dict[str, object] = {}
    if schema is not None:
        file, arguments = _file_and_flags(app, arguments, stored)
        if file:
            settings = flatten(file, schema)
            app.config = (cyclopts.config.Dict(settings, source=file),)
    try:
        return app(arguments)
    except cyclopts.MissingArgumentError as error:
        raise ValueError(_left_out(app, arguments, settings, error)) from None
    except cyclopts.CycloptsError as error:
        # its own classes do not survive the way to another process
        raise ValueError(str(error)) from None


def _file_and_flags(app, arguments, stored):
    """The file of settings, None without one, and the arguments after it."""
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], arguments[1:]
    if _missing(app, arguments):
        return _stored_in_run_dir(arguments, stored), arguments
    return None, arguments


def _flags(arguments):
    """Flags in a command line, without their values."""
    return [word.partition("=")[0] for word in arguments if word.startswith("--")]


def _missing(app, arguments, settings: Iterable[str] = ()):
    """Required flags that neither a command line nor a file has."""
    given = {*_flags(arguments), *(f"--{name}" for name in settings)}
    missing = []
    for one in app.assemble_argument_collection():
        # flags alone: arguments by position are missed by the parser itself
        needed = one.required and one.name.startswith("--")
        if needed and not given.intersection(one.names):
            missing.append(one.name)
    return missing


def _stored_in_run_dir(arguments, name):
    """The file of that name in the directory of --run-dir; None if there is none."""
    run_dir = _value_of("--run-dir", arguments)
    if run_dir is None:
        return None
    path = Path(run_dir) / name
    return str(path) if path.is_file() else None


def _left_out(app, arguments, settings, error):
    """The sentence on a command line that lacks something.

    A flag that does not exist comes first: it may be a misspelt one of those that are missing.
    """
    unknown = _unknown_flag(app, arguments)
    if unknown:
        return unknown
    missing = _missing(app, arguments, settings)
    if not missing and error.keyword:  # a flag without its value
        return str(error)
    names = ", ".join(missing or [error.argument.name])
    return f"missing {names}: see {app.name[0]} --help"


def _unknown_flag(app, arguments):
    """The sentence on the first flag that does not exist; None if all do."""
    collection = app.assemble_argument_collection()
    known = {name for one in collection for name in (*one.names, *one.negatives)}
    for word in _flags(arguments):
        if word not in known:
            token = cyclopts.Token(keyword=word, source="cli")
            return str(
                cyclopts.UnknownOptionError(
                    token=token,
                    argument_collection=collection,
                    verbose=False,
                )
            )
    return None


def flatten(file: str, schema: type) -> dict[str, object]:
    """Fields of a TOML file by flag name; its tables are the groups of a schema such as Config.

    Raises:
      ValueError: a table or a key is unknown.
      StorageError: the file cannot be read.
    """
    groups: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(schema)}
    stored = text_files.load_config(Path(file))
    flat = {}
    for name, table in stored.items():
        if name not in groups or not isinstance(table, dict):
            raise ValueError(f"{file} has no use for {name!r}: its tables are {', '.join(groups)}")
        _check_keys(file, name, table, groups[name])
        for key, value in table.items():
            flag = key.replace("_", "-")
            flat[flag] = value
    return flat


def _check_keys(file, name, table: Mapping, group):
    """Refuses a table with a key that is no field of its group."""
    known = [field.name for field in dataclasses.fields(group)]
    for key in table:
        if key not in known:
            raise ValueError(f"{file}: [{name}] has no key {key!r}: {suggestion(key, known)}")


def stop_signals(limit: float | None) -> Callable[[], bool]:
    """Watches for the signals that ask a command to stop in order, and for the end of its time.

    Args:
      limit: seconds from now; none: no limit.
    Returns:
      Has this process been asked to stop, or has the time passed?
    """
    start = time.monotonic()
    received = []

    # the handler does nothing else: the step or the file being written is finished first
    def remember(number, frame):
        received.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, remember)

    def must_stop():
        out_of_time = limit is not None and time.monotonic() - start > limit
        return bool(received) or out_of_time

    return must_stop


class Interval:
    """Lines of progress in a log: at least PROGRESS_SECONDS between them."""

    def __init__(self):
        self.last = -PROGRESS_SECONDS

    def is_over(self, at_once: bool = False) -> bool:
        """Is it time for the next line?  Always, `at_once`; a new interval begins then."""
        now = time.monotonic()
        if not at_once and now - self.last < PROGRESS_SECONDS:
            return False
        self.last = now
        return True


def duration(seconds: float) -> str:
    """A time that is known within a factor of two or so, in words."""
    name, unit = _largest_unit(seconds)
    digits = f"{seconds / unit:.2g}" if seconds < 99.5 * unit else f"{seconds / unit:.0f}"
    return f"about {digits} {name}"


def _largest_unit(seconds):
    """Name and length of the unit in which a time is two or more; seconds for the shortest."""
    for name, unit in UNITS_OF_TIME:
        if seconds >= 2 * unit:
            return name, unit
    return UNITS_OF_TIME[-1]


def courtesy(draw: Callable):
    """The result of `draw`, its figures in matplotlib's own style; None if it fails.

    A figure is a courtesy: nothing that goes wrong with it may decide how a command ends.  A line
    says why there is none.
    """
    os.environ["MPLBACKEND"] = "agg"  # figures go to files, whatever shows them elsewhere
    try:
        from matplotlib import style

        with style.context("default"):
            return draw()
    except ImportError:
        print("No figures: pip install matplotlib, then run the command again.")
    except Exception as error:
        print(f"No figures: {_in_one_line(error) or type(error).__name__}")
    return None


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Lines of a table whose columns are as wide as their widest cells.

    Two blanks stand between the columns; all but the first are flush right.
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:])]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)


def complain(error: Exception, code: int, program: str) -> int:
    """Prints one sentence on standard error; the exit code."""
    if processes.is_first():
        print(f"{program}: {_in_one_line(error)}", file=sys.stderr)
    return code


def _in_one_line(error):
    return " ".join(str(error).split())
