"""The report of a measurement: one HTML file that needs no other."""

import base64
import html
from pathlib import Path

from heg.runs.text_files import write_text
from heg.statistics import Estimate
from heg.training.verdict import sentence_of

TITLES = {
    "F": "free energy, an upper bound",
    "F_2": "second order, an estimate",
    "F_second_order": "free energy to second order, an estimate",
    "E": "energy",
    "kinetic": "kinetic energy",
    "potential": "potential energy",
    "potential_first_order": "potential energy to first order, an estimate",
    "S": "entropy",
    "pressure": "pressure (virial)",
    "heat_capacity": "heat capacity, energy with entropy",
    "heat_capacity_of_entropy": "heat capacity, variance of the entropy",
    "heat_capacity_of_energy": "heat capacity, variance of the energy",
    "f_xc": "F less that of the ideal gas, f_xc, an upper bound",
    "f_xc_second_order": "f_xc to second order, an estimate",
    "entropy_ratio": "entropy over that of the ideal gas (m*/m at low temperature)",
    "S_q_over_plasmon": "S of the longest waves over the plasmon's",
    "contact": "g(0) of opposite spins",
    "contact_first_order": "g(0) of opposite spins to first order, an estimate",
    "electrons_counted": "sum of n(k), each spin",
    "E_variance_within_K": "variance of E_loc within K",
    "F_variance_over_K": "variance of F_loc over K",
    "F_at_zero_variance": "F extrapolated to zero variance over the training (no bound)",
}
# what one alternative form can say of an error, and what it cannot
SIZE_ERROR = (
    "The error of the size correction is its distance from an interpolation of S(q) that is right for long waves "
    "alone: a cautious one."
)
STYLE = """body { font: 15px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em;
color: #222 }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: 0.15em 1em 0.15em 0;
text-align: left; border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums } img {
max-width: 100% } pre { background: #f4f4f4;
padding: 1em; overflow-x: auto } figcaption { color: #555; font-size: 90% }"""


def write(path: Path, observables: dict, configuration: str, pictures: dict[str, Path]) -> Path:
    """Writes the report.

    Args:
      path: of the file.
      observables: what observables.json holds.
      configuration: text of config.toml.
      pictures: PNG files by caption.
    """
    gas, ideal = observables["system"], observables["ideal"]
    electrons = f"{gas['n_up']} up + {gas['n_down']} down electrons in {gas['dim']}D"
    title = f"{electrons}, r_s = {gas['rs_bohr']:g}, Θ = {gas['theta']:g}"
    rows = [
        (
            TITLES[name],
            _value(observables[name]),
            _ideal(ideal.get(name)),
            observables["units"][name],
        )
        for name in TITLES
        if name in observables
    ]
    sentence = sentence_of(observables)
    parts = [f"<p><strong>{html.escape(sentence)}</strong></p>"] if sentence else []
    parts += [
        f"<p>{observables['samples']} independent samples at step {observables['step']}, heg {observables['version']}. "
        "Errors are standard errors.</p>",
        html_table(("quantity", "value", "ideal gas, exact", "unit"), rows),
        "<h2>The gas</h2>",
        html_table(("", ""), [(name, value) for name, value in gas.items()]),
    ]
    if observables["infinite_gas"]:
        values = [
            (n, _value(v) if isinstance(v, dict) else f"{v:.6g}")
            for n, v in observables["infinite_gas"].items()
        ]
        notes = [SIZE_ERROR, *observables.get("outside_of_fits", [])]
        parts += [
            "<h2>The infinite gas</h2>",
            html_table(("", ""), values),
            *(f"<p>{note}</p>" for note in notes),
        ]
    parts += [embedded(caption, picture) for caption, picture in pictures.items()]
    explained = ", ".join(f"{share:.1%}" for share in observables["landau"]["explained"])
    parts += [
        f"<p>Variance of ln p(K) explained by ideal levels, by fitted ones, with their interaction: {explained}.</p>",
        f"<h2>Configuration</h2><pre>{html.escape(configuration)}</pre>",
    ]
    write_text(path, document(title, parts))
    return path


def document(title: str, parts: list[str]) -> str:
    """A whole page with a heading, from the parts of its body in HTML."""
    title = html.escape(title)
    head = f'<head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head>'
    body = "\n".join([f"<h1>{title}</h1>", *parts])
    return f'<!DOCTYPE html>\n<html lang="en">{head}\n<body>{body}</body></html>'


def _value(number):
    means, errors = number["mean"], number["error"]
    if not isinstance(means, list):
        means, errors = [means], [errors]
    text = lambda mean, error: "none" if None in (mean, error) else str(Estimate(mean, error))
    return ", ".join(map(text, means, errors))


def _ideal(number):
    return "" if number is None else f"{number:.6g}"


def embedded(caption: str, picture: Path) -> str:
    """A PNG file as a figure that is part of the page."""
    data, caption = base64.b64encode(picture.read_bytes()).decode(), html.escape(caption)
    image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def html_table(head, rows) -> str:
    """A table in HTML."""
    line = lambda tag, cells: (
        "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"
    )
    return "<table>" + line("th", head) + "".join(line("td", row) for row in rows) + "</table>"
