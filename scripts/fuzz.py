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
from pathlib import Path
from typing import Annotated

import cyclopts
import jax.numpy as jnp
import numpy as np
import tomli_w
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import heg
from heg.cli import common, eos, measure, solve
from heg.config import Config, from_tables
from heg.config import tables as tables_of
from heg.eos.grid import TableConfig
from heg.errors import StorageError
from heg.runs import text_files

LIMIT, PREPARING = 60, 600  # seconds for one input, and for what is damaged
OUTCOMES = {
    0: "done",
    common.FAILED: "failed",
    common.BAD_INPUT: "refused",
    common.CONTINUE: "stopped",
}
GAS = {"electrons": 2, "dim": 2, "rs": 2.0, "theta": 0.5}
SMALL = {
    "flow_layers": 1,
    "flow_width": 4,
    "transformer_layers": 0,
    "batch": 16,
    "steps": 4,
    "samples": 64,
}
GRID = {"dim": 2, "electrons": [2], "rs": [1.0, 2.0, 3.0], "theta": [0.5], "polarization": ["1"]}

text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
plausible = st.one_of(st.integers(1, 8), st.floats(0.1, 4.0))
scalars = st.one_of(
    *[plausible] * 6, st.integers(-3, 40), st.integers(), st.floats(), text, st.booleans()
)
values = st.one_of(
    scalars, st.lists(scalars, max_size=4), st.dictionaries(text, scalars, max_size=2)
)


def names(schema: type) -> list[tuple[str, str]]:
    """Tables and keys of a schema."""
    tables = dataclasses.fields(schema)
    return [
        (table.name, field.name) for table in tables for field in dataclasses.fields(table.type)
    ]


def near(name: str) -> st.SearchStrategy[str]:
    """A name, mostly as it is written."""
    return st.one_of(*[st.just(name)] * 8, st.just(name[:-1] or "x"), text)


@st.composite
def flags(draw) -> list[str]:
    """A command line of heg-solve with some flags changed."""
    asked = {name: str(value) for name, value in (GAS | SMALL).items()}
    changed = st.lists(st.tuples(st.sampled_from(names(Config)), scalars), max_size=4)
    for (_, name), value in draw(changed):
        asked[draw(near(name))] = str(value)
    words = [
        word for name, value in asked.items() for word in (f"--{name.replace('_', '-')}", value)
    ]
    return [*words, *draw(st.one_of(*[st.just([])] * 8, st.lists(text, max_size=1)))]


@st.composite
def tables(draw, schema: type, base: dict) -> dict:
    """Tables of a TOML file, some keys and values changed."""
    made = {table: dict(keys) for table, keys in base.items()}
    for (table, name), value in draw(
        st.lists(st.tuples(st.sampled_from(names(schema)), values), max_size=3)
    ):
        made.setdefault(draw(near(table)), {})[draw(near(name))] = value
    return made


@st.composite
def damage(draw, whole: bytes) -> bytes:
    """Bytes of a file, cut off, overwritten in places or replaced."""
    cut = draw(st.integers(0, len(whole)))
    places = draw(
        st.lists(st.tuples(st.integers(0, max(len(whole) - 1, 0)), st.integers(0, 255)), max_size=8)
    )
    changed = bytearray(whole)
    for place, byte in places if whole else ():
        changed[place] = byte
    return draw(
        st.sampled_from(
            [bytes(changed), whole[:cut], bytes(changed)[:cut], whole + whole[:cut], b""]
        )
    )


def outcome(command: Callable, arguments: list[str], limit: int = LIMIT) -> str:
    """What a command made of its arguments; it must be one of OUTCOMES with the words that belong
    to it.

    Raises:
      AssertionError: it is not.
    """
    out, err = io.StringIO(), io.StringIO()
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
    """Of every file but the locks."""
    files = [
        path
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.startswith("lock")
    ]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def refused_alike(arguments: list[str], run_dir: Path) -> str:
    """Outcome of a dry run; where that is refused, so is the run itself, before it has a
    directory."""
    result = outcome(solve.solve, [*arguments, "--dry-run"])
    if result == "refused":
        assert outcome(solve.solve, arguments) == "refused"
    assert not run_dir.exists(), "a directory was made"
    return result


def of_flags(place: Path) -> tuple:
    """heg-solve, its flags."""
    return flags(), lambda words: refused_alike(
        ["--run-dir", str(place / "a"), *words], place / "a"
    )


def of_files(place: Path) -> tuple:
    """heg-solve, its file."""
    flat = GAS | SMALL
    base = {table: {} for table, _ in names(Config)}
    for table, name in names(Config):
        base[table] |= {name: flat[name]} if name in flat else {}
    base["run"]["run_dir"] = str(place / "a")
    path = place / "run.toml"

    def judge(content):
        path.write_bytes(content if isinstance(content, bytes) else tomli_w.dumps(content).encode())
        return refused_alike([str(path)], place / "a")

    return st.one_of(tables(Config, base), damage(tomli_w.dumps(base).encode())), judge


def of_grids(place: Path) -> tuple:
    """heg-eos, its grid file."""
    path, run_dir = place / "grid.toml", place / "table"
    base = {"grid": GRID}

    def judge(content):
        path.write_bytes(content if isinstance(content, bytes) else tomli_w.dumps(content).encode())
        result = outcome(eos.table, [str(path), "--run-dir", str(run_dir), "--status"])
        assert not run_dir.exists(), "a question made a directory"
        return result

    return st.one_of(tables(TableConfig, base), damage(tomli_w.dumps(base).encode())), judge


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
    made = {".png", ".html"}  # written again by every command
    whole = {
        str(path.relative_to(kept)): path.read_bytes()
        for path in sorted(kept.rglob("*"))
        if path.is_file()
    }
    files = sorted(
        name
        for name in whole
        if not Path(name).name.startswith("lock") and Path(name).suffix not in made
    )

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

    return st.sampled_from(files).flatmap(
        lambda name: st.tuples(st.just(name), damage(whole[name]))
    ), judge


def finished_run(run_dir: Path) -> list[str]:
    """Makes one; the arguments of heg-solve that did."""
    words = [
        word
        for name, value in (GAS | SMALL).items()
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    arguments = [*words, "--run-dir", str(run_dir)]
    assert outcome(solve.solve, arguments, PREPARING) == "done"
    return arguments


def of_runs(place: Path) -> tuple:
    """heg-solve, a finished run with a damaged file."""
    run_dir = place / "run"
    answer = lambda run_dir: text_files.load_json(run_dir / "summary.json")["F"]
    return continued(solve.solve, finished_run(run_dir), run_dir, answer, {"config.toml"})


def of_measured(place: Path) -> tuple:
    """heg-measure, a finished measurement with a damaged file."""
    run_dir = place / "run"
    finished_run(run_dir)
    arguments = [str(run_dir), "--samples", "256"]
    assert outcome(measure.measure, arguments, PREPARING) == "done"
    answer = lambda run_dir: text_files.load_json(run_dir / "observables.json")["F"]
    return continued(measure.measure, arguments, run_dir, answer, {"config.toml"})


def of_surveys(place: Path) -> tuple:
    """heg-eos, a finished grid with a damaged file in the directory of the table or of a point."""
    path, run_dir = place / "grid.toml", place / "table"
    grid = {"grid": GRID | {"rs": [1.0, 2.0], "accuracy": 1.0, "steps": 30, "samples": 2048}}
    small = {name: SMALL[name] for name in ("flow_layers", "flow_width", "transformer_layers")}
    path.write_text(tomli_w.dumps(grid | {"model": small, "sampler": {"batch": 64}}))
    arguments = [str(path), "--run-dir", str(run_dir)]
    assert outcome(eos.table, arguments, PREPARING) in ("done", "failed")
    answer = lambda run_dir: (run_dir / "table.csv").read_text()
    return continued(
        eos.table, arguments, run_dir, answer, {"config.toml", "grid.toml", "point.json"}
    )


def of_measurements(place: Path) -> tuple:
    """heg-measure, its flags, where there is no run."""
    flag = st.tuples(
        st.sampled_from(["samples", "step", "beside", "max-seconds"]).flatmap(near), scalars
    )

    def judge(changed):
        words = [word for name, value in changed for word in (f"--{name}", str(value))]
        return outcome(measure.measure, [str(place / "nothing"), *words])

    return st.lists(flag, max_size=3), judge


def of_tables(place: Path) -> tuple:
    """load_table of a damaged file, and states outside of it."""
    source = Path(__file__).parents[1] / "docs" / "results" / "3d-polarised.h5"
    path, whole = place / "table.h5", source.read_bytes()

    def judge(asked):
        content, state = asked
        path.write_bytes(content)
        try:
            heg.load_table(path).free_energy(*state)
        except (ValueError, StorageError) as error:
            assert str(error) and "\n" not in str(error)
            return "refused"
        return "done"

    state = st.tuples(
        st.one_of(st.floats(), st.floats(0.5, 12.0)), plausible, st.sampled_from([1.0, 1.0, 0.0])
    )
    return st.tuples(st.one_of(st.just(whole), damage(whole)), state), judge


NUMERIC = (
    *(int, float, str, bool, complex, fractions.Fraction, decimal.Decimal, jnp.asarray, np.asarray),
    *(
        np.int8,
        np.uint16,
        np.int32,
        np.int64,
        np.float16,
        np.float32,
        np.float64,
        np.longdouble,
        np.bool_,
    ),
    *(
        lambda value: [value],
        lambda value: (value,),
        lambda value: None,
        lambda value: np.array([value]),
    ),
)


def as_types(value: float) -> list:
    """A number as the types that hold it."""
    found = []
    for kind in NUMERIC:
        with contextlib.suppress(ValueError, TypeError, OverflowError), np.errstate(all="ignore"):
            found.append(kind(value))
    return found


def numeric(near_value: float) -> st.SearchStrategy:
    """A number of any type, mostly one that serves."""
    number = st.one_of(*[st.just(near_value)] * 4, plausible, st.integers(-3, 40), st.floats())
    return number.flatmap(lambda value: st.sampled_from(as_types(value)))


def of_numbers(place: Path) -> tuple:
    """System and the configuration of a run from numbers of every type."""
    gas = {"n_up": 2, "n_down": 1, "dim": 2, "rs": 2.0, "theta": 0.5, "coupling": 1.0}
    settings = {"steps": 4, "samples": 64, "seed": 1, "max_seconds": 9.0}

    def judge(asked):
        try:
            system = heg.System(**{name: asked[name] for name in gas}, twist=asked["twist"])
            given = {"run_dir": place / "a"} | {name: asked[name] for name in settings}
            config = heg.Config(
                heg.SystemConfig(
                    asked["n_up"], asked["dim"], asked["rs"], asked["theta"], asked["polarization"]
                ),
                heg.RunConfig(**given),
            )
        except ValueError as error:
            assert str(error) and "\n" not in str(error)
            return "refused"
        # nothing is rounded, and everything can be written and read again
        for name in gas:
            assert getattr(system, name) == asked[name] and type(getattr(system, name)) in (
                int,
                float,
            )
        for name in settings:
            assert (
                isinstance(asked[name], numbers.Real)
                or asked[name] is None
                or np.ndim(asked[name]) == 0
            )
            assert getattr(config.run, name) == asked[name]
        text_files.save_config(place / "config.toml", tables_of(config))
        assert from_tables(text_files.load_tables(place / "config.toml")) == config
        return "done"

    base = gas | settings | {"polarization": 0, "twist": ()}
    twist = st.one_of(st.lists(numeric(0.25), min_size=1, max_size=3), numeric(0.25))
    change = st.sampled_from(sorted(base)).flatmap(
        lambda name: st.tuples(st.just(name), twist if name == "twist" else numeric(base[name]))
    )
    return st.lists(change, max_size=3).map(lambda changed: base | dict(changed)), judge


WORDS = ("", "0", "1", "2", "3", "foo", "True", "-1", "1.5", "rbg", "strict", "raise", "é")
VARIABLES = {
    **{
        f"{name}_{what}": WORDS[:8]
        for name in ("PMI", "OMPI_COMM_WORLD")
        for what in ("RANK", "LOCAL_RANK")
    },
    **{"SLURM_PROCID": WORDS[:8], "SLURM_NTASKS": WORDS[:8], "SLURM_STEP_NUM_TASKS": WORDS[:3]},
    **{"LC_ALL": ("C", "POSIX", "C.UTF-8", "de_DE.ISO-8859-1", "xx"), "PYTHONUTF8": ("0", "1")},
    **{
        "PYTHONCOERCECLOCALE": ("0",),
        "PYTHONIOENCODING": ("ascii", "latin-1", "utf-8", "ascii:strict"),
    },
    **{
        "MPLBACKEND": ("foo", "agg", "pdf", "module://nothing"),
        "MATPLOTLIBRC": ("/nowhere", "/dev/null"),
    },
    **{"JAX_DEFAULT_PRNG_IMPL": ("rbg", "unsafe_rbg"), "JAX_THREEFRY_PARTITIONABLE": ("0", "1")},
    **{
        "JAX_RANDOM_SEED_OFFSET": ("7",),
        "JAX_ENABLE_X64": ("0", "1"),
        "JAX_DEFAULT_DTYPE_BITS": ("32",),
    },
    **{"JAX_NUMPY_RANK_PROMOTION": ("raise",), "JAX_NUMPY_DTYPE_PROMOTION": ("strict",)},
    **{
        "JAX_DEBUG_NANS": ("1",),
        "JAX_DEFAULT_MATMUL_PRECISION": ("bfloat16",),
        "JAX_LOG_COMPILES": ("0",),
    },
    **{
        "COLUMNS": ("1", "20", "200"),
        "TERM": ("dumb", "xterm"),
        "NO_COLOR": ("1",),
        "HOME": ("/nowhere",),
    },
}


def of_environment(place: Path) -> tuple:
    """heg-solve in a process of its own, with variables that mean something to it or to what it
    rests on."""
    flags = (
        GAS
        | SMALL
        | {"transformer_layers": 0, "flow_layers": 0, "steps": 0, "samples": 16, "polarization": 1}
    )
    words = [
        word
        for name, value in flags.items()
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    code = "import sys; from heg.cli.solve import solve; solve(sys.argv[1:])"
    begin, expected = [sys.executable, "-c", code], []

    def energies(variables, extra=()):
        run_dir = place / "läuft"
        shutil.rmtree(run_dir, ignore_errors=True)
        done = subprocess.run(
            [*begin, *words, "--run-dir", str(run_dir), "--json", *extra],
            env={name: value for name, value in os.environ.items() if name not in VARIABLES}
            | variables,
            capture_output=True,
            timeout=PREPARING,
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
        assert done.returncode in (0, common.BAD_INPUT), done.returncode
        if done.returncode:
            assert done.stderr.strip() and not run_dir.exists()
            return None
        return json.loads(done.stdout)["F"]

    def judge(variables):
        expected[:] = expected or [energies({})]
        found = energies(variables)
        if found is None:
            return "refused"
        assert found == expected[0], "another result"
        return "done"

    names = st.lists(st.sampled_from(sorted(VARIABLES)), max_size=4, unique=True)
    choose = lambda names: st.fixed_dictionaries(
        {name: st.sampled_from(VARIABLES[name]) for name in names}
    )
    return names.flatmap(choose), judge


KINDS = {
    "numbers": of_numbers,
    "flags": of_flags,
    "files": of_files,
    "grids": of_grids,
    "runs": of_runs,
    "measured": of_measured,
    "surveys": of_surveys,
    "measurements": of_measurements,
    "tables": of_tables,
    "environment": of_environment,
}


def campaign(kind: str, count: int, seed_number: int = 0) -> Counter:
    """Outcomes of `count` inputs of a kind.

    Raises:
      AssertionError: one went wrong; hypothesis prints the smallest.
    """
    tally = Counter()
    with tempfile.TemporaryDirectory() as place:
        inputs, judge = KINDS[kind](Path(place))

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
