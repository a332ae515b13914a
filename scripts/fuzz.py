"""Bad input, by the thousand: each ends in success or in one sentence with a documented exit code.

    python scripts/fuzz.py --count 1000            # of each kind
    python scripts/fuzz.py --kinds flags files

A traceback, an exit code that is not documented, more than one sentence, a minute without an end, or a refusal that
changed a file stops the campaign with the smallest such input that was found.
"""

import contextlib
import dataclasses
import hashlib
import io
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import cyclopts
import tomli_w
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import heg
from heg import cli, cli_eos, cli_measure, cli_solve, records, storage
from heg.config import Config
from heg.grid import TableConfig

LIMIT, PREPARING = 60, 600  # seconds for one input, and for what is damaged
OUTCOMES = {0: "done", cli.FAILED: "failed", cli.BAD_INPUT: "refused", cli.CONTINUE: "stopped"}
GAS = {"electrons": 2, "dim": 2, "rs": 2.0, "theta": 0.5}
SMALL = {"flow_layers": 1, "flow_width": 4, "transformer_layers": 0, "batch": 16, "steps": 4, "samples": 64}
GRID = {"dim": 2, "electrons": [2], "rs": [1.0, 2.0, 3.0], "theta": [0.5], "polarization": ["1"]}

text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
plausible = st.one_of(st.integers(1, 8), st.floats(0.1, 4.0))
scalars = st.one_of(*[plausible] * 6, st.integers(-3, 40), st.integers(), st.floats(), text, st.booleans())
values = st.one_of(scalars, st.lists(scalars, max_size=4), st.dictionaries(text, scalars, max_size=2))


def names(schema: type) -> list[tuple[str, str]]:
    """Tables and keys of a schema."""
    tables = dataclasses.fields(schema)
    return [(table.name, field.name) for table in tables for field in dataclasses.fields(table.type)]


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
    words = [word for name, value in asked.items() for word in (f"--{name.replace('_', '-')}", value)]
    return [*words, *draw(st.one_of(*[st.just([])] * 8, st.lists(text, max_size=1)))]


@st.composite
def tables(draw, schema: type, base: dict) -> dict:
    """Tables of a TOML file, some keys and values changed."""
    made = {table: dict(keys) for table, keys in base.items()}
    for (table, name), value in draw(st.lists(st.tuples(st.sampled_from(names(schema)), values), max_size=3)):
        made.setdefault(draw(near(table)), {})[draw(near(name))] = value
    return made


@st.composite
def damage(draw, whole: bytes) -> bytes:
    """Bytes of a file, cut off, overwritten in places or replaced."""
    cut = draw(st.integers(0, len(whole)))
    places = draw(st.lists(st.tuples(st.integers(0, max(len(whole) - 1, 0)), st.integers(0, 255)), max_size=8))
    changed = bytearray(whole)
    for place, byte in places if whole else ():
        changed[place] = byte
    return draw(st.sampled_from([bytes(changed), whole[:cut], bytes(changed)[:cut], whole + whole[:cut], b""]))


def outcome(command: Callable, arguments: list[str], limit: int = LIMIT) -> str:
    """What a command made of its arguments; it must be one of OUTCOMES with the words that belong to it.

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
    if code in (cli.FAILED, cli.BAD_INPUT):
        assert sentence.count("\n") == 1 and len(sentence) > 12, f"not one sentence: {sentence!r}"
    assert "Traceback" not in sentence
    return OUTCOMES[code]


def _too_late(number, frame):
    raise AssertionError("no end in time")


def digest(directory: Path) -> dict[str, str]:
    """Of every file but the locks."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file() and not path.name.startswith("lock")]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def refused_alike(arguments: list[str], run_dir: Path) -> str:
    """Outcome of a dry run; where that is refused, so is the run itself, before it has a directory."""
    result = outcome(cli_solve.solve, [*arguments, "--dry-run"])
    if result == "refused":
        assert outcome(cli_solve.solve, arguments) == "refused"
    assert not run_dir.exists(), "a directory was made"
    return result


def of_flags(place: Path) -> tuple:
    """heg-solve, its flags."""
    return flags(), lambda words: refused_alike(["--run-dir", str(place / "a"), *words], place / "a")


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
        result = outcome(cli_eos.table, [str(path), "--run-dir", str(run_dir), "--status"])
        assert not run_dir.exists(), "a question made a directory"
        return result

    return st.one_of(tables(TableConfig, base), damage(tomli_w.dumps(base).encode())), judge


def continued(command: Callable, arguments: list[str], run_dir: Path, answer: Callable, texts: set[str]) -> tuple:
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
    whole = {str(path.relative_to(kept)): path.read_bytes() for path in sorted(kept.rglob("*")) if path.is_file()}
    files = sorted(name for name in whole if not Path(name).name.startswith("lock") and Path(name).suffix not in made)

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

    return st.sampled_from(files).flatmap(lambda name: st.tuples(st.just(name), damage(whole[name]))), judge


def finished_run(run_dir: Path) -> list[str]:
    """Makes one; the arguments of heg-solve that did."""
    words = [word for name, value in (GAS | SMALL).items() for word in (f"--{name.replace('_', '-')}", str(value))]
    arguments = [*words, "--run-dir", str(run_dir)]
    assert outcome(cli_solve.solve, arguments, PREPARING) == "done"
    return arguments


def of_runs(place: Path) -> tuple:
    """heg-solve, a finished run with a damaged file."""
    run_dir = place / "run"
    answer = lambda run_dir: records.load_json(run_dir / "summary.json")["F"]
    return continued(cli_solve.solve, finished_run(run_dir), run_dir, answer, {"config.toml"})


def of_measured(place: Path) -> tuple:
    """heg-measure, a finished measurement with a damaged file."""
    run_dir = place / "run"
    finished_run(run_dir)
    arguments = [str(run_dir), "--samples", "256"]
    assert outcome(cli_measure.measure, arguments, PREPARING) == "done"
    answer = lambda run_dir: records.load_json(run_dir / "observables.json")["F"]
    return continued(cli_measure.measure, arguments, run_dir, answer, {"config.toml"})


def of_surveys(place: Path) -> tuple:
    """heg-eos, a finished grid with a damaged file in the directory of the table or of a point."""
    path, run_dir = place / "grid.toml", place / "table"
    grid = {"grid": GRID | {"rs": [1.0, 2.0], "accuracy": 1.0, "steps": 30, "samples": 2048}}
    small = {name: SMALL[name] for name in ("flow_layers", "flow_width", "transformer_layers")}
    path.write_text(tomli_w.dumps(grid | {"model": small, "sampler": {"batch": 64}}))
    arguments = [str(path), "--run-dir", str(run_dir)]
    assert outcome(cli_eos.table, arguments, PREPARING) in ("done", "failed")
    answer = lambda run_dir: (run_dir / "table.csv").read_text()
    return continued(cli_eos.table, arguments, run_dir, answer, {"config.toml", "grid.toml", "point.json"})


def of_measurements(place: Path) -> tuple:
    """heg-measure, its flags, where there is no run."""
    flag = st.tuples(st.sampled_from(["samples", "step", "beside", "max-seconds"]).flatmap(near), scalars)

    def judge(changed):
        words = [word for name, value in changed for word in (f"--{name}", str(value))]
        return outcome(cli_measure.measure, [str(place / "nothing"), *words])

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
        except (ValueError, storage.StorageError) as error:
            assert str(error) and "\n" not in str(error)
            return "refused"
        return "done"

    state = st.tuples(st.one_of(st.floats(), st.floats(0.5, 12.0)), plausible, st.sampled_from([1.0, 1.0, 0.0]))
    return st.tuples(st.one_of(st.just(whole), damage(whole)), state), judge


KINDS = {
    "flags": of_flags,
    "files": of_files,
    "grids": of_grids,
    "runs": of_runs,
    "measured": of_measured,
    "surveys": of_surveys,
    "measurements": of_measurements,
    "tables": of_tables,
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
        @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
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
