"""Figures of a run.  matplotlib is optional: the extra `plot` brings it."""

from pathlib import Path

from heg.statistics import Estimate


def training_curve(history: list[dict[str, str]], ideal: Estimate, path: Path) -> Path:
    """F and S of every step with their errors, the ideal gas beside them, as a PNG.

    Args:
      history: rows of history.csv.
      ideal: exact entropy of the ideal gas, k_B per electron.
      path: of the figure.
    Raises:
      ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure  # imported here, so that a run without figures needs no matplotlib

    step = [int(row["step"]) for row in history]
    figure = Figure(figsize=(7, 5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    for axis, name, label in ((top, "F", "F / N (hartree)"), (bottom, "S", "S / N (k_B)")):
        unit = "ha" if name == "F" else "kb"
        mean = [float(row[f"{name}_{unit}"]) for row in history]
        error = [float(row[f"{name}_error_{unit}"]) for row in history]
        axis.errorbar(step, mean, error, fmt=".", markersize=3, elinewidth=0.7)
        axis.set_ylabel(label)
    bottom.axhline(ideal.mean, color="grey", linestyle="--", label="ideal gas")
    bottom.legend()
    bottom.set_xlabel("step")
    figure.savefig(path, dpi=150)
    return path
