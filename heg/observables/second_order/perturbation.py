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

*Higher orders.* The third order of the known elements (heg.observables.second_order.third_order)
has the other sign, r = -F_3 / F_2 > 0: exciting a pair takes from it the correlation with others,
and others screen its interaction. In gases of fourteen electrons what is wanted lies between the
second order and its Pade form F_2 / (1 + r), but for one of seventeen (docs/design.md). The mean of
both is taken, and half of their distance is its error. Beside full diagonalisation of two to four
electrons the error holds as often as a standard error should if it is a fifth of F_2 at least
(docs/validation.md); so it is.

F + F_2 is an estimate, not a bound.

Sources: thermal perturbation theory, Landau and Lifshitz, Statistical Physics, part 1, section 32;
its Pade form, Baker and Graves-Morris, Pade Approximants (Cambridge, 1996), chapter 1.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from heg.gas.system import System
from heg.observables.second_order.relaxation import Relaxation
from heg.statistics import Derived, jackknife

ENERGIES = 400  # of the table of h
ENERGY_RANGE = (1e-5, 1e3)  # of the table, in units of Fermi energy plus temperature
SMALLEST_ARGUMENT = 1e-8  # of tanh(x) / x, which is 1 below it to machine precision
ROUNDING = 1e-12  # relative variance from row to row that counts as none
TINY = 1e-300  # in place of a divisor that is zero
LEFT_OUT_ENERGY = 1.5  # of what is left out, in units of the mean Delta of the doubles
HIGHER_ORDERS = 0.2  # least error, share of F_2; measured on the gases of docs/validation.md
LEAST_RATIO = -0.5  # of the third to the second order, as far as noise may take it


class Row(NamedTuple):
    """The contribution of one K, or of many along the first axis. Energies are those of the cell.

    Attributes:
      variance: of E_loc within K, hartree^2.               []
      squared: sum of W^2 over the doubles by |n|^2 of q, hartree^2.    [Q]
      lowered: sum of W^2 h, likewise; -F_2 is its mean.    [Q]
      known: the same sum of the known elements alone.      []
      products: of the sum of W^2 h and of `known` with `known`.    [2]
      moved: sum of W^2 h with the energies moved along
        `heg.observables.second_order.levels.Levels.directions`.    [2]
      alike: over the doubles of the kinetic energy of K: sums of W^2, of W times its known part,
        and of the square of that, for equal and opposite spins, by |n|^2 of q.    [3, 2, Q]
      response: changes of observables to first order, by name.
    """

    variance: Float[np.ndarray, "*rows"]
    squared: Float[np.ndarray, "*rows transfers"]
    lowered: Float[np.ndarray, "*rows transfers"]
    known: Float[np.ndarray, "*rows"]
    products: Float[np.ndarray, "*rows 2"]
    moved: Float[np.ndarray, "*rows 2"]
    alike: Float[np.ndarray, "*rows 3 2 transfers"]
    response: dict[str, np.ndarray | float]


class Known(NamedTuple):
    """The sum of W^2 h of the known elements over many K, hartree per cell.

    Attributes:
      mean: over the K.
      error: of that mean.
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


class ThirdOrder(NamedTuple):
    """r = -F_3 / F_2 of the known elements.

    Attributes:
      ratio: r.
      error: its standard error.
    """

    ratio: float
    error: float


class SecondOrder(NamedTuple):
    """F_2, hartree per electron, and the parts of its error.

    Attributes:
      value: F_2, half of what is left out, the relaxation of p(K) and higher orders included.
      error: all parts, added in squares.
      of_rows: standard error over the K that are sampled.
      statistical: that with the errors of the means over many K.
      levels: of the regression of the energies.
      left_out: half of an estimate of the most that larger transfers and triples add.
      degenerate: of the correction for degenerate states.
      occupations: of the relaxation of p(K).
      higher_orders: half of the distance between the second order and its Pade form, with the error
        of the latter, or HIGHER_ORDERS of F_2 where that is more.
      doubles: the sum over doubles alone.
      correction: for degenerate states.
      relaxation: of p(K).
      third_ratio: r = -F_3 / F_2 of the known elements.
      resummed: what higher orders add: half of the Pade form less the second order.
      known: the part of the doubles that needs no sampling.
      within: sum of W^2 over the doubles as a share of the variance of E_loc within K.
      by_transfer: sum over doubles up to each |n|^2 of q.  [Q]
      by_transfer_error: its standard error.                [Q]
    """

    value: float
    error: float
    of_rows: float
    statistical: float
    levels: float
    left_out: float
    degenerate: float
    occupations: float
    higher_orders: float
    doubles: float
    correction: float
    relaxation: float
    third_ratio: float
    resummed: float
    known: float
    within: float
    by_transfer: Float[np.ndarray, " transfers"]
    by_transfer_error: Float[np.ndarray, " transfers"]


def thermal_denominator(gap: Float[np.ndarray, "*gaps"], beta: float) -> Float[np.ndarray, "*gaps"]:
    """h(Delta), 1/hartree: beta / 2 at 0, 1 / |Delta| far above the temperature.

    Args:
      gap: Delta, hartree.
      beta: 1/hartree.
    """
    # tanh(x) / x without a division by zero
    argument = beta * np.abs(gap) / 2
    half = np.maximum(argument, SMALLEST_ARGUMENT)
    return beta / 2 * np.tanh(half) / half


def unbiased_square(
    known: Float[np.ndarray, "*doubles"],
    first: Float[np.ndarray, "*doubles"],
    second: Float[np.ndarray, "*doubles"],
    count: int,
) -> Float[np.ndarray, "*doubles"]:
    """W^2 from samples of a = W - known, without the bias that the square of a mean has.

    Args:
      known: the part of W that is known.
      first: sum of a.
      second: sum of a^2.
      count: of the samples.
    """
    # the sum over m != n of a_m a_n is the square of the sum less the sum of the squares
    sampled = (first**2 - second) / (count * (count - 1))
    # (known + mean of a)^2
    mixed = 2 * known * first / count
    return known**2 + mixed + sampled


def second_order(
    system: System,
    rows: Row,
    known: Known,
    beyond: Correction,
    relaxed: Relaxation,
    third: ThirdOrder,
) -> SecondOrder:
    """F_2 from rows of independent K.

    Args:
      system: the gas.
      rows: with K along the first axis of every leaf.
      known: `Row.known` over many K.
      beyond: of heg.observables.second_order.degenerate, mean over many K.
      relaxed: of heg.observables.second_order.relaxation.
      third: of heg.observables.second_order.third_order.
    Raises:
      ValueError: fewer than two rows.
    """
    electrons = system.electrons
    count = len(rows.variance)

    def parts_of(mean):
        parts = _parts(system, mean, known, beyond, count)
        return np.array(parts)

    without_response = rows._replace(response={})
    parts = jackknife(without_response, parts_of)
    value = _Parts(*parts.value.tolist())
    error = _Parts(*parts.error.tolist())
    up_to_transfer = lambda mean: -np.cumsum(mean) / electrons
    curve = jackknife(rows.lowered, up_to_transfer)

    # half way from the second order to its Pade form
    pade = 1 / (1 + max(third.ratio, LEAST_RATIO))
    kept = (1 + pade) / 2
    resummed = (kept - 1) * value.value
    # two parts: the doubles with what belongs to them, and the relaxation of p(K)
    total = kept * value.value + relaxed.value / electrons
    of_pade = value.value * pade**2 * third.error / 2
    half_way = float(np.hypot(resummed, of_pade))
    higher_orders = max(half_way, HIGHER_ORDERS * abs(total))

    # the means over many K are independent of the rows and have errors of their own
    of_known = value.slope * known.error
    of_many = np.hypot(of_known, beyond.spread) / electrons
    statistical = kept * float(np.hypot(error.value, of_many))
    levels = kept * float(np.hypot(value.first_level, value.second_level))
    left_out = kept * max(abs(value.left_out), error.remainder)
    degenerate = kept * abs(value.unsure)
    occupations = relaxed.error / electrons
    errors = [statistical, levels, left_out, degenerate, occupations, higher_orders]
    return SecondOrder(
        value=total,
        error=float(np.linalg.norm(errors)),
        of_rows=kept * error.value,
        statistical=statistical,
        levels=levels,
        left_out=left_out,
        degenerate=degenerate,
        occupations=occupations,
        higher_orders=higher_orders,
        doubles=value.doubles,
        correction=value.correction,
        relaxation=relaxed.value / electrons,
        third_ratio=third.ratio,
        resummed=resummed,
        known=-known.mean / electrons,
        within=value.within,
        by_transfer=curve.value,
        by_transfer_error=curve.error,
    )


def response(rows: Row) -> dict[str, Derived]:
    """Changes of the observables to first order, with errors."""
    unchanged = lambda mean: mean
    return {name: jackknife(values, unchanged) for name, values in rows.response.items()}


class _Parts(NamedTuple):
    """Parts of F_2 that follow from means over the rows, hartree per electron.

    Attributes:
      value: F_2 without the relaxation of p(K).
      doubles: the sum over doubles alone.
      correction: for degenerate states.
      left_out: half of an estimate of the most that is left out.
      remainder: the same before noise below zero is cut off.
      unsure: of the correction for degenerate states.
      first_level: change by the first of `Levels.directions`.
      second_level: change by the second.
      slope: of the control variate, a number.
      within: share of the variance of E_loc that is in the doubles, a number.
    """

    value: float
    doubles: float
    correction: float
    left_out: float
    remainder: float
    unsure: float
    first_level: float
    second_level: float
    slope: float
    within: float


def _parts(system, mean: Row, known: Known, beyond: Correction, count: int) -> _Parts:
    """Parts of F_2 from means over `count` K."""
    per_electron = lambda lowered: -float(lowered) / system.electrons  # F_2 is minus the sum
    squared = float(np.sum(mean.squared))
    sampled = float(np.sum(mean.lowered))
    variance = float(mean.variance)
    # the known part of the rows gives way to that of many more K
    slope = _slope(mean, known, count)
    doubles = sampled + slope * (known.mean - mean.known)

    # by the sum rule, what the variance of E_loc holds beyond the doubles
    remainder = variance - squared
    weight = _weight_of_left_out(system, squared, sampled)
    left_out = max(remainder, 0.0) * weight

    mismatch = _mismatch(mean.alike) * beyond.value
    return _Parts(
        value=per_electron(doubles + beyond.value + left_out),
        doubles=per_electron(doubles),
        correction=per_electron(beyond.value),
        left_out=per_electron(left_out),
        remainder=per_electron(remainder * weight),
        unsure=per_electron(np.hypot(beyond.unsure, mismatch)),
        first_level=per_electron(mean.moved[0] - sampled),
        second_level=per_electron(mean.moved[1] - sampled),
        slope=slope,
        within=squared / max(variance, TINY),
    )


def _slope(mean: Row, known: Known, count: int) -> float:
    """Slope of the sum of W^2 h against its known part, from row to row."""
    sampled = float(np.sum(mean.lowered))
    # Cov(sampled, known) and Var(known) from row to row
    with_sampled, with_known = mean.products
    covariance = with_sampled - sampled * mean.known
    variance = with_known - mean.known * mean.known
    # as if one more row had shown the slope 1; rounding counts as no difference at all
    prior = known.variance / count + ROUNDING * mean.known**2
    if prior <= 0:
        return 1.0
    return float((covariance + prior) / (variance + prior))


def _weight_of_left_out(system: System, squared: float, sampled: float) -> float:
    """h(3/2 Delta') / 2, with Delta' where h has its mean over the doubles, 1/hartree."""
    unit = system.fermi_energy + system.temperature
    lowest, highest = ENERGY_RANGE
    energies = unit * np.geomspace(lowest, highest, ENERGIES)
    h = thermal_denominator(energies, system.beta)
    mean_h = sampled / max(squared, TINY)
    # negated, as the interpolation takes increasing values
    typical = np.interp([-mean_h], -h, energies)
    of_left_out = thermal_denominator(LEFT_OUT_ENERGY * typical, system.beta)
    return float(of_left_out[0]) / 2


def _mismatch(alike) -> float:
    """Share of W^2 among states of one energy that the scaled known elements miss, at most 1."""
    sampled, mixed, known = alike
    # where nothing is known, the sampled W^2 stands for itself
    scaled = np.divide(mixed**2, known, out=sampled.copy(), where=known > 0)
    total = np.sum(scaled)
    if total <= 0:
        return 0.0
    missed = abs(np.sum(sampled) / total - 1)
    return min(missed, 1.0)
