r"""Published exchange-correlation energies of the infinite gas, for comparison.

Three dimensions: fits of f_xc(r_s, Theta, zeta) as the package eminus has them, by Groth et al.
(GDSMFB), Phys. Rev. Lett. 119, 135001 (2017), doi:10.1103/PhysRevLett.119.135001; Karasiev et al.
(KSDT), Phys. Rev. Lett. 112, 076403 (2014), doi:10.1103/PhysRevLett.112.076403; and its correction
by Karasiev, Dufty and Trickey (corrKSDT), Phys. Rev. Lett. 120, 076401 (2018),
doi:10.1103/PhysRevLett.120.076401, which eminus has for zeta = 0.

Two dimensions: the ground state, by Attaccalite et al. (AMGB), Phys. Rev. Lett. 88, 256601 (2002),
doi:10.1103/PhysRevLett.88.256601,

.. math:: e_c = (e^{-\beta r_s} - 1) e_x^{(6)}(r_s, \zeta) + \alpha_0(r_s) + \alpha_1(r_s) \zeta^2
          + \alpha_2(r_s) \zeta^4 ,

with the coefficients of libxc 7 (lda_c_2d_amgb.mpl).

The classical plasma in three dimensions: the fit of the fluid by Potekhin and Chabrier, Phys. Rev.
E 62, 8554 (2000), doi:10.1103/PhysRevE.62.8554, to the simulations of DeWitt and Slattery (1999),
with the coefficients of the stellar evolution code MESA (eos/private/skye_coulomb_liquid.f90).
"""

import dataclasses
import functools
import math
import warnings
from typing import NamedTuple

import numpy as np

from heg.gas.plasma import Plasma
from heg.gas.system import RANGES, Range, System, fermi_wavevector, real_number, whole_number


@dataclasses.dataclass(frozen=True)
class InfiniteGas:
    """A gas of infinitely many electrons, whose polarisation may be any number from 0 to 1.

    Attributes:
      dim: 2 or 3.
      rs: Wigner-Seitz radius, bohr.
      theta: temperature over the Fermi energy of the majority spin.
      polarization: zeta.
      coupling: scale of the Coulomb energy.
    Raises:
      ValueError: a value is impossible; the message names the field and the remedy.
    """

    dim: int
    rs: float
    theta: float
    polarization: float
    coupling: float = 1.0

    def __post_init__(self):
        if whole_number("dim", self.dim) not in (2, 3):
            raise ValueError(f"dim is {self.dim}: it must be 2 or 3")
        values = {"rs": self.rs, "theta": self.theta, "zeta": self.polarization}
        ranges = {**RANGES, "zeta": Range(0.0, 1.0, "")}
        for name, given in values.items():
            value = real_number(name, given)
            low, high, _ = ranges[name]
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}: it must lie between {low:g} and {high:g}")

    @property
    def density(self) -> float:
        """n, electrons per bohr^d."""
        if self.dim == 2:
            return 1 / (math.pi * self.rs**2)
        return 3 / (4 * math.pi * self.rs**3)

    @property
    def temperature(self) -> float:
        """T = Theta E_F, hartree."""
        k_fermi = fermi_wavevector(self.dim, self.rs, self.polarization)
        return self.theta * k_fermi**2 / 2


Gas = System | InfiniteGas


class Coefficients(NamedTuple):
    """Coefficients of one alpha_i of the AMGB formula; there d = -a h."""

    a: float
    b: float
    c: float
    e: float
    f: float
    g: float
    h: float

    def alpha(self, rs: float) -> float:
        """alpha_i at r_s (bohr), hartree."""
        a, b, c, e, f, g, h = self
        # with d = -a h it vanishes for r_s -> infinity
        polynomial = b * rs + c * rs**2 - a * h * rs**3
        denominator = e * rs + f * rs**1.5 + g * rs**2 + h * rs**3
        return a + polynomial * np.log1p(1 / denominator)


# by power of zeta^2
AMGB = (
    Coefficients(-0.1925, 0.0863136, 0.0572384, 1.0022, -0.02069, 0.33997, 1.747e-2),
    Coefficients(0.117331, -3.394e-2, -7.66765e-3, 0.4133, 0.0, 6.68467e-2, 7.799e-4),
    Coefficients(0.0234188, -0.037093, 0.0163618, 1.424301, 0.0, 0.0, 1.163099),
)
BETA = 1.3386
PAPERS = {
    "gdsmfb": "Groth et al. 2017",
    "ksdt": "Karasiev et al. 2014",
    "corrksdt": "Karasiev et al. 2018",
    "amgb": "Attaccalite et al. 2002, ground state",
    "fluid": "Potekhin and Chabrier 2000",
}


# of the internal energy of the classical plasma: A_1, A_2, and B_1 to B_4
FLUID_A = (-0.9070, 0.62954)
FLUID_B = (4.56e-3, 211.6, -1e-4, 4.62e-3)


class FitRange(NamedTuple):
    """The data behind a fit; beyond them it extrapolates, to known limits at best.

    Attributes:
      dim: dimension of the gas.
      lowest_rs, highest_rs: bohr.
      highest_theta: of the data.
    """

    dim: int
    lowest_rs: float
    highest_rs: float
    highest_theta: float


FIT_RANGES = {
    "gdsmfb": FitRange(3, 0.1, 20.0, 8.0),
    "ksdt": FitRange(3, 1.0, 40.0, 8.0),
    "corrksdt": FitRange(3, 0.1, 20.0, 8.0),
    "amgb": FitRange(2, 1.0, 40.0, np.inf),  # of the ground state, whatever Theta is
}


def gdsmfb(system: Gas) -> float:
    """f_xc by Groth et al., hartree per electron.

    Raises:
      ImportError: eminus is not installed (extra `reference`).
      ValueError: two dimensions, or a coupling that is not 1: the fit is for neither.
    Accuracy: that of the fit, about 0.3 % of f_xc; agrees with the published code to 2e-8
      (tests/reference/test_published.py).
    """
    # imported here, so that a measurement without it needs no eminus
    from eminus.xc.lda_xc_gdsmfb import lda_xc_gdsmfb_spin

    density, polarization = _arguments(system)
    energies, *_ = lda_xc_gdsmfb_spin(density, polarization, T=system.temperature)
    return float(energies[0])


def ksdt(system: Gas) -> float:
    """f_xc by Karasiev et al. of 2014, hartree per electron; errors as of `gdsmfb`."""
    from eminus.xc.lda_xc_ksdt import lda_xc_ksdt_spin

    density, polarization = _arguments(system)
    energies, *_ = lda_xc_ksdt_spin(density, polarization, T=system.temperature)
    return float(energies[0])


def corrected_ksdt(system: Gas) -> float:
    """f_xc by Karasiev, Dufty and Trickey, hartree per electron; errors as of `gdsmfb`.

    Raises:
      ValueError: also a polarised gas.
    """
    from eminus.xc.lda_xc_corr_ksdt import lda_xc_corr_ksdt

    density, polarization = _arguments(system)
    if polarization[0]:
        raise ValueError("corrKSDT is for polarization 0")
    energies, *_ = lda_xc_corr_ksdt(density, T=system.temperature)
    return float(energies[0])


def _arguments(system):
    """Density and polarisation as eminus takes them.  [1], [1]"""
    if system.dim != 3 or system.coupling != 1:
        raise ValueError("the published f_xc is that of three dimensions at coupling 1")
    return np.array([system.density]), np.array([system.polarization])


def amgb(system: Gas) -> float:
    """e_xc of the ground state in two dimensions by Attaccalite et al., hartree per electron.

    Raises:
      ValueError: three dimensions, or a coupling that is not 1.
    """
    if system.dim != 2 or system.coupling != 1:
        raise ValueError("AMGB is for two dimensions at coupling 1")
    rs = system.rs
    zeta = system.polarization
    # e_x = -4 sqrt(2) / (3 pi r_s), for each spin as n^(3/2)
    unpolarised = -4 * np.sqrt(2) / (3 * np.pi * rs)
    up = (1 + zeta) ** 1.5
    down = (1 - zeta) ** 1.5
    scaling = (up + down) / 2
    exchange = unpolarised * scaling
    # e_x^(6): exchange without its terms up to zeta^4
    remainder = scaling - 1 - 3 / 8 * zeta**2 - 3 / 128 * zeta**4
    higher = unpolarised * remainder
    alphas = [coefficients.alpha(rs) for coefficients in AMGB]
    exponents = np.array([0.0, 2.0, 4.0])
    polynomial = np.array(alphas) @ zeta**exponents
    damping = np.expm1(-BETA * rs)
    correlation = polynomial + damping * higher
    return float(exchange + correlation)


def fluid(gamma: float) -> float:
    r"""beta f_exc per electron of the infinite classical plasma, its fluid in three dimensions.

    .. math:: \beta f = A_1 [\sqrt{\Gamma (A_2 + \Gamma)} - A_2 \ln(\sqrt{\Gamma / A_2} +
              \sqrt{1 + \Gamma / A_2})] + 2 A_3 [\sqrt\Gamma - \arctan\sqrt\Gamma]
              + B_1 [\Gamma - B_2 \ln(1 + \Gamma / B_2)] + \tfrac{B_3}{2} \ln(1 + \Gamma^2 / B_4)

    with A_3 = -sqrt(3)/2 - A_1/sqrt(A_2): it is that of Debye and Hueckel for Gamma -> 0.

    Args:
      gamma: Gamma, up to about 170, where the plasma freezes.
    """
    a1, a2 = FLUID_A
    a3 = _debye_hueckel(a1, a2)
    b1, b2, b3, b4 = FLUID_B
    root = np.sqrt(gamma)
    # ln(sqrt(x) + sqrt(1 + x)) = arcsinh sqrt(x), x = Gamma / A_2
    mean = np.sqrt(gamma * (a2 + gamma))
    angle = np.arcsinh(np.sqrt(gamma / a2))
    strong = mean - a2 * angle
    weak = root - np.arctan(root)
    linear = gamma - b2 * np.log1p(gamma / b2)
    logarithm = np.log1p(gamma**2 / b4)
    return float(a1 * strong + 2 * a3 * weak + b1 * linear + b3 / 2 * logarithm)


def _debye_hueckel(a1, a2):
    """A_3 of `fluid`, which makes it that of Debye and Hueckel for Gamma -> 0."""
    return -np.sqrt(3) / 2 - a1 / np.sqrt(a2)


def fluid_energy(gamma: float) -> float:
    """beta u per electron of the infinite classical plasma: Gamma d/dGamma of `fluid`."""
    a1, a2 = FLUID_A
    a3 = _debye_hueckel(a1, a2)
    b1, b2, b3, b4 = FLUID_B
    # term by term as in `fluid`
    strong = a1 / np.sqrt(a2 + gamma) + a3 / (1 + gamma)
    small = b1 * gamma**2 / (b2 + gamma) + b3 * gamma**2 / (b4 + gamma**2)
    return float(gamma**1.5 * strong + small)


FITS = {
    "gdsmfb": gdsmfb,
    "ksdt": ksdt,
    "corrksdt": corrected_ksdt,
    "amgb": amgb,
}


@functools.singledispatch
def published(system: Gas) -> dict[str, float]:
    """All published f_xc at the r_s, Theta and zeta of a gas, hartree per electron, by name.

    A fit that is not for such a gas, or whose package is missing, is left out.
    """
    energies = {}
    for name, fit in FITS.items():
        try:
            energies[name] = fit(system)
        except (ImportError, ValueError):
            continue
    return energies


def published_f_xc(dim: int, rs: float, theta: float, zeta: float = 0.0) -> dict[str, float]:
    """All published f_xc of the infinite gas there are for a state, hartree per electron, by name.

    Three dimensions: gdsmfb (Groth et al. 2017), ksdt (Karasiev et al. 2014) and, for zeta = 0,
    corrksdt (Karasiev et al. 2018).  Two dimensions: amgb (Attaccalite et al. 2002), e_xc of the
    ground state whatever Theta is.  The sources are in heg.reference.published.

    Args:
      dim: 2 or 3.
      rs: Wigner-Seitz radius, bohr.
      theta: temperature over the Fermi energy of the majority spin.
      zeta: polarisation, 0 to 1.

    Raises:
      ValueError: a value is impossible.
      ImportError: three dimensions without the package eminus.

    Warns: a fit whose data do not reach to the state, which it extrapolates.
    """
    gas = InfiniteGas(dim, rs, theta, zeta)
    energies = published(gas)
    if not energies:
        raise ImportError("published f_xc in three dimensions need eminus: pip install eminus")
    for name, sentence in out_of_range(dim, rs, theta).items():
        if name in energies:
            warnings.warn(f"{PAPERS[name]}: {sentence}", stacklevel=2)
    return energies


@published.register
def _(system: Plasma) -> dict[str, float]:
    """The fit of the fluid in three dimensions; no such fit is known here in two."""
    return {"fluid": fluid(system.coupling)} if system.dim == 3 else {}


def out_of_range(dim: int, rs: float, theta: float) -> dict[str, str]:
    """A sentence for each fit of that dimension whose data do not reach to r_s (bohr) and Theta."""
    sentences = {}
    for name, fit in FIT_RANGES.items():
        if fit.dim != dim:
            continue
        if fit.lowest_rs <= rs <= fit.highest_rs and theta <= fit.highest_theta:
            continue
        bound = f"r_s from {fit.lowest_rs:g} to {fit.highest_rs:g}"
        if np.isfinite(fit.highest_theta):
            bound += f" and Theta up to {fit.highest_theta:g}"
        sentences[name] = f"f_xc_{name}_ha is outside of the data of its fit, {bound}."
    return sentences
