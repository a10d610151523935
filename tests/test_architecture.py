"""What the code promises about itself: imports go down, files and functions stay short, help needs no torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "dpo_cli"
FILES = sorted(PACKAGE.rglob("*.py"))
FLOORS = {
    "errors": 0,
    "types": 0,
    "files": 1,
    "packages": 1,
    "methods": 2,
    "metrics": 2,
    "recipe": 3,
    "data": 4,
    "modeling": 4,
    "engine": 5,
    "runs": 5,
    "reference": 6,
    "export": 6,
    "evaluate": 7,
    "reports": 8,
    "train": 9,
    "preflight": 10,
    "cli": 11,
    "__main__": 12,
}
"""Packages of one floor do not import each other either."""
MOST_FILES = 20
HEAVY = {"torch", "transformers", "datasets", "accelerate", "wandb", "pyarrow", "scipy"}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_go_down(path: Path) -> None:
    here = part_of(path)
    if here == "__init__":
        return
    for name in imports(ast.parse(path.read_text())):
        package, _, rest = name.partition(".")
        there = rest.split(".")[0]
        if package != "dpo_cli" or there == "__version__" or there == here:
            continue
        assert FLOORS[there] < FLOORS[here], f"{here} imports {name}"


def test_no_files_import_each_other_in_a_circle() -> None:
    """Imports for type checking count: a circle of types is a circle of thought."""
    modules = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in FILES}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    graph = {
        name: {
            target
            for imported in imports(ast.parse(path.read_text()))
            for target in (imported, imported.rpartition(".")[0])
            if target in modules and target not in (name, "dpo_cli")
        }
        for name, path in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_folder_holds_too_many_files() -> None:
    for root in (PACKAGE, PACKAGE.parent / "tests"):
        for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
            assert len(list(folder.glob("*.py"))) <= MOST_FILES, folder


def test_every_folder_says_what_it_holds() -> None:
    for path in FILES:
        if path.name == "__init__.py":
            assert ast.get_docstring(ast.parse(path.read_text())), path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


def test_no_file_is_named_for_nothing() -> None:
    assert not {"utils", "helpers", "misc", "common"} & {path.stem for path in FILES}


@pytest.mark.parametrize("part", ["errors", "types", "methods", "recipe"])
def test_recipes_are_checked_without_torch(part: str) -> None:
    for path in (path for path in FILES if part_of(path) == part):
        tops = [
            node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        found = {name.split(".")[0] for top in tops for name in imports(top)}
        assert not found & HEAVY, path


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from dpo_cli.cli.app import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        f"print(sorted({HEAVY | {'omegaconf', 'numpy'}!r} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert done.stdout.strip() == "[]"
