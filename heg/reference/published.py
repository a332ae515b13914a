r"""Published exchange-correlation energies of the infinite gas, to stand beside ours.

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
"""

import numpy as np

from heg.gas.system import System

# by power of zeta^2
AMGB = {
    "a": (-0.1925, 0.117331, 0.0234188),
    "b": (0.0863136, -3.394e-2, -0.037093),
    "c": (0.0572384, -7.66765e-3, 0.0163618),
    "e": (1.0022, 0.4133, 1.424301),
    "f": (-0.02069, 0.0, 0.0),
    "g": (0.33997, 6.68467e-2, 0.0),
    "h": (1.747e-2, 7.799e-4, 1.163099),
}
BETA = 1.3386
PAPERS = {
    "gdsmfb": "Groth et al. 2017",
    "ksdt": "Karasiev et al. 2014",
    "corrksdt": "Karasiev et al. 2018",
    "amgb": "Attaccalite et al. 2002, ground state",
}
# r_s from and to, and highest Theta, of the data behind each fit; beyond them it extrapolates, to
# known limits at best
FITTED = {
    "gdsmfb": (0.1, 20.0, 8.0),
    "ksdt": (1.0, 40.0, 8.0),
    "corrksdt": (0.1, 20.0, 8.0),
    "amgb": (1.0, 40.0, np.inf),  # of the ground state, whatever Theta is
}


def gdsmfb(system: System) -> float:
    """f_xc by Groth et al., hartree per electron.

    Raises:
      ImportError: eminus is not installed (extra `reference`).
      ValueError: two dimensions, or a coupling that is not 1: the fit is for neither.
    Accuracy: that of the fit, about 0.3 % of f_xc; agrees with the published code to 2e-8
      (tests/test_references.py).
    """
    # imported here, so that a measurement without it needs no eminus
    from eminus.xc.lda_xc_gdsmfb import lda_xc_gdsmfb_spin

    return float(lda_xc_gdsmfb_spin(*_arguments(system), T=system.temperature)[0][0])


def ksdt(system: System) -> float:
    """f_xc by Karasiev et al. of 2014; as `gdsmfb`."""
    from eminus.xc.lda_xc_ksdt import lda_xc_ksdt_spin

    return float(lda_xc_ksdt_spin(*_arguments(system), T=system.temperature)[0][0])


def corrected_ksdt(system: System) -> float:
    """f_xc by Karasiev, Dufty and Trickey, of the unpolarised gas; as `gdsmfb`."""
    from eminus.xc.lda_xc_corr_ksdt import lda_xc_corr_ksdt

    density, polarization = _arguments(system)
    if polarization[0]:
        raise ValueError("corrKSDT is for polarization 0")
    return float(lda_xc_corr_ksdt(density, T=system.temperature)[0][0])


def _arguments(system):
    if system.dim != 3 or system.coupling != 1:
        raise ValueError("the published f_xc is that of three dimensions at coupling 1")
    return np.array([system.density]), np.array([system.polarization])


def amgb(system: System) -> float:
    """e_xc of the ground state in two dimensions by Attaccalite et al., hartree per electron.

    Raises:
      ValueError: three dimensions, or a coupling that is not 1.
    """
    if system.dim != 2 or system.coupling != 1:
        raise ValueError("AMGB is for two dimensions at coupling 1")
    rs, zeta = system.rs, system.polarization
    logarithms = []
    for a, b, c, e, f, g, h in zip(*AMGB.values()):
        polynomial = b * rs + c * rs**2 - a * h * rs**3
        logarithms.append(
            a + polynomial * np.log1p(1 / (e * rs + f * rs**1.5 + g * rs**2 + h * rs**3))
        )
    of_spin = ((1 + zeta) ** 1.5 + (1 - zeta) ** 1.5) / 2
    unpolarised = -4 * np.sqrt(2) / (3 * np.pi * rs)
    higher = unpolarised * (of_spin - 1 - 3 / 8 * zeta**2 - 3 / 128 * zeta**4)
    correlation = logarithms @ zeta ** (2.0 * np.arange(3)) + np.expm1(-BETA * rs) * higher
    return float(unpolarised * of_spin + correlation)


def published(system: System) -> dict[str, float]:
    """Whatever is known of the infinite gas at the r_s, Theta and zeta of a gas, hartree per
    electron, by name."""
    found = {}
    for name, function in (
        ("gdsmfb", gdsmfb),
        ("ksdt", ksdt),
        ("corrksdt", corrected_ksdt),
        ("amgb", amgb),
    ):
        try:
            found[name] = function(system)
        except (ImportError, ValueError):
            continue
    return found


def out_of_range(dim: int, rs: float, theta: float) -> dict[str, str]:
    """Which of the fits in that dimension are outside of their data at r_s (bohr) and Theta, with a
    sentence each."""
    found = {}
    for name in ("amgb",) if dim == 2 else ("gdsmfb", "ksdt", "corrksdt"):
        low, high, hottest = FITTED[name]
        if not (low <= rs <= high and theta <= hottest):
            bound = "" if np.isinf(hottest) else f" and Theta up to {hottest:g}"
            found[name] = (
                f"f_xc_{name}_ha is outside of the data of its fit, r_s from {low:g} to {high:g}{bound}."
            )
    return found
