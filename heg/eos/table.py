"""A table of the equation of state: its rows, the surface through them, and the infinite gas
anywhere between."""

import csv
import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from heg.eos import surface
from heg.errors import StorageError
from heg.gas import ideal_infinite, rpa
from heg.gas.ideal_infinite import exchange
from heg.gas.system import System
from heg.gas.twists import Twist
from heg.runs.hdf5 import load_arrays, save_tree
from heg.runs.text_files import write_text
from heg.statistics import Estimate, intercept

STEP = 1e-2  # relative, of derivatives of the size correction


class Series(NamedTuple):
    """The rows of one cell.

    Attributes:
      rows: their numbers in the table.
      surface: through them.
      unsure: share of the correlation part of the size correction that is uncertain, by row.
    """

    rows: np.ndarray
    surface: surface.Surface
    unsure: np.ndarray

    @property
    def zeta(self) -> float:
        """Polarisation of the cell."""
        return self.surface.data.gas.polarization

    def at(self, rs: float, theta: float) -> System:
        """The cell at a density and temperature."""
        return dataclasses.replace(self.surface.data.gas, rs=float(rs), theta=float(theta))

    def correlation_missing(self, gas: System) -> float:
        """What the cell lacks of F beyond first order at the r_s and Theta of a gas, averaged over
        twists."""
        twisted = [
            (dataclasses.replace(gas, twist=angle), weight)
            for angle, weight in self.surface.data.twists
        ]
        return sum(weight * rpa.missing(one).free_energy for one, weight in twisted)

    def unsure_at(self, rs: float, theta: float) -> float:
        """`unsure` of the nearest row."""
        distance = np.sum((np.asarray(self.surface.logs) - np.log([rs, theta])) ** 2, axis=1)
        return float(self.unsure[np.argmin(distance)])


class Table(NamedTuple):
    """A table.

    Attributes:
      columns: by name, one value for each row.
      twists: of each cell (n_up, n_down).
      series: cells with rows enough for a surface.
    """

    columns: dict[str, np.ndarray]
    twists: dict[tuple[int, int], list[Twist]]
    series: dict[tuple[int, int], Series]

    def free_energy(self, rs: float, theta: float, zeta: float) -> Estimate:
        """F per electron of the infinite gas, hartree, from the surface of the largest cell of this
        polarisation.

        Raises:
          ValueError: the table does not reach so far, or has no such polarisation.
        """
        excess = self.excess_free_energy(rs, theta, zeta)
        ideal = ideal_infinite.thermodynamics(
            self.series_of(rs, theta, zeta).at(rs, theta)
        ).free_energy
        return Estimate(ideal + excess.mean, excess.error)

    def excess_free_energy(self, rs: float, theta: float, zeta: float) -> Estimate:
        """f_xc per electron of the infinite gas, hartree; as `free_energy`."""
        series = self.series_of(rs, theta, zeta)
        gas, found = series.at(rs, theta), surface.beyond_first_order(series.surface, rs, theta)
        correlation = series.correlation_missing(gas)
        error = np.hypot(found.error[0], series.unsure_at(rs, theta) * abs(correlation))
        return Estimate(float(exchange(gas) + found.value[0] + correlation), float(error))

    def equation_of_state(self, rs: float, theta: float, zeta: float) -> dict[str, Estimate]:
        """f, e (hartree), s, c (k_B), p, B (hartree / bohr^d) of the infinite gas, per electron; as
        `free_energy`."""
        series = self.series_of(rs, theta, zeta)
        gas = series.at(rs, theta)
        found, added = (
            surface.beyond_first_order(series.surface, rs, theta),
            _size_terms(series, gas),
        )
        errors = np.hypot(found.error, series.unsure_at(rs, theta) * np.abs(added["correlation"]))
        values = (
            ideal_infinite.equation_of_state(gas)
            + found.value
            + added["exchange"]
            + added["correlation"]
        )
        return {
            name: Estimate(float(value), float(error))
            for name, value, error in zip(surface.NAMES, values, errors)
        }

    def largest(self, zeta: float) -> Series:
        """The cell that stands for the gases of a polarisation: that of most electrons.

        Raises:
          ValueError: the table has no such polarisation.
        """
        fitting = {
            cell: series for cell, series in self.series.items() if np.isclose(series.zeta, zeta)
        }
        if not fitting:
            known = sorted({series.zeta for series in self.series.values()})
            rows = np.count_nonzero(np.isclose(self.columns["zeta"].astype(float), zeta))
            raise ValueError(
                f"zeta is {zeta}: the table has {rows} rows of it, and a surface takes {surface.FEWEST} of one cell"
                if rows
                else f"zeta is {zeta}: the table has {', '.join(f'{value:g}' for value in known) or 'no surface'}"
            )
        return fitting[max(fitting, key=sum)]

    def series_of(self, rs: float, theta: float, zeta: float) -> Series:
        """The cell that stands for a gas, if it reaches so far; raises as `free_energy`."""
        series = self.largest(zeta)
        for name, value, values in (
            ("rs", rs, series.surface.data.rs),
            ("theta", theta, series.surface.data.theta),
        ):
            low, high = values.min(), values.max()
            if not low * (1 - 1e-12) <= value <= high * (1 + 1e-12):
                raise ValueError(f"{name} is {value}: the table reaches from {low:g} to {high:g}")
        return series


def _size_terms(series, gas):
    """The six quantities of exchange in the infinite gas and of the correlation correction, by
    differences."""
    fermi = gas.of_unit_density.fermi_energy

    def terms_of(one):
        return np.array([exchange(one), series.correlation_missing(one)])

    def terms(rs, temperature):
        return terms_of(dataclasses.replace(gas, rs=rs, theta=temperature * rs**2 / fermi))

    inside = gas.inside_by(3 * STEP)  # at fixed T, Theta goes as r_s^2
    rs, t = inside.rs, inside.temperature
    here = terms(rs, t)
    up, down = terms(rs * (1 + STEP), t), terms(rs * (1 - STEP), t)
    hot, cold = terms(rs, t * (1 + STEP)), terms(rs, t * (1 - STEP))
    slope, curved = (up - down) / (2 * STEP * rs), (up - 2 * here + down) / (STEP * rs) ** 2
    by_t, by_t_t = (hot - cold) / (2 * STEP * t), (hot - 2 * here + cold) / (STEP * t) ** 2
    value = here if inside == gas else terms_of(gas)
    values = np.stack(
        surface.from_derivatives(gas, gas.rs, gas.temperature, value, slope, by_t, curved, by_t_t)
    )
    return {"exchange": values[:, 0], "correlation": values[:, 1]}


def table_of(
    rows: list[dict], twists: dict[tuple[int, int], list[Twist]], surfaces: bool = True
) -> Table:
    """The table of rows of `row_of`, with surfaces through them and what these say added."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}
    return _with_surfaces(Table(columns, twists, _fits(columns, twists) if surfaces else {}))


def _fits(columns, twists):
    found = {}
    for cell in sorted(set(zip(columns["n_up"].tolist(), columns["n_down"].tolist()))):
        rows = np.flatnonzero((columns["n_up"] == cell[0]) & (columns["n_down"] == cell[1]))
        of = lambda name: columns[name][rows].astype(float)
        if len(rows) < surface.FEWEST:
            continue
        gas = System(*cell, int(columns["dim"][0]), 1.0, 1.0, (0.0,) * int(columns["dim"][0]))
        data = surface.Data(
            gas,
            twists[cell],
            of("rs_bohr"),
            of("theta"),
            of("f_xc_cell_ha"),
            of("f_xc_cell_error_ha"),
        )
        beyond = np.abs(of("f_correction_ha") - of("exchange_correction_ha"))
        unsure = of("f_correction_error_ha") / np.maximum(beyond, 1e-300)
        found[cell] = Series(rows, surface.fit(data), unsure)
    return found


def _with_surfaces(table):
    """Columns of deviations of what was measured in the cell from the surface, and of the infinite
    gas's c and B."""
    columns, dim = dict(table.columns), int(table.columns["dim"][0])
    volume = f"ha_per_bohr{dim}"
    names = [f"{letter}_deviation_sigma" for letter in "esp"]
    names += [
        f"{n}_{kind}{unit}" for n, unit in (("c", "kb"), ("B", volume)) for kind in ("", "error_")
    ]
    columns |= {name: np.full(len(columns["dim"]), np.nan) for name in names}
    for series in table.series.values():
        for row in series.rows:
            rs, theta, zeta = (float(columns[name][row]) for name in ("rs_bohr", "theta", "zeta"))
            fitted = surface.excess(series.surface, rs, theta)
            for letter, unit in (("e", "ha"), ("s", "kb"), ("p", volume)):
                place = surface.NAMES.index(letter)
                measured = [
                    columns[f"{letter}_xc_cell_{kind}{unit}"][row] for kind in ("", "error_")
                ]
                off = (measured[0] - fitted.value[place]) / np.hypot(
                    measured[1], fitted.error[place]
                )
                columns[f"{letter}_deviation_sigma"][row] = off
            if series is table.largest(series.zeta):
                state = table.equation_of_state(rs, theta, zeta)
                for letter, unit in (("c", "kb"), ("B", volume)):
                    columns[f"{letter}_{unit}"][row], columns[f"{letter}_error_{unit}"][row] = (
                        state[letter]
                    )
    return table._replace(columns=columns)


def extrapolated(table: Table) -> Iterator[tuple[float, float, float, Estimate]]:
    """r_s, Theta, zeta and f_xc for N -> infinity, hartree, of gases with two sizes or more.

    What the size correction leaves is taken as linear in 1 / N.
    """
    columns = table.columns
    gases = list(zip(*(columns[name].tolist() for name in ("rs_bohr", "theta", "zeta"))))
    for gas in dict.fromkeys(gases):
        rows = [row for row, other in enumerate(gases) if other == gas]
        if len(rows) > 1:
            of = lambda name: columns[name][rows]
            yield *gas, intercept(1 / of("electrons"), of("f_xc_ha"), of("f_xc_error_ha"))[0]


def save(table: Table, path: Path, **attributes) -> None:
    """Writes the table to path.csv and path.h5.

    Raises:
      OSError: they cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    for row in zip(*table.columns.values()):
        writer.writerow(
            [
                "" if value != value else value
                for value in map(np.ndarray.item, map(np.asarray, row))
            ]
        )
    write_text(path.with_suffix(".csv"), text.getvalue())
    arrays = {
        name: values.astype("S") if values.dtype.kind == "U" else values
        for name, values in table.columns.items()
    }
    twists = {
        f"{up}_{down}": {
            "angle": np.array([t.angle for t in many]),
            "weight": np.array([t.weight for t in many]),
        }
        for (up, down), many in table.twists.items()
    }
    units = {f"columns/{name}": {"unit": _unit(name)} for name in arrays}
    save_tree(path.with_suffix(".h5"), {"columns": arrays, "twists": twists}, units, **attributes)


def load_table(path: str | Path) -> Table:
    """A table of heg-eos, from its table.h5.

    Raises:
      StorageError: the file is no table, or damaged.
    """
    arrays, _ = load_arrays(Path(path))
    if "columns/rs_bohr" not in arrays:
        raise StorageError(f"{path} holds no table: give the table.h5 of heg-eos")
    columns = {
        name.split("/")[1]: values for name, values in arrays.items() if name.startswith("columns/")
    }
    columns = {
        name: values.astype("U") if values.dtype.kind == "S" else values
        for name, values in columns.items()
    }
    twists = {}
    for name in arrays:
        if name.startswith("twists/") and name.endswith("/angle"):
            many = zip(arrays[name].tolist(), arrays[name.replace("angle", "weight")].tolist())
            cell = tuple(map(int, name.split("/")[1].split("_")))
            twists[cell] = [Twist(tuple(angle), weight) for angle, weight in many]
    return Table(columns, twists, _fits(columns, twists))


def _unit(name):
    """In words, from the end of a column's name."""
    if name in ("temperature_ha", "fermi_energy_ha"):
        return "hartree"
    ends = {
        "_ha": "hartree per electron",
        "_kb": "k_B per electron",
        "_bohr": "bohr",
        "_sigma": "standard errors",
    }
    ends |= {f"_ha_per_bohr{dim}": f"hartree / bohr^{dim}" for dim in (2, 3)}
    return next((unit for end, unit in ends.items() if name.endswith(end)), "none")
