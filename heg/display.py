"""Results in notebooks and in other packages: what all classes of results have in common.

A result lies in a room below that of the pages.  Its `_repr_html_` asks `as_html`, where
heg.report.notebook and heg.api have registered how each class is shown.
"""

import functools
import importlib
from types import ModuleType
from typing import Any


@functools.singledispatch
def as_html(result: Any) -> str:
    """A result as a fragment of HTML.

    Raises:
      NotImplementedError: no way is registered for such a result; notebooks show its repr then.
    """
    raise NotImplementedError


def optional_package(name: str, user: str) -> ModuleType:
    """A package that heg does without where nobody asks for it.

    Args:
      name: of the package.
      user: the function that needs it.

    Raises:
      ImportError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ImportError(f"{user} needs {name}: pip install {name}") from None
