"""Text files of a run: configuration in TOML, history in CSV, results in JSON, events in lines of
JSON.

All are UTF-8, whatever the locale.
"""

import contextlib
import csv
import json
import math
import os
import tomllib
from pathlib import Path

import numpy as np
import tomli_w

from heg.errors import StorageError
from heg.runs.files import replace

# columns of a history that something is made of, and the most digits of a step
NEEDED, DIGITS = {"step", "F_ha", "F_error_ha", "S_kb", "S_error_kb", "E_variance_cell_ha2"}, 15


def read_text(path: Path) -> str:
    """Text of a file in UTF-8, with or without a byte-order mark."""
    return Path(path).read_text(encoding="utf-8-sig")


def write_text(path: Path, text: str) -> None:
    """Writes a file in UTF-8 atomically; names of files keep their bytes, also those that the
    locale cannot read."""
    replace(
        Path(path), lambda temporary: temporary.write_bytes(text.encode("utf-8", "surrogateescape"))
    )


def append_line(path: Path, value: dict) -> None:
    """Adds a line of JSON to a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")


def read_lines(path: Path) -> list[dict]:
    """Values of the lines of a file of `append_line`, damaged ones left out; none if there is no
    file."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    found = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):  # cut off where a process or the disk ended
            found.append(json.loads(line))
    return [value for value in found if isinstance(value, dict)]


def save_json(path: Path, value: dict) -> None:
    """Writes a JSON file atomically."""
    write_text(path, as_json(value, indent=2) + "\n")


def as_json(value, indent: int | None = None) -> str:
    """JSON text; a number that is none, or infinite, is null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value):
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def load_json(path: Path) -> dict:
    """Reads a JSON file.

    Raises:
      StorageError: it is not there, not JSON, or no object.
    """
    try:
        found = json.loads(read_text(path))
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise StorageError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise StorageError(f"{path} is damaged: it holds no object of JSON")
    return found


def save_config(path: Path, config: dict) -> None:
    """Writes tables to a TOML file atomically; fields that are None are left out."""
    write_text(path, as_toml(config))


def as_toml(config: dict) -> str:
    """Tables as the text of a TOML file; fields that are None are left out."""
    return tomli_w.dumps(
        {name: {k: v for k, v in table.items() if v is not None} for name, table in config.items()}
    )


def load_config(path: Path) -> dict:
    """Tables of a TOML file.

    Raises:
      StorageError: it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(read_text(path))
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StorageError(f"{path} is not TOML: {error}") from error


def load_tables(path: Path) -> dict[str, dict]:
    """Tables of a TOML file that holds nothing else, as the ones that the program writes.

    Raises:
      StorageError: it cannot be read, is not TOML, or holds something else.
    """
    found = load_config(path)
    for name, table in found.items():
        if not isinstance(table, dict):
            raise StorageError(f"{path} is damaged: {name} is {table}, no table")
    return found


def read_history(path: Path) -> list[dict[str, str]]:
    """Whole rows of a history, oldest first; a partial last line is dropped.  Empty if there is no
    file.

    Raises:
      StorageError: a row is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().decode(errors="replace").split("\n")[:-1]
    damage = lambda line: StorageError(
        f"{path} is damaged in line {line}: mend it or move it away; a run goes on without it"
    )
    try:
        rows = list(csv.DictReader(lines))
    except csv.Error as error:
        raise damage("one or more") from error
    for number, row in enumerate(rows, 1):
        if not (NEEDED <= row.keys() and _is_whole(row)):
            raise damage(number + 1)
    return rows


def _is_whole(row):
    if (
        None in row
        or None in row.values()
        or not row["step"].isdigit()
        or len(row["step"]) > DIGITS
    ):
        return False
    with contextlib.suppress(ValueError):
        return bool([float(value) for value in row.values()])
    return False


def columns(history: list[dict[str, str]]) -> dict[str, np.ndarray]:
    """Columns of a history: whole numbers where all are, floats elsewhere.  [rows] each; empty
    without rows."""
    number = lambda values: (
        np.array(values, int)
        if all(v.lstrip("-").isdigit() for v in values)
        else np.array(values, float)
    )
    return {
        name: number([row[name] for row in history]) for name in (history[0] if history else ())
    }


def rewind_history(path: Path, step: int) -> list[dict[str, str]]:
    """Drops the rows after `step` steps, which are to be computed again, and a partial last line;
    the rows kept."""
    rows = read_history(path)
    kept = [row for row in rows if int(row["step"]) <= step]
    if kept:
        replace(path, lambda temporary: _write_rows(temporary, list(kept[0]), kept))
    elif path.exists():
        path.unlink()
    return kept


def append_history(path: Path, row: dict[str, float]) -> None:
    """Adds a row, with the header when the file is new, and hands it to the operating system."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)
        file.flush()
        os.fsync(file.fileno())


def _write_rows(path, names, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
