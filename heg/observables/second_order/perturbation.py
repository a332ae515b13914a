r"""Beyond the bound: the free energy to second order about the trained density matrix.

The trained rho has the variational free energy F as its zeroth and first order. What couples its
wavefunctions is the perturbation. With W the matrix elements of H, e_K the energies <K|H|K> and
p(K) the probabilities, thermal perturbation theory adds

.. math:: F_2 = -\mathbb{E}_{K \sim p} \sum_{K' \ne K} W_{KK'}^2\, h(\Delta_{KK'}), \qquad
          h(\Delta) = \frac{\tanh(\beta\Delta/2)}{\Delta}, \qquad \Delta_{KK'} = e_{K'} - e_K .

h is even and finite, and the sum is that over pairs, each counted from both ends: (p_K + p_K')
tanh(beta Delta / 2) = p_K - p_K'. K' runs over the double excitations of K up to a largest momentum
transfer (heg.observables.second_order.doubles).

*W^2.* The part of E_loc that goes along with operators of known elements is known; the rest is
sampled (heg.observables.second_order.amplitudes). With terms a_m of mean W, the sum over m != n of
a_m a_n / (M (M - 1)) has the mean W^2.

*Energies.* e_K = c + alpha epsilon_K + gamma U_K, ideal and Hartree-Fock energy of K, is fitted to
sampled energies of drawn states and of their doubles.

*What is left out.* The sum of W^2 over all K' is the variance of E_loc within K. What the doubles
do not hold of it, R, belongs to larger transfers and to triples. An estimate of the most that it
adds is R h(3/2 Delta'), h(Delta') being the mean of h over the doubles; half of that counts as
value and half as error.

*Many K.* The part of the known elements alone needs no samples of x. Its mean over many more K than
are sampled makes it a control variate for the choice of K. Its slope is that of the rows, drawn
towards 1 where they differ little.

*Degenerate states.* Where W is not small beside Delta and T, second order is not enough: two states
of one energy are lowered by W, not by beta W^2 / 2. The states of one kinetic energy that K is
coupled to are diagonalised with the known elements; where they are too many, each pair by itself,

.. math:: W^2 h(\Delta) \to T \ln \frac{\cosh \beta \sqrt{\Delta^2/4 + W^2}}{\cosh(\beta\Delta/2)} .

*The diagonal.* p(K) itself is not quite the best for the energies e_K: what the best one would add
to F is a relative entropy (heg.observables.second_order.relaxation).

*Denominators.* A pair that is excited loses its correlation with all others, which raises Delta by
-4 F_2 / N (two electrons, each with a share 2 F_2 / N). Brillouin and Wigner's theory with that
size-consistent shift is solved for self-consistently; what it changes is the measure of the third
order.

F + F_2 is an estimate, not a bound.

Sources: thermal perturbation theory, Landau and Lifshitz, Statistical Physics, part 1, section 32;
the shift, Carter-Fenk and Head-Gordon, J. Chem. Phys. 158, 234108 (2023), doi:10.1063/5.0150033.
"""

from typing import NamedTuple

import jax
import numpy as np

from heg.gas.system import System
from heg.observables.second_order.relaxation import Relaxation
from heg.statistics import Derived, jackknife

BINS = 400  # of the spectrum, over eight decades
LEFT_OUT_ENERGY = 1.5  # of what is left out, in units of the mean Delta of the doubles


class Row(NamedTuple):
    """What one K says. Energies are in hartree per cell.

    Attributes:
      variance: of E_loc within K, hartree^2.               []
      squared: sum of W^2 over the doubles by |n|^2 of q, hartree^2.    [Q]
      lowered: sum of W^2 h, likewise; -F_2 is its mean.    [Q]
      known: the same sum of the known elements alone.      []
      products: of the sum of W^2 h and of `known` with `known`.    [2]
      moved: sum of W^2 h with the energies moved along `heg.observables.second_order.levels.Levels.directions`.    [2]
      alike: over the doubles of the kinetic energy of K: sums of W^2, of W times its known part,
        and of the square of that, for equal and opposite spins, by |n|^2 of q.    [3, 2, Q]
      spectrum: sum of W^2 by |Delta|, shared between neighbouring energies of `spectrum_energies`.    [BINS]
      response: changes of observables to first order, by name.
    """

    variance: np.ndarray
    squared: np.ndarray
    lowered: np.ndarray
    known: np.ndarray
    products: np.ndarray
    moved: np.ndarray
    alike: np.ndarray
    spectrum: np.ndarray
    response: dict[str, np.ndarray]


class Known(NamedTuple):
    """The sum of W^2 h of the known elements over many K, hartree per cell.

    Attributes:
      mean, error: over the K.
      variance: from K to K, hartree^2.
    """

    mean: float
    error: float
    variance: float


class Correction(NamedTuple):
    """What degenerate states add to the sum of W^2 h, hartree per cell.

    Attributes:
      value: mean over K.
      spread: standard error of that.
      unsure: of shells with too many states to be diagonalised: the size of what their pairs add.
    """

    value: float
    spread: float
    unsure: float


class SecondOrder(NamedTuple):
    """F_2, hartree per electron, and the parts of its error.

    Attributes:
      value: F_2, half of what is left out included.
      error: all parts, added in squares.
      of_rows: standard error over the K that are sampled.
      statistical: that with the errors of the means over many K.
      levels: of the regression of the energies.
      left_out: half of an estimate of the most that larger transfers and triples add.
      denominators: change by the shift of the denominators.
      degenerate: of the correction for degenerate states.
      occupations: of the relaxation of p(K).
      doubles: the sum over doubles alone.
      correction: for degenerate states.
      relaxation: of p(K).
      shifted: the same with shifted denominators.
      known: the part of the doubles that needs no sampling.
      within: sum of W^2 over the doubles as a share of the variance of E_loc within K.
      by_transfer: sum over doubles up to each |n|^2 of q, and its standard error.    [Q], [Q]
    """

    value: float
    error: float
    of_rows: float
    statistical: float
    levels: float
    left_out: float
    denominators: float
    degenerate: float
    occupations: float
    doubles: float
    correction: float
    relaxation: float
    shifted: float
    known: float
    within: float
    by_transfer: np.ndarray
    by_transfer_error: np.ndarray


def thermal_denominator(gap: np.ndarray, beta: float) -> np.ndarray:
    """h(Delta), 1/hartree: beta / 2 at 0, 1 / |Delta| far above the temperature.

    Args:
      gap: Delta, hartree.
      beta: 1/hartree.
    """
    half = np.maximum(beta * np.abs(gap) / 2, 1e-8)
    return beta / 2 * np.tanh(half) / half


def unbiased_square(
    known: np.ndarray, first: np.ndarray, second: np.ndarray, count: int
) -> np.ndarray:
    """W^2 from `count` samples.

    Args:
      known: the part of W that is known.                   [D]
      first, second: sums of a and of a^2, a having the mean W - known.    [D]
    """
    sampled = (first**2 - second) / (count * (count - 1))
    return known**2 + 2 * known * first / count + sampled


def spectrum_energies(system: System) -> np.ndarray:
    """Energies |Delta| of the spectrum, hartree.  [BINS]"""
    unit = system.fermi_energy + system.temperature
    return unit * np.geomspace(1e-5, 1e3, BINS)


def spectrum_of(squares: np.ndarray, gap: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """Sum of W^2 by |Delta|; each is shared between the two nearest energies.  [D], [D], [BINS] ->
    [BINS]"""
    steps = np.log(np.abs(gap) / energies[0] + 1e-300) / np.log(energies[1] / energies[0])
    steps = np.clip(steps, 0, len(energies) - 1.001)
    lower = steps.astype(int)
    share = steps - lower
    below = np.bincount(lower, squares * (1 - share), len(energies))
    return below + np.bincount(lower + 1, squares * share, len(energies))


def shifted_sum(system: System, spectrum: np.ndarray) -> float:
    """-F_2 with every |Delta| raised by 4 |F_2| / N, hartree per cell."""
    energies = spectrum_energies(system)
    lowered = 0.0
    for _ in range(100):
        raised = energies + 4 * max(lowered, 0.0) / system.electrons
        before, lowered = lowered, float(spectrum @ thermal_denominator(raised, system.beta))
        lowered = (before + lowered) / 2
    return lowered


def second_order(
    system: System, rows: Row, known: Known, beyond: Correction, relaxed: Relaxation
) -> SecondOrder:
    """F_2 from rows of independent K.

    Args:
      rows: with K along the first axis of every leaf.
      known: `Row.known` over many K.
      beyond: of heg.observables.second_order.degenerate, mean over many K.
      relaxed: of heg.observables.second_order.relaxation.
    Raises:
      ValueError: fewer than two rows.
    """
    plain = rows._replace(response={})
    count = len(rows.variance)

    def parts(mean):
        return np.array(list(_parts(system, mean, known, beyond, count).values()))

    found = jackknife(plain, parts)
    names = list(_parts(system, _mean(plain), known, beyond, count))
    value = dict(zip(names, found.value.tolist()))
    error = dict(zip(names, found.error.tolist()))
    curve = jackknife(plain.lowered, lambda mean: -np.cumsum(mean) / system.electrons)
    of_many = np.hypot(value["slope"] * known.error, beyond.spread) / system.electrons
    errors = {
        "statistical": float(np.hypot(error["value"], of_many)),
        "levels": float(np.hypot(value["first_level"], value["second_level"])),
        "left_out": max(abs(value["left_out"]), error["remainder"]),
        "denominators": abs(value["shift"]),
        "degenerate": abs(value["unsure"]),
        "occupations": relaxed.error / system.electrons,
    }
    return SecondOrder(
        value=value["value"] + relaxed.value / system.electrons,
        error=float(np.linalg.norm(list(errors.values()))),
        of_rows=error["value"],
        **errors,
        doubles=value["doubles"],
        correction=value["correction"],
        relaxation=relaxed.value / system.electrons,
        shifted=value["doubles"] + value["shift"],
        known=-known.mean / system.electrons,
        within=value["within"],
        by_transfer=curve.value,
        by_transfer_error=curve.error,
    )


def response(rows: Row) -> dict[str, Derived]:
    """Changes of the observables to first order, with errors."""
    return {name: jackknife(values, lambda mean: mean) for name, values in rows.response.items()}


def _mean(rows):
    return jax.tree.map(lambda leaf: leaf.mean(axis=0), rows)


def _parts(system, mean, known, beyond, count):
    """Parts of F_2 per electron from means over `count` K; `slope` and `within` are shares."""
    squared, sampled = float(np.sum(mean.squared)), float(np.sum(mean.lowered))
    with_lowered, with_known = mean.products - np.array([sampled, mean.known]) * mean.known
    # as if one more row had shown the slope 1; rounding counts as no difference at all
    prior = known.variance / count + 1e-12 * mean.known**2
    slope = float((with_lowered + prior) / (with_known + prior)) if prior > 0 else 1.0
    lowered = sampled + slope * (known.mean - mean.known)
    # of what is left out
    energies = spectrum_energies(system)
    h = thermal_denominator(energies, system.beta)
    typical = np.interp(-sampled / max(squared, 1e-300), -h, energies)
    remainder = float(mean.variance) - squared
    weight = thermal_denominator(LEFT_OUT_ENERGY * typical, system.beta) / 2
    left_out = max(remainder, 0.0) * weight
    shift = shifted_sum(system, mean.spectrum) - float(mean.spectrum @ h)
    # scaled known elements stand for all of W among states of one energy
    near, mixed, near_known = mean.alike
    scaled = np.sum(np.divide(mixed**2, near_known, out=near.copy(), where=near_known > 0))
    mismatch = min(abs(np.sum(near) / scaled - 1), 1.0) if scaled > 0 else 0.0
    numbers = {
        "value": lowered + beyond.value + left_out,
        "doubles": lowered,
        "correction": beyond.value,
        "left_out": left_out,
        "remainder": remainder * weight,
        "shift": shift,
        "unsure": np.hypot(beyond.unsure, mismatch * beyond.value),
        "first_level": mean.moved[0] - sampled,
        "second_level": mean.moved[1] - sampled,
    }
    found = {name: -float(number) / system.electrons for name, number in numbers.items()}
    return found | {"slope": slope, "within": squared / max(float(mean.variance), 1e-300)}
