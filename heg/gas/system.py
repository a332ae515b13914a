r"""The homogeneous electron gas: N electrons in a periodic box on a uniform positive background.

.. math:: H = -\tfrac12 \sum_i \nabla_i^2
          + \lambda \Big[\sum_{i<j} \psi(x_i - x_j) + \tfrac{N}{2} v_M \Big]

Hartree atomic units (bohr, hartree, k_B = 1) hold at every boundary; `System.from_density` alone
takes others.  r_s and Theta enter here and
nowhere else.  Theta = T / E_F, with the Fermi energy of the majority spin: the convention of Groth
et al., Phys. Rev. Lett. 119, 135001 (2017), doi:10.1103/PhysRevLett.119.135001.
"""

import dataclasses
import math
import numbers
from fractions import Fraction
from typing import Any, NamedTuple

import jax

from heg.gas.units import density_in_bohr, energy_in_hartree

# energies per electron to 1e-6 are lost in single precision
jax.config.update("jax_enable_x64", True)
# which random numbers a seed means must not depend on the environment
jax.config.update("jax_threefry_partitionable", True)
jax.config.update("jax_random_seed_offset", 0)


class Range(NamedTuple):
    """The values that a field may have, both ends included, and their unit."""

    low: float
    high: float
    unit: str


MAX_ELECTRONS = 1000  # electrons
MAX_DENOMINATOR = 10**6  # of a polarisation given as a decimal number
# what the program can be expected to compute; far beyond the gases of any use
RANGES = {
    "rs": Range(1e-4, 1e5, "bohr"),
    "theta": Range(1e-5, 1e4, "E_F"),
    "coupling": Range(0.0, 1e4, ""),
}
ROUNDING = 1e-12  # relative distance from the end of a range that absorbs rounding errors
TRACED = ("rs", "theta", "coupling")  # fields that may be traced; the others decide shapes
STATIC = ("n_up", "n_down", "dim", "twist")


def whole_number(name: str, value: Any) -> int:
    """A whole number as an int, also 1e5 or a scalar of NumPy or JAX.

    Raises:
      ValueError: the value is no whole number; the message gives the name.
    """
    whole = _is_number(value) and _is_whole(value)
    _require(whole, f"{name} is {_shown(value)}: it must be a whole number")
    return int(value)


def real_number(name: str, value: Any) -> float:
    """A real number as a float, also a scalar of NumPy or JAX.

    Raises:
      ValueError: the value is no real number; the message gives the name.
    """
    _require(_is_number(value), f"{name} is {_shown(value)}: it must be a number")
    try:
        return float(value)
    except OverflowError:
        sentence = f"{name} is {_shown(value)}: it must be a number of ordinary size"
        raise ValueError(sentence) from None


def _is_number(value):
    """True for a real number of Python, NumPy or JAX; a bool is none."""
    if isinstance(value, jax.Array):
        return not _is_traced(value) and value.shape == () and value.dtype.kind in "iuf"
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_whole(value):
    try:
        return value == int(value)
    except (OverflowError, ValueError):  # infinite, or not a number
        return False


def _is_traced(value):
    """True for a value without a number, inside a jitted function."""
    return isinstance(value, jax.core.Tracer)


def _require(passed, sentence):
    if not passed:
        raise ValueError(sentence)


def _shown(value):
    """A value in a sentence: numbers as they are typed, others as Python writes them."""
    return str(value) if isinstance(value, numbers.Number) else repr(value)


def fermi_wavevector(dim: int, rs: float, zeta: float) -> float:
    """k_F of the majority spin of the infinite gas, 1/bohr.

    Args:
      dim: 2 or 3.
      rs: Wigner-Seitz radius, bohr.
      zeta: polarisation, 0 to 1.
    """
    if dim == 2:
        power = 2 * (1 + zeta)  # (k_F r_s)^d
    else:
        power = 9 * math.pi / 4 * (1 + zeta)
    return power ** (1 / dim) / rs


def electrons_up(electrons: int, polarization: float | str) -> int:
    """Number of electrons with spin up.

    Args:
      electrons: of both spins.
      polarization: a number from 0 to 1, or a ratio such as 3/7.

    Raises:
      ValueError: no whole numbers of electrons have this polarisation.
    """
    try:
        zeta = Fraction(str(polarization).strip()).limit_denominator(MAX_DENOMINATOR)
    except (ValueError, ZeroDivisionError):
        raise ValueError(
            f"polarization is {polarization!r}: give a number or a ratio such as 3/7"
        ) from None
    # an exact fraction: 3/7 of 14 electrons is a whole number, 0.4286 of them is not
    n_up = electrons * (1 + zeta) / 2
    if not 0 <= zeta <= 1 or n_up.denominator != 1:
        differences = range(electrons % 2, electrons + 1, 2)  # of the spins
        allowed = ", ".join(str(Fraction(n, electrons)) for n in differences)
        raise ValueError(
            f"polarization is {polarization}: "
            f"with {electrons} electrons it must be one of {allowed}"
        )
    return int(n_up)


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True)
class System:
    """A gas of given electrons, density, temperature and twist.

    It may be an argument of jitted functions: gases that differ by r_s, Theta or coupling alone
    share what is compiled.

    Attributes:
      n_up, n_down: electrons of each spin, n_up >= n_down >= 0.
      dim: 2 or 3.
      rs: Wigner-Seitz radius, bohr.
      theta: temperature over the Fermi energy of the majority spin.
      twist: twist angle per direction in units of 2 pi, [-1/2, 1/2); empty means zero.    [dim]
      coupling: lambda, scales the Coulomb energy; 0 is the ideal gas.
    Raises:
      ValueError: a value is impossible; the message names the field and the remedy.
    """

    n_up: int
    n_down: int
    dim: int
    rs: float
    theta: float
    twist: tuple[float, ...] = ()
    coupling: float = 1.0

    def __post_init__(self):
        # numbers first: whatever is compared below is one
        for name in ("n_up", "n_down", "dim"):
            given = getattr(self, name)
            self._set(name, whole_number(name, given))
        for name in RANGES:
            value = getattr(self, name)
            # inside a jitted function these have no number
            has_no_number = name in TRACED and _is_traced(value)
            if not has_no_number:
                self._set(name, real_number(name, value))
        self._check_electrons()
        self._check_ranges()
        self._set("twist", self._angles())

    def _set(self, name, value):
        """Set a field of the frozen instance, which only its making may do."""
        object.__setattr__(self, name, value)

    def _check_electrons(self):
        _require(self.dim in (2, 3), f"dim is {self.dim}: it must be 2 or 3")
        _require(self.n_down >= 0, f"n_down is {self.n_down}: it must not be negative")
        _require(
            self.n_up >= max(1, self.n_down),
            f"n_up is {self.n_up}: it must be at least 1 and at least n_down",
        )
        _require(
            self.electrons <= MAX_ELECTRONS,
            f"there are {self.electrons} electrons: give at most {MAX_ELECTRONS}",
        )

    def _check_ranges(self):
        # a traced value has no size to compare
        for name, (low, high, unit) in RANGES.items():
            value = getattr(self, name)
            if _is_traced(value):
                continue
            sentence = f"{name} is {value}: it must lie between {low:g} and {high:g} {unit}"
            _require(low <= value <= high, sentence.rstrip())

    def _angles(self):
        """The twist as a tuple of floats; zero in each direction where none is given."""
        try:
            given = tuple(self.twist)
        except TypeError:  # a number, or anything else that has no elements
            given = (self.twist,)
        angles = tuple(real_number("twist", angle) for angle in given)
        if not angles:
            angles = (0.0,) * self.dim
        _require(
            len(angles) == self.dim,
            f"twist has {len(angles)} numbers: give one per direction, {self.dim}",
        )
        _require(
            all(-0.5 <= angle < 0.5 for angle in angles),
            f"twist is {angles}: each must lie in [-0.5, 0.5), and 0.5 is the same twist as -0.5",
        )
        return angles

    def tree_flatten_with_keys(self):
        """The fields that JAX may trace, and the static ones."""
        traced = [(jax.tree_util.GetAttrKey(name), getattr(self, name)) for name in TRACED]
        static = tuple(getattr(self, name) for name in STATIC)
        return traced, static

    @classmethod
    def tree_unflatten(cls, static, traced) -> "System":
        """The gas of the given leaves, unchecked, as JAX puts there what is no number too."""
        gas = object.__new__(cls)
        for name, value in zip(STATIC + TRACED, (*static, *traced)):
            gas._set(name, value)
        return gas

    @classmethod
    def from_density(
        cls,
        density: float,
        temperature: float,
        density_unit: str = "",
        temperature_unit: str = "Ha",
        *,
        dim: int = 3,
        electrons: int | None = None,
        polarization: float | str = 0,
        **fields: Any,
    ) -> "System":
        """The gas of a density and a temperature in units of the laboratory.

        Args:
          density: electrons of both spins per volume, or per area in two dimensions.
          temperature: T, times k_B where its unit is one of energy.
          density_unit: 1/bohr^d, the default, or 1/cm^d, with d in digits: "1/cm^3".
          temperature_unit: Ha, Ry, eV or K.
          dim: 2 or 3.
          electrons, polarization: of the cell, a ratio such as "3/7" too; or give n_up and n_down.
          fields: n_up, n_down, twist and coupling, as of `System`.

        Raises:
          ValueError: a value is impossible; the message names the field and the remedy.

        Source: constants of CODATA 2022 (heg.gas.units).
        """
        _require(dim in (2, 3), f"dim is {dim}: it must be 2 or 3")
        for name, value in (("density", density), ("temperature", temperature)):
            positive = 0 < real_number(name, value) < math.inf
            _require(positive, f"{name} is {value}: it must be positive and finite")
        n = density_in_bohr(float(density), density_unit or f"1/bohr^{dim}", dim)
        energy = energy_in_hartree("temperature", float(temperature), temperature_unit)
        # a circle, or a sphere, of radius r_s holds one electron
        if dim == 2:
            rs = 1 / math.sqrt(math.pi * n)
        else:
            rs = (3 / (4 * math.pi * n)) ** (1 / 3)
        if electrons is None:
            _require("n_up" in fields, "electrons is missing: give it, or n_up and n_down")
            fields = {"n_down": 0} | fields
        else:
            both = {"n_up", "n_down"} & fields.keys()
            _require(not both, f"electrons is {electrons}: give it, or n_up and n_down, not both")
            count = whole_number("electrons", electrons)
            _require(count > 0, f"electrons is {count}: it must be at least 1")
            n_up = electrons_up(count, polarization)
            fields = {"n_up": n_up, "n_down": count - n_up} | fields
        # E_F needs no temperature
        gas = cls(dim=dim, rs=rs, theta=1.0, **fields)
        return dataclasses.replace(gas, theta=energy / gas.fermi_energy)

    def inside_by(self, margin: float) -> "System":
        """The nearest gas whose r_s and Theta may change by a relative margin within RANGES.

        Derivatives by differences are taken there, so that their steps stay inside.
        """
        moved = {}
        for name in ("rs", "theta"):
            low, high, _ = RANGES[name]
            # from here both ends of a change by the margin are in the range
            lowest = low / (1 - margin) * (1 + ROUNDING)
            highest = high / (1 + margin) * (1 - ROUNDING)
            value = getattr(self, name)
            moved[name] = min(max(value, lowest), highest)
        return dataclasses.replace(self, **moved)

    @property
    def of_unit_density(self) -> "System":
        """The gas of r_s = 1 and coupling 1, whose lattices are those of this one."""
        return dataclasses.replace(self, rs=1.0, coupling=1.0)

    @property
    def shape(self) -> "System":
        """The gas of r_s = 1, Theta = 1 and coupling 1, which stands for all of its shape.

        What is compiled for it serves them all.
        """
        return dataclasses.replace(self, rs=1.0, theta=1.0, coupling=1.0)

    @property
    def electrons(self) -> int:
        """N, the number of electrons."""
        return self.n_up + self.n_down

    @property
    def label(self) -> str:
        """Electrons of each spin, as in 7u7d or 13u."""
        return "".join(f"{count}{spin}" for count, spin in zip(self.spins, "ud"))

    @property
    def spins(self) -> tuple[int, ...]:
        """Electrons of each spin that is present, up first."""
        return (self.n_up, self.n_down) if self.n_down else (self.n_up,)

    @property
    def parts(self) -> tuple[slice, ...]:
        """Slices of the list of electrons, one for each spin that is present, up first."""
        up = slice(0, self.n_up)
        down = slice(self.n_up, self.electrons)
        return (up, down) if self.n_down else (up,)

    @property
    def polarization(self) -> float:
        """zeta = (n_up - n_down) / N."""
        return (self.n_up - self.n_down) / self.electrons

    @property
    def box(self) -> float:
        """L, side of the square or cubic cell, bohr."""
        if self.dim == 2:
            return self.rs * math.sqrt(math.pi * self.electrons)
        return self.rs * (4 * math.pi * self.electrons / 3) ** (1 / 3)

    @property
    def volume(self) -> float:
        """L^d of the cell, bohr^d."""
        return self.box**self.dim

    @property
    def wavevector_unit(self) -> float:
        """2 pi / L, the spacing of the wavevectors of the cell, 1/bohr."""
        return 2 * math.pi / self.box

    @property
    def density(self) -> float:
        """n, electrons per bohr^d."""
        return self.electrons / self.volume

    @property
    def fermi_wavevector(self) -> float:
        """k_F of the majority spin of the infinite gas, 1/bohr."""
        return fermi_wavevector(self.dim, self.rs, self.polarization)

    @property
    def fermi_energy(self) -> float:
        """E_F = k_F^2 / 2, hartree."""
        return self.fermi_wavevector**2 / 2

    @property
    def energy_of_flow(self) -> float:
        """E_F + coupling / r_s^{3/2}, hartree: the scale of F as a function of the flow."""
        return self.fermi_energy + self.coupling * self.rs**-1.5

    @property
    def step_scale(self) -> float:
        """1: the unit of the longest step of training, in the metric of the Fisher matrices."""
        return 1.0

    @property
    def has_second_order(self) -> bool:
        """Whether there is correlation that second order may add to F; one electron has none."""
        return self.electrons > 1

    @property
    def point(self) -> dict[str, float]:
        """Names and values of what the state of the gas is given by."""
        return {"r_s": self.rs, "Theta": self.theta}

    @property
    def temperature(self) -> float:
        """T = Theta E_F, hartree."""
        return self.theta * self.fermi_energy

    @property
    def beta(self) -> float:
        """1 / T, 1/hartree."""
        return 1 / self.temperature
