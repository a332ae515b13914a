"""The documentation site: sphinx-build -W docs site/html.  Tutorials are run when it is built."""

import os
import re
from importlib import metadata, util
from pathlib import Path

# where the kernels of the tutorials find shell_cell
os.environ["PYTHONPATH"] = str(Path(__file__).parent)

project = "heg"
author = "the heg developers"
copyright = "the heg developers"
release = version = metadata.version("heg")
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["validation.in.md"]
html_theme = "furo"
html_title = f"heg {version}"
# Formulas need no network: MathJax is copied into the site.  The package that brings it is not
# listed as an extension, as it does not say that it may run beside other jobs (sphinx-build -j).
mathjax_package = Path(util.find_spec("sphinx-mathjax-offline").origin).parent
html_static_path = ["_static", str(mathjax_package / "static")]
html_css_files = ["site.css"]
mathjax_path = "mathjax/tex-chtml.js"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_timeout = 900  # seconds of one cell
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_merge_streams = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_custom_sections = ["Accuracy", "Source", "Sources"]
napoleon_use_ivar = True
napoleon_attr_annotations = False  # shapes such as "*batch dim" would be read as emphasis


def setup(app):
    """Turns docstrings, which are written for people, into reStructuredText before napoleon."""
    app.connect("autodoc-process-docstring", translate, priority=100)


def translate(app, what, name, thing, options, lines):
    """Translates the lines of a docstring in place.

    Bars are absolute values and stars are products, unless they stand in a formula of
    reStructuredText; a line may explain several attributes.
    """
    translated = []
    in_math = False
    for line in without_hanging_indents(lines):
        # a formula goes on as long as lines are empty or indented
        goes_on = in_math and (not line or line.startswith(" "))
        in_math = line.startswith(".. math::") or goes_on
        if not in_math:
            line = line.replace("|", "\\|").replace("*", "\\*")
        translated += one_attribute_a_line(line)
    lines[:] = translated


def without_hanging_indents(lines):
    """Lines of which a section such as "Source: ..." goes on without an indent."""
    flat = []
    goes_on = False
    for line in lines:
        if re.match(r"(Accuracy|Source|Sources|Warns): \S", line):
            goes_on = True
        elif not line.startswith("  "):
            goes_on = False
        flat.append(line.lstrip() if goes_on else line)
    return flat


def one_attribute_a_line(line):
    """A line that explains several attributes, as one line for each; any other line as it is."""
    several = re.match(r"(  )(\w+(?:, \w+)+): (.*)", line)
    if not several:
        return [line]
    names = several[2].split(", ")
    return [f"  {name}: {several[3]}" for name in names]
