"""Bad input, by the thousand: each ends in success or in one sentence with a documented exit code.

    python scripts/fuzz.py --count 1000            # of each kind
    python scripts/fuzz.py --kinds flags files

`environment` starts a process for each input, with variables of launchers, JAX, matplotlib and
locales set: give it a smaller count.

A traceback, an exit code that is not documented, more than one sentence, a minute without an end,
or a refusal that changed a file stops the campaign with the smallest such input that was found.
"""

import contextlib
import dataclasses
import datetime
import decimal
import fractions
import hashlib
import io
import json
import numbers
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import cyclopts
import jax.numpy as jnp
import numpy as np
import tomli_w
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import heg
from heg.cli import common, doctor, eos, measure, solve
from heg.cli import list as list_runs
from heg.config import Config, from_tables
from heg.config import tables as tables_of
from heg.eos.grid import TableConfig
from heg.eos.table_files import SHIPPED
from heg.errors import StorageError
from heg.runs import text_files

LIMIT = 60  # seconds for one input
PREPARING = 600  # seconds to make what is damaged
OUTCOMES = {
    0: "done",
    common.FAILED: "failed",
    common.BAD_INPUT: "refused",
    common.CONTINUE: "stopped",
}
GAS = {"electrons": 2, "dim": 2, "rs": 2.0, "theta": 0.5}
WARM = {"electrons": 3, "dim": 3, "rs": 2.0, "temperature": "5 eV", "polarization": "1/3"}
PLASMA = {"electrons": 3, "dim": 3, "statistics": "classical", "gamma": 2.0}
SMALL = {
    "flow_layers": 1,
    "flow_width": 4,
    "transformer_layers": 0,
    "batch": 16,
    "steps": 4,
    "samples": 64,
}
GRID = {"dim": 2, "electrons": [2], "rs": [1.0, 2.0, 3.0], "theta": [0.5], "polarization": ["1"]}

# what people and programs type: odd numbers, quantities with units, ratios, names of files
ODD = (
    "nan inf -inf -0 1e400 1e308 5e-324 -1 1_0 0x10 ٣ ½ None True [1] 1,5 -- --steps .. /dev/null "
    "/dev/null/a ~ é 5eV 0.1Ry -3eV 1e400K 3/7 1/0 7/3 -1/2 1/3/5 0/0"
).split()
ODD += ["", " ", "a\nb", "60000 K", "5 miles", "nan eV", "0 Ha", "1 / 3", "x" * 5000]
text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
plausible = st.one_of(st.integers(1, 8), st.floats(0.1, 4.0))
odd = st.sampled_from(ODD)
scalars = st.one_of(
    *[plausible] * 6, st.integers(-3, 40), st.integers(), st.floats(), text, odd, st.booleans()
)
values = st.one_of(
    scalars,
    st.lists(scalars, max_size=4),
    st.dictionaries(text, scalars, max_size=2),
    st.sampled_from(["a\0b", datetime.date(1977, 5, 25)]),
)


def names(schema: type) -> list[tuple[str, str]]:
    """Tables and keys of a schema."""
    pairs = []
    for table in dataclasses.fields(schema):
        for field in dataclasses.fields(table.type):
            pairs.append((table.name, field.name))
    return pairs


def command_line(settings: dict) -> list[str]:
    """Flags of heg-solve from settings by name."""
    words = []
    for name, value in settings.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def near(name: str) -> st.SearchStrategy[str]:
    """A name, mostly as it is written."""
    return mostly(st.just(name), st.just(name[:-1] or "x"), text, times=30)


def mostly(usual: st.SearchStrategy, *others: st.SearchStrategy, times: int = 8):
    """One of several strategies, the first of them `times` as often as each other."""
    return st.one_of(*[usual] * times, *others)


def spelt(name: str, value: object) -> st.SearchStrategy[list[str]]:
    """A flag as it may be typed: mostly in two words, else in one, twice or without its value."""
    flag, word = command_line({name: value})
    mistakes = ([f"{flag}={word}"], [flag, word, flag, word], [flag])
    return mostly(st.just([flag, word]), *map(st.just, mistakes), times=60)


@st.composite
def flags(draw) -> list[str]:
    """A command line of heg-solve with some flags changed."""
    asked = draw(st.sampled_from([GAS, WARM, PLASMA])) | SMALL
    of_config = [name for _, name in names(Config)]
    change = st.tuples(st.sampled_from([*of_config, "temperature"]), scalars)
    for name, value in draw(st.lists(change, max_size=4)):
        asked[draw(near(name))] = value
    words = []
    for name, value in asked.items():
        words += draw(spelt(name, value))
    angles = st.one_of(st.floats(-0.5, 0.5), scalars)
    twist = st.lists(angles, max_size=4).map(lambda twist: ["--twist", *map(str, twist)])
    more = mostly(st.just([]), st.lists(text, max_size=1), twist, switches, times=4)
    return [*words, *draw(more)]


switches = st.sampled_from([["--json"], ["--alone"], ["--help"], ["--version"], ["--no-json"]])


@st.composite
def tables(draw, schema: type, base: dict) -> dict:
    """Tables of a TOML file, some keys and values changed."""
    made = {table: dict(keys) for table, keys in base.items()}
    change = st.tuples(st.sampled_from(names(schema)), values)
    for (table, name), value in draw(st.lists(change, max_size=3)):
        keys = made.setdefault(draw(near(table)), {})
        keys[draw(near(name))] = value
    return made


@st.composite
def damage(draw, whole: bytes) -> bytes:
    """Bytes of a file, cut off, overwritten in places or replaced."""
    cut = draw(st.integers(0, len(whole)))
    index = st.integers(0, max(len(whole) - 1, 0))
    overwritten = draw(st.lists(st.tuples(index, st.integers(0, 255)), max_size=8))
    changed = bytearray(whole)
    if whole:
        for index, byte in overwritten:
            changed[index] = byte
    kinds = [
        bytes(changed),
        whole[:cut],
        bytes(changed)[:cut],
        whole + whole[:cut],
        b"",
    ]
    return draw(st.sampled_from(kinds))


def outcome(command: Callable, arguments: list[str], limit: int = LIMIT) -> str:
    """The outcome of a command: one of OUTCOMES, with the words that belong to it.

    Raises:
      AssertionError: it is something else.
    """
    out = io.StringIO()
    err = io.StringIO()
    signal.signal(signal.SIGALRM, _too_late)
    signal.alarm(limit)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            command(arguments)
    except SystemExit as end:
        code = end.code or 0
    finally:
        signal.alarm(0)
    assert code in OUTCOMES, f"exit code {code}"
    sentence = err.getvalue()
    if code in (common.FAILED, common.BAD_INPUT):
        assert sentence.count("\n") == 1 and len(sentence) > 12, f"not one sentence: {sentence!r}"
    assert "Traceback" not in sentence
    return OUTCOMES[code]


def _too_late(number, frame):
    raise AssertionError("no end in time")


def digest(directory: Path) -> dict[str, str]:
    """Checksums of all files by path, without those of the locks."""
    digests = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and not path.name.startswith("lock"):
            digests[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def question(command: Callable, arguments: list[str], place: Path) -> str:
    """Outcome of a command line that computes nothing: it is answered or refused, and no file is
    made in `place`, which it is given in.
    """
    before = sorted(place.rglob("*"))
    with contextlib.chdir(place):
        result = outcome(command, arguments)
    assert result in ("done", "refused"), result
    assert sorted(place.rglob("*")) == before, "a question made a file"
    return result


def refused_alike(arguments: list[str], place: Path) -> str:
    """Outcome of a dry run; where that is refused, so is the run itself, before it has a
    directory."""
    result = question(solve.solve, [*arguments, "--dry-run"], place)
    if result == "refused":
        assert question(solve.solve, arguments, place) == "refused"
    return result


# Each kind of input is a function of an empty directory.  It gives a strategy of inputs, and a
# judge that returns the outcome of one.


def of_flags(place: Path) -> tuple:
    """heg-solve, its flags."""
    run_dir = place / "a"

    def judge(words):
        return refused_alike(["--run-dir", str(run_dir), *words], place)

    return flags(), judge


def of_files(place: Path) -> tuple:
    """heg-solve, its file."""
    run_dir = place / "a"
    path = place / "run.toml"
    flat = GAS | SMALL
    base = {table: {} for table, _ in names(Config)}
    for table, name in names(Config):
        if name in flat:
            base[table][name] = flat[name]
    base["run"]["run_dir"] = str(run_dir)

    def judge(content):
        write_toml(path, content)
        return refused_alike([str(path)], place)

    return st.one_of(tables(Config, base), damage(toml(base))), judge


def toml(content: dict) -> bytes:
    return tomli_w.dumps(content).encode()


def write_toml(path: Path, content: dict | bytes) -> None:
    """Writes tables as TOML, or bytes as they are."""
    path.write_bytes(content if isinstance(content, bytes) else toml(content))


def of_grids(place: Path) -> tuple:
    """heg-eos, its grid file and its flags."""
    path = place / "grid.toml"
    base = {"grid": GRID}

    def judge(asked):
        content, flags, action = asked
        write_toml(path, content)
        words = [str(path), "--run-dir", str(place / "table"), action]
        for name, value in flags:
            words += command_line({name: value})
        return question(eos.table, words, place)

    content = st.one_of(tables(TableConfig, base), damage(toml(base)))
    name = st.sampled_from([name for _, name in names(TableConfig)]).flatmap(near)
    flag = st.tuples(name, scalars)
    some = mostly(st.just([]), st.lists(flag, max_size=2), times=2)
    return st.tuples(content, some, st.sampled_from(["--status", "--dry-run"])), judge


def continued(
    command: Callable, arguments: list[str], run_dir: Path, answer: Callable, texts: set[str]
) -> tuple:
    """A finished directory with a damaged file, continued by the same command.

    Args:
      command, arguments: what finished it.
      run_dir: the directory.
      answer: reads the result from it.
      texts: names of files that give the result and have no checksum: damage may change it.
    """
    kept = run_dir.with_name("kept")
    shutil.copytree(run_dir, kept)
    undisturbed = answer(run_dir)
    whole = files_that_count(kept)

    def judge(damaged):
        name, content = damaged
        shutil.rmtree(run_dir)
        shutil.copytree(kept, run_dir)
        (run_dir / name).write_bytes(content)
        before = digest(run_dir)
        result = outcome(command, arguments)
        if result == "refused":
            assert digest(run_dir) == before, "a refusal changed a file"
        if result == "done" and Path(name).name not in texts:
            assert answer(run_dir) == undisturbed, "another result"
        return f"{name}: {result}"

    def choose(name):
        return st.tuples(st.just(name), damage(whole[name]))

    return st.sampled_from(sorted(whole)).flatmap(choose), judge


def files_that_count(directory: Path) -> dict[str, bytes]:
    """Contents of the files by relative path, without locks and what every command writes anew."""
    contents = {}
    for path in sorted(directory.rglob("*")):
        written_anew = path.suffix in (".png", ".html")
        if path.is_file() and not written_anew and not path.name.startswith("lock"):
            contents[str(path.relative_to(directory))] = path.read_bytes()
    return contents


def finished_run(run_dir: Path) -> list[str]:
    """Makes one; the arguments of heg-solve that did."""
    arguments = [*command_line(GAS | SMALL), "--run-dir", str(run_dir)]
    assert outcome(solve.solve, arguments, PREPARING) == "done"
    return arguments


def stored_f(run_dir: Path, name: str) -> dict:
    return text_files.load_json(run_dir / name)["F"]


def of_runs(place: Path) -> tuple:
    """heg-solve, a finished run with a damaged file."""
    run_dir = place / "run"
    arguments = finished_run(run_dir)
    answer = partial(stored_f, name="summary.json")
    return continued(solve.solve, arguments, run_dir, answer, {"config.toml"})


def of_measured(place: Path) -> tuple:
    """heg-measure, a finished measurement with a damaged file."""
    run_dir = place / "run"
    finished_run(run_dir)
    arguments = [str(run_dir), "--samples", "256"]
    assert outcome(measure.measure, arguments, PREPARING) == "done"
    answer = partial(stored_f, name="observables.json")
    return continued(measure.measure, arguments, run_dir, answer, {"config.toml"})


def of_surveys(place: Path) -> tuple:
    """heg-eos, a finished grid with a damaged file in the directory of the table or of a point."""
    path = place / "grid.toml"
    run_dir = place / "table"
    grid = {"grid": GRID | {"rs": [1.0, 2.0], "accuracy": 1.0, "steps": 30, "samples": 2048}}
    small = {name: SMALL[name] for name in ("flow_layers", "flow_width", "transformer_layers")}
    write_toml(path, grid | {"model": small, "sampler": {"batch": 64}})
    arguments = [str(path), "--run-dir", str(run_dir)]
    assert outcome(eos.table, arguments, PREPARING) in ("done", "failed")

    def answer(run_dir):
        return (run_dir / "table.csv").read_text()

    texts = {"config.toml", "grid.toml", "point.json"}
    return continued(eos.table, arguments, run_dir, answer, texts)


def of_measurements(place: Path) -> tuple:
    """heg-measure, its flags, where there is no run."""
    known = ["samples", "step", "beside", "max_seconds", "second_order_error", "output"]
    name = st.sampled_from(known).flatmap(near)
    flag = st.tuples(name, scalars).flatmap(lambda flag: spelt(*flag))

    def judge(asked):
        run_dir, flags, more = asked
        words = [run_dir, *sum(flags, []), *more]
        return question(measure.measure, words, place)

    more = mostly(st.just([]), switches, st.just(["--no-second-order"]))
    return st.tuples(mostly(st.just("nothing"), odd), st.lists(flag, max_size=3), more), judge


def of_lists(place: Path) -> tuple:
    """heg-list, its flags and a finished run with a damaged file; heg-doctor with odd words."""
    run_dir = place / "run"
    finished_run(run_dir)
    whole = files_that_count(run_dir)
    read = ("config.toml", "history.csv", "summary.json")

    def judge(asked):
        name, content, words = asked
        (run_dir / name).write_bytes(content)
        before = digest(place)
        result = question(list_runs.list_runs, words, place)
        assert digest(place) == before, "a question changed a file"
        # without a word that it does not know it would look at the machine
        question(doctor.doctor, ["--odd", *words], place)
        (run_dir / name).write_bytes(whole[name])
        return result

    def choose(name):
        return st.tuples(st.just(name), damage(whole[name]), words)

    words = st.tuples(
        mostly(st.just(["."]), st.just([]), odd.map(lambda word: [word])),
        mostly(st.just([]), switches, text.map(lambda word: [word]), times=4),
    ).map(lambda parts: sum(parts, []))
    return st.sampled_from(read).flatmap(choose), judge


def of_tables(place: Path) -> tuple:
    """load_table of a damaged file, and states outside of it."""
    source = SHIPPED / "3d-polarised.h5"
    path = place / "table.h5"
    whole = source.read_bytes()

    def judge(asked):
        content, state = asked
        path.write_bytes(content)
        try:
            heg.load_table(path).free_energy(*state)
        except (ValueError, StorageError) as error:
            assert str(error) and "\n" not in str(error)
            return "refused"
        return "done"

    rs = st.one_of(st.floats(), st.floats(0.5, 12.0))
    zeta = st.sampled_from([1.0, 1.0, 0.0])
    state = st.tuples(rs, plausible, zeta)
    return st.tuples(st.one_of(st.just(whole), damage(whole)), state), judge


NUMERIC = (
    int,
    float,
    str,
    bool,
    complex,
    fractions.Fraction,
    decimal.Decimal,
    jnp.asarray,
    np.asarray,
    np.int8,
    np.uint16,
    np.int32,
    np.int64,
    np.float16,
    np.float32,
    np.float64,
    np.longdouble,
    np.bool_,
    lambda value: [value],
    lambda value: (value,),
    lambda value: None,
    lambda value: np.array([value]),
)


def as_types(value: float) -> list:
    """A number as the types that hold it."""
    made = []
    for kind in NUMERIC:
        with contextlib.suppress(ValueError, TypeError, OverflowError), np.errstate(all="ignore"):
            made.append(kind(value))
    return made


def numeric(near_value: float) -> st.SearchStrategy:
    """A number of any type, mostly one that serves."""
    number = mostly(st.just(near_value), plausible, st.integers(-3, 40), st.floats(), times=4)
    return number.flatmap(lambda value: st.sampled_from(as_types(value)))


NUMBERS_OF_GAS = {"n_up": 2, "n_down": 1, "dim": 2, "rs": 2.0, "theta": 0.5, "coupling": 1.0}
NUMBERS_OF_RUN = {"steps": 4, "samples": 64, "seed": 1, "max_seconds": 9.0}


def of_numbers(place: Path) -> tuple:
    """System and the configuration of a run from numbers of every type."""

    def judge(asked):
        try:
            system = make_system(asked)
            config = make_config(asked, place / "a")
        except ValueError as error:
            assert str(error) and "\n" not in str(error)
            return "refused"
        check_unrounded(asked, system, config)
        file = place / "config.toml"
        text_files.save_config(file, tables_of(config))
        assert from_tables(text_files.load_tables(file)) == config
        return "done"

    base = NUMBERS_OF_GAS | NUMBERS_OF_RUN | {"polarization": 0, "twist": ()}
    twist = st.one_of(st.lists(numeric(0.25), min_size=1, max_size=3), numeric(0.25))

    def change(name):
        return st.tuples(st.just(name), twist if name == "twist" else numeric(base[name]))

    changes = st.lists(st.sampled_from(sorted(base)).flatmap(change), max_size=3)
    return changes.map(lambda changed: base | dict(changed)), judge


def make_system(asked):
    return heg.System(**{name: asked[name] for name in NUMBERS_OF_GAS}, twist=asked["twist"])


def make_config(asked, run_dir):
    gas = heg.SystemConfig(
        asked["n_up"],
        asked["dim"],
        asked["rs"],
        asked["theta"],
        asked["polarization"],
    )
    run = heg.RunConfig(run_dir=run_dir, **{name: asked[name] for name in NUMBERS_OF_RUN})
    return heg.Config(gas, run)


def check_unrounded(asked, system, config):
    """Numbers that are taken are taken as they are."""
    for name in NUMBERS_OF_GAS:
        value = getattr(system, name)
        assert value == asked[name]
        assert type(value) in (int, float)
    for name in NUMBERS_OF_RUN:
        value = asked[name]
        assert isinstance(value, numbers.Real) or value is None or np.ndim(value) == 0
        assert getattr(config.run, name) == value


WORDS = ("", "0", "1", "2", "3", "foo", "True", "-1", "1.5", "rbg", "strict", "raise", "é")
VARIABLES = {
    # launchers
    "PMI_RANK": WORDS[:8],
    "PMI_LOCAL_RANK": WORDS[:8],
    "OMPI_COMM_WORLD_RANK": WORDS[:8],
    "OMPI_COMM_WORLD_LOCAL_RANK": WORDS[:8],
    "SLURM_PROCID": WORDS[:8],
    "SLURM_NTASKS": WORDS[:8],
    "SLURM_STEP_NUM_TASKS": WORDS[:3],
    # locales
    "LC_ALL": ("C", "POSIX", "C.UTF-8", "de_DE.ISO-8859-1", "xx"),
    "PYTHONUTF8": ("0", "1"),
    "PYTHONCOERCECLOCALE": ("0",),
    "PYTHONIOENCODING": ("ascii", "latin-1", "utf-8", "ascii:strict"),
    # matplotlib
    "MPLBACKEND": ("foo", "agg", "pdf", "module://nothing"),
    "MATPLOTLIBRC": ("/nowhere", "/dev/null"),
    # JAX
    "JAX_DEFAULT_PRNG_IMPL": ("rbg", "unsafe_rbg"),
    "JAX_THREEFRY_PARTITIONABLE": ("0", "1"),
    "JAX_RANDOM_SEED_OFFSET": ("7",),
    "JAX_ENABLE_X64": ("0", "1"),
    "JAX_DEFAULT_DTYPE_BITS": ("32",),
    "JAX_NUMPY_RANK_PROMOTION": ("raise",),
    "JAX_NUMPY_DTYPE_PROMOTION": ("strict",),
    "JAX_DEBUG_NANS": ("1",),
    "JAX_DEFAULT_MATMUL_PRECISION": ("bfloat16",),
    "JAX_LOG_COMPILES": ("0",),
    # terminals
    "COLUMNS": ("1", "20", "200"),
    "TERM": ("dumb", "xterm"),
    "NO_COLOR": ("1",),
    "HOME": ("/nowhere",),
}


def of_environment(place: Path) -> tuple:
    """heg-solve in a process of its own, with variables that mean something to it or to what it
    rests on."""
    small = {"flow_layers": 0, "steps": 0, "samples": 16, "polarization": 1}
    run_dir = place / "läuft"
    code = "import sys; from heg.cli.solve import solve; solve(sys.argv[1:])"
    words = [*command_line(GAS | SMALL | small), "--run-dir", str(run_dir), "--json"]
    command = [sys.executable, "-c", code, *words]
    undisturbed = []

    def judge(variables):
        if not undisturbed:
            undisturbed.append(free_energy(command, run_dir, {}))
        result = free_energy(command, run_dir, variables)
        if result is None:
            return "refused"
        assert result == undisturbed[0], "another result"
        return "done"

    def choose(names):
        return st.fixed_dictionaries({name: st.sampled_from(VARIABLES[name]) for name in names})

    names = st.lists(st.sampled_from(sorted(VARIABLES)), max_size=4, unique=True)
    return names.flatmap(choose), judge


def free_energy(command: list[str], run_dir: Path, variables: dict[str, str]) -> dict | None:
    """F of a run with these variables, of a process that has no others of VARIABLES; None if it
    was refused."""
    shutil.rmtree(run_dir, ignore_errors=True)
    others = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        command,
        env=others | variables,
        capture_output=True,
        timeout=PREPARING,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
    assert done.returncode in (0, common.BAD_INPUT), done.returncode
    if done.returncode:
        assert done.stderr.strip() and not run_dir.exists()
        return None
    return json.loads(done.stdout)["F"]


KINDS = {
    "numbers": of_numbers,
    "flags": of_flags,
    "files": of_files,
    "grids": of_grids,
    "runs": of_runs,
    "measured": of_measured,
    "surveys": of_surveys,
    "measurements": of_measurements,
    "lists": of_lists,
    "tables": of_tables,
    "environment": of_environment,
}


def campaign(kind: str, count: int, seed_number: int = 0) -> Counter:
    """Outcomes of `count` inputs of a kind.

    Raises:
      AssertionError: one went wrong; hypothesis prints the smallest.
    """
    tally = Counter()
    with tempfile.TemporaryDirectory() as parent:
        # what leads out of the place leads to a directory of ours
        place = Path(parent) / "place"
        place.mkdir()
        inputs, judge = KINDS[kind](place)

        @seed(seed_number)
        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(inputs)
        def one(given_input):
            tally[judge(given_input)] += 1

        one()
    return tally


Many = Annotated[tuple[str, ...], cyclopts.Parameter(consume_multiple=True, negative="")]


def main(*, count: int = 1000, kinds: Many = tuple(KINDS), seed_number: int = 0) -> None:
    """Tries inputs.

    Args:
      count: of each kind.
      kinds: which.
      seed_number: of the campaign; another one has other inputs.
    """
    for kind in kinds:
        tally = campaign(kind, count, seed_number)
        outcomes = ", ".join(f"{name} {times}" for name, times in sorted(tally.items()))
        print(f"{kind}: {sum(tally.values())} inputs, {outcomes}", flush=True)


if __name__ == "__main__":
    cyclopts.run(main)
