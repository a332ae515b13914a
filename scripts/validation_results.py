"""The numbers of docs/validation.json beside their references, and what they say together."""

import csv
import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ladder import LARGE, Rung, small_rungs

from heg.gas.coulomb import madelung
from heg.statistics import Estimate

DOCS = Path(__file__).parents[1] / "docs"
RESULTS = DOCS / "validation.json"
PUBLISHED = DOCS / "published.csv"
GOOD = 2e-4  # hartree per electron: what the second order aims at
# hartree per electron: what the orbital cutoff of p(K) and the references leave open
RESOLUTION = 1e-6
WORTH_SHARING = 3e-4  # hartree per electron: a smaller F_diag - F_exact has no share worth printing
SETTLED = 2.0  # errors: a larger drift is not a converged training


def load() -> dict[str, dict]:
    """Results at hand by name."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def difference(one: Estimate, other: Estimate, also: float = 0.0) -> Estimate:
    """One number less another, with a further error if there is one."""
    error = np.linalg.norm([one.error, other.error, also])
    return Estimate(one.mean - other.mean, float(error))


class Remaining(NamedTuple):
    """Distances from the exact F, hartree per electron.

    Attributes:
      of_bound: F less the exact one.
      of_second_order: F + F_2 less the exact one.
      error: of the latter.
      strict_error: the same without the share of F_2 that stands for higher orders.
    """

    of_bound: float
    of_second_order: float
    error: float
    strict_error: float

    @property
    def in_errors(self) -> float:
        """That of F + F_2 in its errors."""
        return self.of_second_order / self.error

    @property
    def is_good(self) -> bool:
        """Is F + F_2 exact within three strict errors, a tenth of what was missing, or the aim?"""
        allowed = max(3 * self.strict_error, self.of_bound / 10, GOOD)
        return abs(self.of_second_order) <= allowed

    @property
    def is_worse(self) -> bool:
        """Is F + F_2 farther off than F?"""
        return abs(self.of_second_order) > abs(self.of_bound) + 3 * self.strict_error


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A gas of two to four electrons beside full diagonalisation, hartree per electron."""

    rung: Rung
    row: dict

    @property
    def bound(self) -> Estimate:
        """F as measured."""
        return Estimate(**self.row["F"])

    def reference(self, kind: str) -> Estimate:
        """F of the "exact" gas, of "degenerate" determinants mixed, or "diagonal" in them."""
        return Estimate(*self.row["references"][kind])

    @property
    def room(self) -> float:
        """F_diag less F_exact: what a flow can bring."""
        return self.reference("diagonal").mean - self.reference("exact").mean

    @property
    def mixing(self) -> float:
        """F_diag less F_deg: what mixing degenerate determinants is worth."""
        return self.reference("diagonal").mean - self.reference("degenerate").mean

    def above(self, kind: str) -> Estimate:
        """F less a reference."""
        return difference(self.bound, self.reference(kind), RESOLUTION)

    @property
    def share(self) -> float | None:
        """The part of the room that the flow brings; None where it is too small to say."""
        if self.room <= WORTH_SHARING:
            return None
        return 1 - self.above("exact").mean / self.room

    @property
    def second_order(self) -> dict | None:
        """F_2 and the parts of its error, if they were computed."""
        return self.row.get("second_order")

    @property
    def remaining(self) -> Remaining:
        """What F and F + F_2 lack."""
        second = self.second_order
        strict = np.sqrt(max(second["error"] ** 2 - second["higher_orders"] ** 2, 0.0))
        above = self.above("exact")
        return Remaining(
            of_bound=above.mean,
            of_second_order=above.mean + second["value"],
            error=float(np.hypot(above.error, second["error"])),
            strict_error=float(np.hypot(above.error, strict)),
        )

    @property
    def left_by_second_order_alone(self) -> float:
        """F + F_2 less F_exact without what the third order says of higher ones."""
        return self.remaining.of_second_order - self.second_order["resummed"]


def comparisons(results: dict[str, dict], flow: bool) -> list[Comparison]:
    """The small gases at hand, with a flow or without."""
    return [
        Comparison(rung, results[rung.name])
        for rung in small_rungs()
        if rung.flow == flow and rung.name in results
    ]


def with_second_order(results: dict[str, dict]) -> list[Comparison]:
    """The small gases whose second order is known."""
    return [one for one in comparisons(results, flow=True) if one.second_order]


def missed(results: dict[str, dict]) -> list[Comparison]:
    """The small gases for which F + F_2 is not good."""
    return [one for one in with_second_order(results) if not one.remaining.is_good]


def drift(row: dict) -> float:
    """The change of F from the second to the last third of a training, in errors."""
    before, after = (Estimate(*third) for third in row["thirds"])
    change = difference(after, before)
    return change.mean / change.error


def rms(values: list[float]) -> float:
    """Root mean square; of nothing it is not a number."""
    return float(np.sqrt(np.mean(np.square(values)))) if len(values) else np.nan


def verdicts(results: dict[str, dict]) -> list[str]:
    """Sentences on the rungs, counted."""
    identity = comparisons(results, flow=False)
    flows = comparisons(results, flow=True)
    done = len(identity) + len(flows)
    return [
        f"- {done} of {len(small_rungs())} runs of two to four electrons are done.",
        _identity_verdict(identity),
        _flow_verdict(flows),
        *_share_verdicts(flows),
    ]


def _identity_verdict(gases):
    """Without a flow F must be that of single determinants."""
    above = [one.above("diagonal") for one in gases]
    near = sum(abs(distance.mean) < 5e-5 for distance in above)
    within = sum(abs(distance.mean) < 3 * distance.error for distance in above)
    farthest = max((distance.mean for distance in above), default=0.0)
    return (
        f"- Identity flow: {near} of {len(above)} within 0.05 mHa per electron of F_diag, "
        f"{within} within 3 errors; the farthest is {1e3 * farthest:.3f} mHa above it."
    )


def _flow_verdict(gases):
    """With a flow F is a bound, and no worse than single determinants."""
    bound = 0
    below = 0
    for one in gases:
        exact = one.above("exact")
        diagonal = one.above("diagonal")
        bound += exact.mean > -3 * exact.error
        below += diagonal.mean < 3 * diagonal.error
    return (
        f"- Flow: {bound} of {len(gases)} not below F_exact by more than 3 errors, "
        f"{below} not above F_diag."
    )


def _share_verdicts(gases):
    """The part of the correlation that flows reach, where it is well known."""
    known = [one for one in gases if one.room > max(WORTH_SHARING, 10 * one.bound.error)]
    polarised = [one.share for one in known if one.rung.system.n_down == 0]
    two_spins = [one.share for one in known if one.rung.system.n_down]
    lines = []
    if polarised:
        many = sum(share >= 0.7 for share in polarised)
        good = f", {many} of {len(polarised)} at 70 % or more"
        lines.append(_share_line("Polarised", polarised, good))
    if two_spins:
        lines.append(_share_line("Two spins", two_spins))
    return lines


def _share_line(kind, shares, good=""):
    reached = f"from {min(shares):.0%} to {max(shares):.0%}{good}"
    return f"- {kind}: share of F_diag − F_exact, where known to 10 %, {reached}."


def second_order_verdicts(results: dict[str, dict]) -> list[str]:
    """Sentences on the second order of the small rungs, counted."""
    remaining = [one.remaining for one in with_second_order(results)]
    if not remaining:
        return []
    good = sum(one.is_good for one in remaining)
    worse = sum(one.is_worse for one in remaining)
    within = np.mean([abs(one.in_errors) <= 1 for one in remaining])
    shares = [1 - one.of_second_order / one.of_bound for one in remaining if one.of_bound > 1e-3]
    lines = [
        f"- Second order: {good} of {len(remaining)} within the largest of three "
        "errors, a tenth of F − F_exact and 0.2 mHa per electron of F_exact, "
        f"{worse} farther from it than the bound by more than three errors.",
        f"- Its errors: {within:.0%} within one of them, in which a fifth of "
        "F_2 stands for higher orders (the other counts are without it).",
    ]
    if shares:
        median = f"{np.median(shares):.0%}"
        lines.append(f"- Where F − F_exact exceeds 1 mHa, F_2 brings a median of {median} of it.")
    return lines


def second_order_distances(results: dict[str, dict]) -> list[str]:
    """Root mean squares of what F and F + F_2 lack, and without the third order."""
    gases = with_second_order(results)
    if not gases:
        return []
    of_bound = 1e3 * rms([one.remaining.of_bound for one in gases])
    left = 1e3 * rms([one.remaining.of_second_order for one in gases])
    alone = 1e3 * rms([one.left_by_second_order_alone for one in gases])
    return [
        f"The root mean square of what is left is {left:.2f} mHa over {len(gases)} gases, that of "
        f"F − F_exact {of_bound:.1f} mHa. Without the third order it would be {alone:.2f} mHa."
    ]


def large_verdicts(results: dict[str, dict]) -> list[str]:
    """A sentence on the larger gases, counted."""
    rows = [results[rung.name] for rung in LARGE if rung.name in results]
    settled = sum(abs(drift(row)) < SETTLED for row in rows)
    return [
        f"- Larger gases: {settled} of {len(rows)} have converged; the last two thirds of their "
        "trainings agree within two errors."
    ]


def published() -> list[tuple[str, str, Estimate]]:
    """Gas, method and free energy, hartree per electron, of docs/published.csv."""
    lines = [line for line in PUBLISHED.read_text().splitlines() if not line.startswith("#")]
    systems = {rung.gas: rung.system for rung in LARGE}
    values = []
    for row in csv.DictReader(lines):
        system = systems[row["gas"]]
        # hartree in all, or rydberg per electron; some leave out the self-image
        unit = {"h": 1 / system.electrons, "r": 0.5}[row["unit"][0]]
        self_image = madelung(system) / 2 if "no self-image" in row["unit"] else 0.0
        value = unit * float(row["value"]) + self_image
        error = unit * float(row["error"])
        values.append((row["gas"], row["method"], Estimate(value, error)))
    return values
