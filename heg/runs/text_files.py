"""Text files of a run: configuration in TOML, history in CSV, results and events in JSON.

All are UTF-8, whatever the locale.
"""

import contextlib
import csv
import json
import math
import os
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from heg.errors import StorageError
from heg.runs.files import replace

# columns of a history that a figure or a result is made of
NEEDED = {"step", "F_ha", "F_error_ha", "S_kb", "S_error_kb", "E_variance_cell_ha2"}
MAX_STEP_DIGITS = 15  # no run is longer; more digits are damage


def read_text(path: Path) -> str:
    """Text of a file in UTF-8, with or without a byte-order mark."""
    return Path(path).read_text(encoding="utf-8-sig")


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8 atomically.

    Names of files keep their bytes, also those that the locale cannot read.
    """
    content = text.encode("utf-8", "surrogateescape")
    replace(Path(path), lambda temporary: temporary.write_bytes(content))


def append_line(path: Path, value: dict) -> None:
    """Add a line of JSON to a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")


def read_lines(path: Path) -> list[dict]:
    """Values of the lines of a file of `append_line`, without the damaged ones.

    The list is empty if there is no file.
    """
    if not path.exists():
        return []
    values = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        # a line is cut off where a process or the disk ended
        with contextlib.suppress(ValueError):
            values.append(json.loads(line))
    return [value for value in values if isinstance(value, dict)]


def save_json(path: Path, value: dict) -> None:
    """Write a JSON file atomically."""
    write_text(path, as_json(value, indent=2) + "\n")


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON text, with null for numbers that are not finite."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    """The value with None for numbers that are not finite, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def load_json(path: Path) -> dict:
    """Read a JSON file.

    Raises:
      StorageError: the file is missing, not JSON, or holds no object.
    """
    try:
        value = json.loads(read_text(path))
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise StorageError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise StorageError(f"{path} is damaged: it holds no object of JSON")
    return value


def save_config(path: Path, config: dict[str, dict]) -> None:
    """Write tables to a TOML file atomically, without the fields that are None."""
    write_text(path, as_toml(config))


def as_toml(config: dict[str, dict]) -> str:
    """Tables as the text of a TOML file, without the fields that are None."""
    return tomli_w.dumps({name: _without_none(table) for name, table in config.items()})


def _without_none(table: dict) -> dict:
    # TOML has no null
    return {field: value for field, value in table.items() if value is not None}


def load_config(path: Path) -> dict:
    """Contents of a TOML file.

    Raises:
      StorageError: it cannot be read or is not TOML.
    """
    try:
        # by read_text: a file of Windows may begin with a byte-order mark
        return tomllib.loads(read_text(path))
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StorageError(f"{path} is not TOML: {error}") from error


def load_tables(path: Path) -> dict[str, dict]:
    """Tables of a TOML file that holds nothing else, as those that the program writes.

    Raises:
      StorageError: it cannot be read, is not TOML, or holds something else.
    """
    config = load_config(path)
    for name, table in config.items():
        if not isinstance(table, dict):
            raise StorageError(f"{path} is damaged: {name} is {table}, no table")
    return config


def read_history(path: Path) -> list[dict[str, str]]:
    """Whole rows of a history, oldest first, without a partial last line.

    The list is empty if there is no file.

    Raises:
      StorageError: a row is damaged.
    """
    if not path.exists():
        return []
    # what follows the last line break was cut off
    lines = path.read_bytes().decode(errors="replace").split("\n")[:-1]
    try:
        rows = list(csv.DictReader(lines))
    except csv.Error as error:
        raise _damaged_history(path, "one or more") from error
    for number, row in enumerate(rows, 1):
        if not (NEEDED <= row.keys() and _is_whole(row)):
            raise _damaged_history(path, number + 1)
    return rows


def _damaged_history(path: Path, line: int | str) -> StorageError:
    return StorageError(
        f"{path} is damaged in line {line}: mend it or move it away; a run goes on without it"
    )


def _is_whole(row: dict) -> bool:
    """Whether a row has a number in each column, and a step that is possible."""
    # csv puts surplus values under the key None, and None where values are missing
    if None in row or None in row.values():
        return False
    step = row["step"]
    if not step.isdigit() or len(step) > MAX_STEP_DIGITS:
        return False
    try:
        for value in row.values():
            float(value)
    except ValueError:
        return False
    return True


def columns(history: list[dict[str, str]]) -> dict[str, np.ndarray]:
    """Columns of a history by name, one value for each row.

    Columns of whole numbers are of integers, all others of floats.  Empty without rows.
    """
    # all rows have the columns of the first
    names = history[0] if history else ()
    values = {}
    for name in names:
        words = [row[name] for row in history]
        values[name] = _as_numbers(words)
    return values


def _as_numbers(words: list[str]) -> np.ndarray:
    are_whole = all(word.lstrip("-").isdigit() for word in words)
    return np.array(words, int if are_whole else float)


def rewind_history(path: Path, step: int) -> list[dict[str, str]]:
    """Drop the rows after a step, which are to be computed again, and a partial last line.

    Returns:
      The rows that are kept.
    """
    kept = [row for row in read_history(path) if int(row["step"]) <= step]
    if kept:
        replace(path, lambda temporary: _write_rows(temporary, kept))
    elif path.exists():
        path.unlink()
    return kept


def append_history(path: Path, row: dict[str, float]) -> None:
    """Add a row, with the header if the file is new, and put it on the disk."""
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)
        file.flush()
        os.fsync(file.fileno())


def _write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
