"""Checks the types and array shapes in the signatures of heg while the tests run.

Numbers are annotated as float and int, arrays of any shape as jax.Array.  Inside a compiled
function such numbers are traced arrays, and outside of one NumPy's arrays serve as JAX's do: that
much is let pass.  Shapes and kinds of arrays must be those of the annotation.
"""

import jax
import jaxtyping
import numpy as np
from beartype import BeartypeConf, BeartypeHintOverrides, beartype

ROOMS = ["heg.gas", "heg.model", "heg.sampling", "heg.observables"]

SERVES_AS = {
    float: float | int | np.floating | np.integer | np.ndarray | jax.Array,
    int: int | np.integer | np.ndarray | jax.Array,
    jax.Array: jax.Array | np.ndarray,
}
checked = beartype(conf=BeartypeConf(hint_overrides=BeartypeHintOverrides(SERVES_AS)))


def install():
    """Check every function and dataclass of the rooms.  Comes before heg is imported."""
    jaxtyping.Array = SERVES_AS[jax.Array]
    jaxtyping.install_import_hook(ROOMS, "shape_checker.checked")
