"""The documentation site: sphinx-build -W docs site/html.  Tutorials are run when it is built."""

import os
import re
from importlib import metadata
from pathlib import Path

os.environ["PYTHONPATH"] = str(
    Path(__file__).parent
)  # where the kernels of the tutorials find shell_cell

project, author, copyright = "heg", "the heg developers", "the heg developers"
release = version = metadata.version("heg")
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["validation.in.md"]
html_theme, html_title = "furo", f"heg {version}"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode, nb_execution_timeout, nb_execution_in_temp = "force", 900, True
nb_execution_raise_on_error = nb_merge_streams = True
autodoc_member_order = "bysource"
autodoc_typehints, autodoc_typehints_description_target = "description", "documented"
napoleon_custom_sections = ["Accuracy", "Source", "Sources"]
napoleon_use_ivar = True


def setup(app):
    """Docstrings are written for people: bars are absolute values, and a line may explain several attributes."""

    def translate(app, what, name, thing, options, lines):
        found, in_math = [], False
        for line in lines:
            in_math = line.startswith(".. math::") or in_math and (not line or line.startswith(" "))
            if not in_math:
                line = line.replace("|", "\\|").replace("*", "\\*")
            several = re.match(r"(  )(\w+(?:, \w+)+): (.*)", line)
            found += (
                [f"  {one}: {several[3]}" for one in several[2].split(", ")] if several else [line]
            )
        lines[:] = found

    app.connect("autodoc-process-docstring", translate, priority=100)
