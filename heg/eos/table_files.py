"""Files of a table of the equation of state: table.csv and table.h5, and the tables shipped."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from heg.eos.table import Cell, Columns, Table, fit_series
from heg.errors import StorageError
from heg.gas.twists import Twist
from heg.runs.hdf5 import Arrays, load_arrays, save_tree
from heg.runs.text_files import write_text

# units in words by the ends of the columns' names
UNITS = {
    "_ha": "hartree per electron",
    "_kb": "k_B per electron",
    "_bohr": "bohr",
    "_sigma": "standard errors",
    "_ha_per_bohr2": "hartree / bohr^2",
    "_ha_per_bohr3": "hartree / bohr^3",
}
# energies that are not per electron
UNITS_OF_NAMES = {"temperature_ha": "hartree", "fermi_energy_ha": "hartree"}
SHIPPED = Path(__file__).parent / "data"  # tables that are part of the package


def save(table: Table, path: Path, **attributes) -> None:
    """Write the table to path.csv and path.h5.

    Args:
      table: the table.
      path: the files, without the ends of their names.
      attributes: of the HDF5 file.

    Raises:
      OSError: they cannot be written.
    """
    write_text(path.with_suffix(".csv"), _as_csv(table.columns))
    arrays = {name: _without_unicode(values) for name, values in table.columns.items()}
    units = {f"columns/{name}": {"unit": _unit(name)} for name in arrays}
    tree = {"columns": arrays, "twists": _twist_arrays(table.twists)}
    save_tree(path.with_suffix(".h5"), tree, units, **attributes)


def load_table(path: str | Path) -> Table:
    """A table of heg-eos, from its table.h5, or one of the tables shipped with heg.

    Args:
      path: the file; or the name of a shipped table, such as "3d-unpolarised".

    Raises:
      ValueError: there is no such file and no shipped table of that name.
      StorageError: the file is no table, or damaged.
    """
    arrays, _ = load_arrays(_file_of(path))
    if "columns/rs_bohr" not in arrays:
        raise StorageError(f"{path} holds no table: give the table.h5 of heg-eos")
    columns = {}
    for name, values in arrays.items():
        branch, _, column = name.partition("/")
        if branch == "columns":
            columns[column] = _with_unicode(values)
    # surfaces are not stored: they are fitted again
    twists = _twists_in(arrays)
    series = fit_series(columns, twists)
    return Table(columns, twists, series)


def _twist_arrays(twists: dict[Cell, list[Twist]]) -> dict[str, dict[str, np.ndarray]]:
    """Twists of each cell as arrays angle and weight, under the name <n_up>_<n_down>."""
    arrays = {}
    for (n_up, n_down), twists_of_cell in twists.items():
        arrays[f"{n_up}_{n_down}"] = {
            "angle": np.array([twist.angle for twist in twists_of_cell]),
            "weight": np.array([twist.weight for twist in twists_of_cell]),
        }
    return arrays


def _file_of(path: str | Path) -> Path:
    """The file meant by a path or by the name of a shipped table."""
    file = Path(path)
    if file.exists() or file.suffix == ".h5":
        return file
    shipped = {table.stem: table for table in sorted(SHIPPED.glob("*.h5"))}
    if str(path) not in shipped:
        raise ValueError(
            f"there is no table {str(path)!r}: give the table.h5 of heg-eos, "
            f"or one of {', '.join(shipped)}"
        )
    return shipped[str(path)]


def _twists_in(arrays: Arrays) -> dict[Cell, list[Twist]]:
    """Twists of each cell, the inverse of `_twist_arrays`."""
    twists = {}
    for name, angles in arrays.items():
        if not (name.startswith("twists/") and name.endswith("/angle")):
            continue
        n_up, n_down = name.split("/")[1].split("_")
        weights = arrays[name.replace("angle", "weight")]
        of_cell = []
        for angle, weight in zip(angles.tolist(), weights.tolist()):
            of_cell.append(Twist(tuple(angle), weight))
        twists[int(n_up), int(n_down)] = of_cell
    return twists


def _as_csv(columns: Columns) -> str:
    """The columns as text of comma-separated values, with their names in the first line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values()):
        writer.writerow([_cell_of_csv(value) for value in row])
    return text.getvalue()


def _cell_of_csv(value: Any) -> Any:
    """A value of Python; an empty cell for what is not a number."""
    # not a number is the only value that differs from itself
    plain = np.asarray(value).item()
    return "" if plain != plain else plain


def _without_unicode(values: np.ndarray) -> np.ndarray:
    # HDF5 does not have NumPy's strings of Unicode
    return values.astype("S") if values.dtype.kind == "U" else values


def _with_unicode(values: np.ndarray) -> np.ndarray:
    return values.astype("U") if values.dtype.kind == "S" else values


def _unit(name: str) -> str:
    """The unit of a column, in words, from the end of its name."""
    if name in UNITS_OF_NAMES:
        return UNITS_OF_NAMES[name]
    for end, unit in UNITS.items():
        if name.endswith(end):
            return unit
    return "none"
