r"""The uniform electron gas: N electrons in a periodic box on a uniform positive background.

.. math:: H = -\tfrac12 \sum_i \nabla_i^2 + \lambda \Big[\sum_{i<j} \psi(x_i - x_j) + \tfrac{N}{2} v_M \Big]

Hartree atomic units (bohr, hartree, k_B = 1) at every boundary.  r_s and Theta enter here and nowhere else:
Theta = T / E_F with the Fermi energy of the majority spin (the convention of Groth et al., Phys. Rev. Lett. 119,
135001 (2017), doi:10.1103/PhysRevLett.119.135001).
"""

import dataclasses
import functools
import math

import jax

jax.config.update("jax_enable_x64", True)  # energies per electron to 1e-6 are lost in single precision

MOST = 1000  # electrons
# what the program can be expected to compute; far beyond the gases of any use
RANGES = {"rs": (1e-4, 1e5, "bohr"), "theta": (1e-5, 1e4, "E_F"), "coupling": (0.0, 1e4, "")}
STATIC = ("n_up", "n_down", "dim", "theta", "twist")  # fields that decide shapes: others may be traced


@functools.partial(jax.tree_util.register_dataclass, data_fields=("rs", "coupling"), meta_fields=STATIC)
@dataclasses.dataclass(frozen=True)
class System:
    """The gas.  An argument of jitted functions: gases that differ by r_s or coupling alone share what is compiled.

    Attributes:
      n_up, n_down: electrons of each spin, n_up >= n_down >= 0.
      dim: 2 or 3.
      rs: Wigner-Seitz radius, bohr.
      theta: temperature over the Fermi energy of the majority spin.
      twist: twist angle per direction in units of 2 pi, [-1/2, 1/2); none: zero.    [dim]
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
        angles = self.twist if len(self.twist) else (0.0,) * self.dim
        object.__setattr__(self, "twist", tuple(float(angle) for angle in angles))
        checks = (
            (self.dim in (2, 3), f"dim is {self.dim}: it must be 2 or 3"),
            (self.n_down >= 0, f"n_down is {self.n_down}: it must not be negative"),
            (self.n_up >= max(1, self.n_down), f"n_up is {self.n_up}: it must be at least 1 and at least n_down"),
            (self.electrons <= MOST, f"there are {self.electrons} electrons: give at most {MOST}"),
            *((not isinstance(getattr(self, n), str), f"{n} is {getattr(self, n)!r}: give a number") for n in RANGES),
            *(
                (
                    _is_traced(value := getattr(self, name)) or low <= value <= high,
                    f"{name} is {value}: it must lie between {low:g} and {high:g} {unit}",
                )
                for name, (low, high, unit) in RANGES.items()
            ),
            (len(self.twist) == self.dim, f"twist has {len(self.twist)} numbers: give one per direction, {self.dim}"),
            (all(-0.5 <= t < 0.5 for t in self.twist), f"twist is {self.twist}: each must lie in [-0.5, 0.5)"),
        )
        for passed, sentence in checks:
            if not passed:
                raise ValueError(sentence)

    @property
    def of_unit_density(self) -> "System":
        """The gas of r_s = 1 and coupling 1, whose lattices and shapes are those of this one."""
        return dataclasses.replace(self, rs=1.0, coupling=1.0)

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
        """Places of the electrons of each spin that is present, up first."""
        return (slice(0, self.n_up), slice(self.n_up, self.electrons))[: len(self.spins)]

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
    def density(self) -> float:
        """n, electrons per bohr^d."""
        return self.electrons / self.box**self.dim

    @property
    def fermi_wavevector(self) -> float:
        """k_F of the majority spin of the infinite gas, 1/bohr."""
        of_unit = 2 * (1 + self.polarization) if self.dim == 2 else 9 * math.pi / 4 * (1 + self.polarization)
        return of_unit ** (1 / self.dim) / self.rs

    @property
    def fermi_energy(self) -> float:
        """E_F = k_F^2 / 2, hartree."""
        return self.fermi_wavevector**2 / 2

    @property
    def temperature(self) -> float:
        """T = Theta E_F, hartree."""
        return self.theta * self.fermi_energy

    @property
    def beta(self) -> float:
        """1 / T, 1/hartree."""
        return 1 / self.temperature


def _is_traced(value):
    """Inside a jitted function, or no value at all while JAX looks at the structure."""
    return not isinstance(value, (int, float))
