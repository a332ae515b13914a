"""Rules of the code that can be checked by reading it."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# a module imports only from those before it
ORDER = """system orbitals ideal ideal_infinite occupations pairs flow wavefunction kinetic ewald first_order
structure matsubara response rpa infinite_gas references eos momentum hamiltonian control_variates statistics
convergence verdict parallel devices chunks sampling free_energy bijection natural_gradient observables
quasiparticles determinants exact storage records checks config twists walks state pair_operators doubles levels
second_order degenerate amplitudes training cost trained instruments summary run excitations calibration
contributions second_order_rows corrected results measurement grid survey rows table figures notebook
table_figures report page doctor cli cli_solve cli_doctor cli_measure cli_eos""".split()
HOMES = {"mpi4py": "parallel", "h5py": "storage"}  # libraries that one module alone may import
# functions of these names that take no encoding: of the operating system, and of heg.runs.text_files
HAVE_NONE = {"os.open", "read_text", "write_text", "records.read_text"}
UPDATES = {"set", "add", "subtract", "multiply", "divide", "power", "min", "max", "apply"}

MODULES = sorted(path for path in (ROOT / "heg").glob("*.py") if path.stem != "__init__")
SOURCES = sorted([*(ROOT / "heg").glob("*.py"), *(ROOT / "tests").glob("*.py")])
each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
each_source = pytest.mark.parametrize(
    "path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.stem}"
)


def syntax(path):
    return ast.parse(path.read_text())


def functions(path):
    return [
        node
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def imported_names(path):
    """Dotted names of everything imported, wherever in the file."""
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def code_lines(path, function):
    """Lines of a function that hold code: no blank ones, comments or docstring."""
    first = function.body[0]
    docstring = range(first.lineno, first.end_lineno + 1) if ast.get_docstring(function) else ()
    skipped = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines & set(range(function.lineno, function.end_lineno + 1)) - set(docstring))


@each_module
def test_imports_point_up_the_table(path):
    assert path.stem in ORDER, f"{path.stem} has no place in the table"
    above = set(ORDER[: ORDER.index(path.stem)])
    for name in imported_names(path):
        package, _, rest = name.partition(".")
        if package == "heg" and rest:
            assert rest.split(".")[0] in above, f"{path.stem} imports {name}"


def test_the_documentation_has_every_module_in_this_order():
    assert (
        re.findall(r"automodule:: heg\.(\w+)", (ROOT / "docs" / "modules.md").read_text()) == ORDER
    )


@each_module
def test_one_module_alone_imports_each_file_and_message_library(path):
    for name in imported_names(path):
        home = HOMES.get(name.split(".")[0], path.stem)
        assert home == path.stem, f"{name} belongs to {home}"


@each_source
def test_functions_and_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 300
    for function in functions(path):
        arguments = function.args
        count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
        assert count <= 8, f"{function.name} has {count} parameters"
        assert code_lines(path, function) <= 60, (
            f"{function.name} has {code_lines(path, function)} lines of code"
        )


@each_module
def test_only_the_command_line_prints(path):
    calls = [node.func for node in ast.walk(syntax(path)) if isinstance(node, ast.Call)]
    prints = any(isinstance(function, ast.Name) and function.id == "print" for function in calls)
    assert path.stem.startswith("cli") or not prints


@each_module
def test_text_files_name_their_encoding(path):
    # that of the locale would make a file unreadable elsewhere
    for node in ast.walk(syntax(path)):
        called = node.func if isinstance(node, ast.Call) else None
        name = getattr(called, "attr", getattr(called, "id", None))
        if name not in ("read_text", "write_text", "open") or ast.unparse(called) in HAVE_NONE:
            continue
        mode = next(
            (a.value for a in node.args if isinstance(a, ast.Constant) and "b" in str(a.value)), ""
        )
        assert mode or any(keyword.arg == "encoding" for keyword in node.keywords), (
            f"line {node.lineno}"
        )


@each_module
def test_every_public_name_has_a_docstring(path):
    tree = syntax(path)
    assert ast.get_docstring(tree), "the module"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


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


@each_source
def test_nothing_is_left_to_do(path):
    marks = ["TO" + "DO", "FIX" + "ME", "XX" + "X"]
    assert not [line for line in path.read_text().splitlines() for mark in marks if mark in line]


def test_package_file_re_exports_and_does_nothing_else():
    tree = syntax(ROOT / "heg" / "__init__.py")
    assert ast.get_docstring(tree)
    for node in tree.body[1:]:
        names = [target.id for target in node.targets] if isinstance(node, ast.Assign) else []
        assert isinstance(node, ast.Import | ast.ImportFrom) or names in (
            ["__all__"],
            ["__version__"],
        )
