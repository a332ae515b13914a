"""Checks the types and array shapes in the signatures of heg while the tests run.

Numbers are annotated as float and int, arrays of any shape as jax.Array.  Inside a compiled
function such numbers are traced arrays, and outside of one NumPy's arrays serve as JAX's do: that
much is let pass.  Shapes and kinds of arrays must be those of the annotation.
"""

from pathlib import Path

import jax
import jaxtyping
import numpy as np
from beartype import BeartypeConf, BeartypeHintOverrides, beartype

ROOT = Path(__file__).parents[1]
ROOMS = ("gas", "model", "sampling", "observables")
# System takes what a user gives, and says itself what is wrong with it; tests put toys in the place
# of the parts of a density matrix; lengths of shells are NumPy's, but traced where r_s is
UNCHECKED = {"heg.gas.system", "heg.model.density_matrix", "heg.observables.shells"}

ARRAYS = jax.Array | np.ndarray
SERVES_AS = {
    float: float | int | np.floating | np.integer | np.ndarray | jax.Array,
    int: int | np.integer | np.ndarray | jax.Array,
    # a plain number serves as an array without axes
    jax.Array: ARRAYS | float | int | np.number,
}
checked = beartype(conf=BeartypeConf(hint_overrides=BeartypeHintOverrides(SERVES_AS)))


def modules():
    """Dotted names of the modules that are checked."""
    names = set()
    for room in ROOMS:
        for path in (ROOT / "heg" / room).rglob("[!_]*.py"):
            names.add(".".join(path.relative_to(ROOT).with_suffix("").parts))
    return sorted(names - UNCHECKED)


def install():
    """Check every function and dataclass of these modules.  Comes before heg is imported."""
    jaxtyping.Array = ARRAYS
    jaxtyping.install_import_hook(modules(), "shape_checker.checked")
