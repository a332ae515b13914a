"""A table of the equation of state: its rows, the surfaces through them, and the infinite gas
anywhere between.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from heg.display import as_html, optional_package
from heg.eos import surface
from heg.gas import ideal_infinite
from heg.gas.ideal_infinite import exchange
from heg.gas.size_correction import missing
from heg.gas.system import System
from heg.gas.twists import Twist
from heg.statistics import Estimate, intercept

STEP = 1e-2  # relative, of derivatives of the size correction
ROUNDING = 1e-12  # relative, by which a place may lie outside of the table

Columns = dict[str, np.ndarray]  # by name, one value for each row
Cell = tuple[int, int]  # numbers of electrons of each spin


class SizeTerms(NamedTuple):
    """The six quantities f, e, s, p, c, B of two parts of the infinite gas.

    Attributes:
      exchange: of the infinite gas.                        [6]
      correlation: that the cell lacks.                     [6]
    """

    exchange: np.ndarray
    correlation: np.ndarray


class Derivatives(NamedTuple):
    """A function of r_s and T, and its derivatives.

    Attributes:
      value, by_rs, by_t, by_rs_rs, by_t_t: f, df/dr_s, df/dT, d2f/dr_s2, d2f/dT2.
    """

    value: np.ndarray
    by_rs: np.ndarray
    by_t: np.ndarray
    by_rs_rs: np.ndarray
    by_t_t: np.ndarray


def _differences(function: Callable[[System], np.ndarray], gas: System) -> Derivatives:
    """Derivatives of a function of a gas with respect to r_s and T, by differences."""
    fermi_energy = gas.of_unit_density.fermi_energy
    rs = gas.rs
    t = gas.temperature

    def at(rs: float, temperature: float) -> np.ndarray:
        # at fixed T, Theta goes as r_s^2
        theta = temperature * rs**2 / fermi_energy
        return function(dataclasses.replace(gas, rs=rs, theta=theta))

    # a central difference in each direction
    here = at(rs, t)
    wider = at(rs * (1 + STEP), t)
    closer = at(rs * (1 - STEP), t)
    hotter = at(rs, t * (1 + STEP))
    colder = at(rs, t * (1 - STEP))
    return Derivatives(
        value=here,
        by_rs=(wider - closer) / (2 * STEP * rs),
        by_t=(hotter - colder) / (2 * STEP * t),
        by_rs_rs=(wider - 2 * here + closer) / (STEP * rs) ** 2,
        by_t_t=(hotter - 2 * here + colder) / (STEP * t) ** 2,
    )


class Series(NamedTuple):
    """The rows of one cell, and the surface through them.

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
        """The part of F beyond first order that the cell lacks, averaged over its twists.

        Args:
          gas: has the r_s and Theta.
        """
        total = 0.0
        for twist in self.surface.data.twists:
            cell = dataclasses.replace(gas, twist=twist.angle)
            total += twist.weight * missing(cell).free_energy
        return total

    def size_terms(self, gas: System) -> SizeTerms:
        """Exchange in the infinite gas and the correlation that the cell lacks.

        Args:
          gas: the cell at an r_s and Theta.
        """

        def terms_of(cell: System) -> np.ndarray:
            return np.array([exchange(cell), self.correlation_missing(cell)])

        # steps of the differences must not leave the range of a gas
        inside = gas.inside_by(3 * STEP)
        slopes = _differences(terms_of, inside)
        value = slopes.value if inside == gas else terms_of(gas)
        quantities = surface.from_derivatives(
            gas,
            gas.rs,
            gas.temperature,
            value,
            slopes.by_rs,
            slopes.by_t,
            slopes.by_rs_rs,
            slopes.by_t_t,
        )
        exchange_terms, correlation_terms = np.stack(quantities, axis=1)
        return SizeTerms(exchange_terms, correlation_terms)

    def unsure_at(self, rs: float, theta: float) -> float:
        """`unsure` of the nearest row."""
        offsets = np.asarray(self.surface.logs) - np.log([rs, theta])
        distances = np.sum(offsets**2, axis=1)
        nearest = np.argmin(distances)
        return float(self.unsure[nearest])


class Table(NamedTuple):
    """A table of the equation of state.

    Attributes:
      columns: by name, one value for each row.
      twists: of each cell (n_up, n_down).
      series: cells with rows enough for a surface.
    """

    columns: Columns
    twists: dict[Cell, list[Twist]]
    series: dict[Cell, Series]

    def _repr_html_(self) -> str:
        """The main columns and a small figure, for notebooks."""
        return as_html(self)

    def to_pandas(self) -> Any:
        """All columns as a pandas DataFrame, a row for each gas; units are in the names.

        Raises:
          ImportError: pandas is not installed (extra `pandas`).
        """
        return optional_package("pandas", "Table.to_pandas").DataFrame(dict(self.columns))

    def to_xarray(self) -> Any:
        """All columns as an xarray Dataset over electrons, zeta, rs_bohr and theta.

        A gas of the grid that has no row is not a number.

        Raises:
          ImportError: xarray is not installed (extra `xarray`).
        """
        xarray = optional_package("xarray", "Table.to_xarray")
        frame = self.to_pandas().set_index(["electrons", "zeta", "rs_bohr", "theta"])
        return xarray.Dataset.from_dataframe(frame)

    def free_energy(self, rs: float, theta: float, zeta: float) -> Estimate:
        """F per electron of the infinite gas, hartree.

        It comes from the surface of the largest cell of this polarisation.

        Raises:
          ValueError: the table does not reach so far, or has no such polarisation.
        """
        excess = self.excess_free_energy(rs, theta, zeta)
        gas = self.series_of(rs, theta, zeta).at(rs, theta)
        ideal = ideal_infinite.thermodynamics(gas).free_energy
        return Estimate(ideal + excess.mean, excess.error)

    def excess_free_energy(self, rs: float, theta: float, zeta: float) -> Estimate:
        """f_xc per electron of the infinite gas, hartree; as `free_energy`."""
        series = self.series_of(rs, theta, zeta)
        gas = series.at(rs, theta)
        cell = surface.beyond_first_order(series.surface, rs, theta)
        # exchange is that of the infinite gas, correlation that of the cell and what it lacks
        correlation = series.correlation_missing(gas)
        share = series.unsure_at(rs, theta)
        correlation_error = share * abs(correlation)
        value = exchange(gas) + cell.value[0] + correlation
        error = np.hypot(cell.error[0], correlation_error)
        return Estimate(float(value), float(error))

    def equation_of_state(self, rs: float, theta: float, zeta: float) -> dict[str, Estimate]:
        """The quantities of the infinite gas by letter; as `free_energy`.

        f, e (hartree), s, c (k_B) per electron, p, B (hartree / bohr^d).
        """
        series = self.series_of(rs, theta, zeta)
        gas = series.at(rs, theta)
        cell = surface.beyond_first_order(series.surface, rs, theta)
        size = series.size_terms(gas)
        ideal = ideal_infinite.equation_of_state(gas)
        values = ideal + cell.value + size.exchange + size.correlation
        # by the same share for all six
        share = series.unsure_at(rs, theta)
        correlation_errors = share * np.abs(size.correlation)
        errors = np.hypot(cell.error, correlation_errors)
        estimates = {}
        for name, value, error in zip(surface.NAMES, values, errors):
            estimates[name] = Estimate(float(value), float(error))
        return estimates

    def largest(self, zeta: float) -> Series:
        """The cell that stands for the gases of a polarisation: that of most electrons.

        Raises:
          ValueError: the table has no such polarisation.
        """
        fitting = [cell for cell, series in self.series.items() if np.isclose(series.zeta, zeta)]
        if not fitting:
            raise ValueError(f"zeta is {zeta}: the table has {self._surfaces_for(zeta)}")
        return self.series[max(fitting, key=sum)]

    def _surfaces_for(self, zeta: float) -> str:
        """What there is instead of a surface for a polarisation, in words."""
        rows = np.count_nonzero(np.isclose(self.columns["zeta"].astype(float), zeta))
        if rows:
            return f"{rows} rows of it, and a surface takes {surface.MIN_POINTS} of one cell"
        known = sorted({series.zeta for series in self.series.values()})
        return ", ".join(f"{value:g}" for value in known) or "no surface"

    def series_of(self, rs: float, theta: float, zeta: float) -> Series:
        """The cell that stands for a gas.

        Raises:
          ValueError: as in `free_energy`.
        """
        series = self.largest(zeta)
        data = series.surface.data
        _check_inside("rs", rs, data.rs)
        _check_inside("theta", theta, data.theta)
        return series


def _check_inside(name: str, value: float, known: np.ndarray) -> None:
    """Refuse a place outside of the rows."""
    low = known.min()
    high = known.max()
    if not low * (1 - ROUNDING) <= value <= high * (1 + ROUNDING):
        raise ValueError(f"{name} is {value}: the table reaches from {low:g} to {high:g}")


def table_of(rows: list[dict], twists: dict[Cell, list[Twist]], surfaces: bool = True) -> Table:
    """The table of rows of `heg.eos.twist_average.row_of`.

    Args:
      rows: one for each gas.
      twists: of each cell.
      surfaces: whether surfaces are fitted, and columns added that come from them.
    """
    # each name once, in the order in which rows have them
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}
    table = Table(columns, twists, fit_series(columns, twists) if surfaces else {})
    return table._replace(columns=columns | _surface_columns(table))


def fit_series(columns: Columns, twists: dict[Cell, list[Twist]]) -> dict[Cell, Series]:
    """A surface through the rows of each cell that has enough of them."""
    n_up = columns["n_up"]
    n_down = columns["n_down"]
    series = {}
    cells = set(zip(n_up.tolist(), n_down.tolist()))
    for cell in sorted(cells):
        up, down = cell
        is_of_cell = (n_up == up) & (n_down == down)
        rows = np.flatnonzero(is_of_cell)
        if len(rows) < surface.MIN_POINTS:
            continue
        columns_of_cell = {name: values[rows] for name, values in columns.items()}
        series[cell] = _fit_cell(cell, rows, columns_of_cell, twists[cell])
    return series


def _fit_cell(cell: Cell, rows: np.ndarray, columns: Columns, twists: list[Twist]) -> Series:
    """The surface through the rows of one cell, whose columns are given."""
    dim = int(columns["dim"][0])

    def number(name: str) -> np.ndarray:
        return columns[name].astype(float)

    data = surface.Data(
        gas=System(*cell, dim, rs=1.0, theta=1.0, twist=(0.0,) * dim),
        twists=twists,
        rs=number("rs_bohr"),
        theta=number("theta"),
        f_xc=number("f_xc_cell_ha"),
        error=number("f_xc_cell_error_ha"),
    )
    # exchange is exact: all of the uncertainty is that of correlation
    whole = number("f_correction_ha")
    correlation = np.abs(whole - number("exchange_correction_ha"))
    error = number("f_correction_error_ha")
    unsure = error / np.maximum(correlation, 1e-300)
    return Series(rows, surface.fit(data), unsure)


def _surface_columns(table: Table) -> Columns:
    """The columns that come from the surfaces, not a number in rows without one."""
    return _deviation_columns(table) | _derived_columns(table)


def _empty_columns(table: Table, names: list[str]) -> Columns:
    """Columns without a number in any row."""
    rows = len(table.columns["dim"])
    return {name: np.full(rows, np.nan) for name in names}


def _deviation_columns(table: Table) -> Columns:
    """Deviations of e, s, p of the cell, which are measured, from the surface.

    They are in standard errors: the surface knows f alone.
    """
    dim = int(table.columns["dim"][0])
    units = {"e": "ha", "s": "kb", "p": f"ha_per_bohr{dim}"}
    names = [f"{letter}_deviation_sigma" for letter in units]
    columns = _empty_columns(table, names)
    for series in table.series.values():
        for row in series.rows:
            deviations = _deviations(table.columns, row, series, units)
            for letter, deviation in deviations.items():
                columns[f"{letter}_deviation_sigma"][row] = deviation
    return columns


def _derived_columns(table: Table) -> Columns:
    """c and B of the infinite gas, in the rows of the largest cell of each polarisation."""
    dim = int(table.columns["dim"][0])
    units = {"c": "kb", "B": f"ha_per_bohr{dim}"}
    names = []
    for letter, unit in units.items():
        names += [f"{letter}_{unit}", f"{letter}_error_{unit}"]
    columns = _empty_columns(table, names)
    for series in table.series.values():
        # a smaller cell does not stand for the gas: its rows stay empty
        if series is not table.largest(series.zeta):
            continue
        for row in series.rows:
            rs = float(table.columns["rs_bohr"][row])
            theta = float(table.columns["theta"][row])
            zeta = float(table.columns["zeta"][row])
            state = table.equation_of_state(rs, theta, zeta)
            for letter, unit in units.items():
                estimate = state[letter]
                columns[f"{letter}_{unit}"][row] = estimate.mean
                columns[f"{letter}_error_{unit}"][row] = estimate.error
    return columns


def _deviations(
    columns: Columns, row: int, series: Series, units: dict[str, str]
) -> dict[str, float]:
    """Deviations of measured quantities of a cell from its surface, in standard errors."""
    rs = float(columns["rs_bohr"][row])
    theta = float(columns["theta"][row])
    # the surface was fitted to f alone: its derivatives are predictions
    fitted = surface.excess(series.surface, rs, theta)
    deviations = {}
    for letter, unit in units.items():
        index = surface.NAMES.index(letter)
        value = columns[f"{letter}_xc_cell_{unit}"][row]
        measured_error = columns[f"{letter}_xc_cell_error_{unit}"][row]
        error = np.hypot(measured_error, fitted.error[index])
        deviations[letter] = (value - fitted.value[index]) / error
    return deviations


def extrapolated(table: Table) -> Iterator[tuple[float, float, float, Estimate]]:
    """f_xc for N -> infinity of gases with two sizes or more.

    What the size correction leaves is taken as linear in 1 / N.

    Yields:
      r_s, Theta, zeta and f_xc, hartree.
    """
    columns = table.columns
    keys = zip(*(columns[name].tolist() for name in ("rs_bohr", "theta", "zeta")))
    rows_of_gas: dict[tuple, list[int]] = {}
    for row, gas in enumerate(keys):
        rows_of_gas.setdefault(gas, []).append(row)
    for gas, rows in rows_of_gas.items():
        if len(rows) > 1:
            f_xc, _ = intercept(
                x=1 / columns["electrons"][rows],
                y=columns["f_xc_ha"][rows],
                error=columns["f_xc_error_ha"][rows],
            )
            yield *gas, f_xc
