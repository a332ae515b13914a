"""The report of a measurement: one HTML file that needs no other."""

import html
from pathlib import Path

from heg.observables.quantities import NUMBERS
from heg.report.html import (
    SIZE_ERROR,
    document,
    embedded,
    html_table,
    paragraphs,
    preformatted,
)
from heg.runs.text_files import write_text
from heg.statistics import Estimate
from heg.training.verdict import sentence_of

NO_BREAK = "\N{NO-BREAK SPACE}"


def write(path: Path, observables: dict, configuration: str, pictures: dict[str, Path]) -> Path:
    """Writes the report of a measurement.

    Args:
      path: of the file.
      observables: what observables.json holds.
      configuration: text of config.toml.
      pictures: PNG files by caption.
    Returns:
      The path.
    """
    parts = [
        *_summary(observables),
        *_gas(observables["system"]),
        *_infinite_gas(observables),
        *(embedded(caption, picture) for caption, picture in pictures.items()),
        *_fit_of_levels(observables["landau"]),
        preformatted("Configuration", configuration),
    ]
    write_text(path, document(_title(observables["system"]), parts))
    return path


def _title(gas):
    if "gamma" in gas:
        return f"{gas['n_up']} classical electrons in {gas['dim']}D, Γ = {gas['gamma']:g}"
    electrons = f"{gas['n_up']} up + {gas['n_down']} down electrons in {gas['dim']}D"
    return f"{electrons}, r_s = {gas['rs_bohr']:g}, Θ = {gas['theta']:g}"


def _summary(observables):
    """The verdict, the size of the sample and the table of results."""
    sentence = sentence_of(observables)
    verdict = []
    if sentence:
        verdict.append(f"<p><strong>{html.escape(sentence)}</strong></p>")
    sample = (
        f"{observables['samples']} independent samples at step {observables['step']}, "
        f"heg {observables['version']}. Errors are standard errors."
    )
    head = ("quantity", "value", "ideal gas, exact", "unit")
    table = html_table(head, _rows(observables))
    return [*verdict, *paragraphs([sample]), table]


def _rows(observables):
    """Title, value, ideal value and unit of each quantity that was measured."""
    ideal = observables["ideal"]
    rows = []
    for name, entry in NUMBERS.items():
        if name in observables:
            value = _with_error(observables[name])
            exact = _exact(ideal.get(name))
            # without line breaks: a unit in two lines makes every row two lines high
            unit = observables["units"][name].replace(" ", NO_BREAK)
            rows.append((entry.title, value, exact, unit))
    return rows


def _gas(gas):
    return ["<h2>The gas</h2>", html_table(("", ""), gas.items())]


def _infinite_gas(observables):
    """Values of the infinite gas and what limits them."""
    values = observables["infinite_gas"]
    rows = [(name, _with_or_without_error(value)) for name, value in values.items()]
    # measurements of older versions do not say where a published fit is extrapolated
    notes = [SIZE_ERROR, *observables.get("outside_of_fits", [])]
    return ["<h2>The infinite gas</h2>", html_table(("", ""), rows), *paragraphs(notes)]


def _fit_of_levels(landau):
    if None in landau["explained"]:
        return paragraphs(["All samples have the same p(K): there are no levels to fit."])
    # of samples that the fit has not seen
    shares = ", ".join(f"{share:.1%}" for share in landau["explained"])
    sentence = (
        "Variance of ln p(K) explained by ideal levels, by fitted ones, with their interaction: "
        f"{shares}."
    )
    return paragraphs([sentence])


def _with_error(number):
    """One number, or several, each with its error in brackets."""
    means = number["mean"]
    errors = number["error"]
    if not isinstance(means, list):
        return _estimate(means, errors)
    return ", ".join(map(_estimate, means, errors))


def _estimate(mean, error):
    return "none" if None in (mean, error) else str(Estimate(mean, error))


def _with_or_without_error(value):
    return _with_error(value) if isinstance(value, dict) else f"{value:.6g}"


def _exact(number):
    return "" if number is None else f"{number:.6g}"
