"""The checker of types and array shapes that tests/conftest.py puts behind functions of heg."""

import jax
import numpy as np
from beartype import BeartypeConf, BeartypeHintOverrides, beartype

# Numbers are written as float and int, arrays of any shape as jax.Array: inside a compiled function
# numbers are traced arrays, outside of one NumPy's arrays serve as JAX's do.  What is checked
# without mercy are the shapes of jaxtyping.
checked = beartype(
    conf=BeartypeConf(
        hint_overrides=BeartypeHintOverrides(
            {
                float: float | int | np.floating | np.integer | np.ndarray | jax.Array,
                int: int | np.integer | np.ndarray | jax.Array,
                jax.Array: jax.Array | np.ndarray,
            }
        )
    )
)
