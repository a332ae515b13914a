"""Rules of the code that no linter knows."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UPDATES = {"set", "add", "subtract", "multiply", "divide", "power", "min", "max", "apply"}
MODULES = sorted((ROOT / "heg").rglob("*.py"))
SOURCES = [*MODULES, *sorted((ROOT / "tests").rglob("*.py"))]
each_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))


def syntax(path):
    return ast.parse(path.read_text())


def test_the_documentation_has_every_module():
    documented = re.findall(r"automodule:: (heg[.\w]*)", (ROOT / "docs" / "modules.md").read_text())
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in MODULES]
    names = [name.removesuffix(".__init__") for name in names]
    assert sorted(documented) == sorted(name for name in names if name != "heg")


@each_source
def test_no_functional_update_is_thrown_away(path):
    # x.at[i].set(y) returns the changed array; as a statement it does nothing
    for node in ast.walk(syntax(path)):
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
            continue
        match node.value.func:
            case ast.Attribute(value=ast.Subscript(value=ast.Attribute(attr="at")), attr=attr) if (
                attr in UPDATES
            ):
                pytest.fail(f"line {node.lineno}")


def test_package_file_re_exports_and_does_nothing_else():
    tree = syntax(ROOT / "heg" / "__init__.py")
    assert ast.get_docstring(tree)
    for node in tree.body[1:]:
        names = [target.id for target in node.targets] if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.FunctionDef) and node.name == "__dir__":
            continue  # what `dir` shows is a list of names too
        assert isinstance(node, ast.Import | ast.ImportFrom) or names in (
            ["__all__"],
            ["__version__"],
        )
