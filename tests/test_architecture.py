"""What the code promises about itself: imports go down, files and functions stay short, help needs no torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
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
    "pages": 2,
    "recipe": 3,
    "data": 4,
    "modeling": 4,
    "reference": 5,
    "train": 6,
    "evaluate": 6,
    "cli": 7,
    "__main__": 8,
}
"""Packages of one floor do not import each other either, but for these."""
BESIDE = {("train", "evaluate")}
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
        assert FLOORS[there] < FLOORS[here] or (here, there) in BESIDE, f"{here} imports {name}"


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
