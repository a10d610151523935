"""`dpo formats`: every format and layout with lines that read it, and the page that is made of the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dpo_cli.cli.app import app
from dpo_cli.cli.data.formats import Entry, known_formats, known_layouts
from dpo_cli.data import formats
from dpo_cli.data.detect import layouts
from dpo_cli.errors import RecipeError
from dpo_cli.recipe.load import load
from tests.data.build import parse
from tests.fakes import write_jsonl

ROOT = Path(__file__).resolve().parents[3]
ENTRIES = [*known_formats(), *known_layouts()]


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["formats", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_the_page_is_what_the_command_prints() -> None:
    assert run("--page") == (ROOT / "docs" / "formats.md").read_text(), "dpo formats --page > docs/formats.md"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_its_recipe_lines_read_its_row(tmp_path: Path, entry: Entry) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", [json.loads(line) for line in entry.sample.splitlines()])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: {{name: any}}\n{entry.recipe.replace('FILE', str(rows))}\n")
    (source,) = load(str(recipe)).recipe.data.train
    fields = {name: value for name, value in vars(source).items() if name != "path"}
    parsed = parse(list(entry.rows), **fields)
    assert (parsed.format.name, parsed.dropped) == (entry.format, {})
    if entry.format != "plain_text":
        assert {example.completions[0][-1]["content"] for example in parsed.examples} == {"Mostly, yes."}  # type: ignore[index]


def test_it_lists_each_once_with_the_sets_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = run().splitlines()
    names = [line.split()[0] for line in lines if line and not line.startswith(" ")]
    ours = [*formats.names(), *(layout.name for layout in layouts.known())]
    assert [name for name in names if name in ours] == ours and len(set(ours)) == len(ours)
    assert max(map(len, lines)) <= 60
    assert "  berkeley-nest/Nectar" in lines
    assert sorted(ours) == sorted(row["name"] for row in json.loads(run("--json"))["formats"])


def test_a_name_shows_one_and_a_set_all_that_it_can_be_read_as() -> None:
    assert run("NECTAR") == run("berkeley-nest/nectar")
    assert "      better: lower" in run("nectar").splitlines()
    found: list[dict[str, Any]] = json.loads(run("PKU-Alignment/PKU-SafeRLHF", "--json"))["formats"]
    assert [(row["name"], row["source"]["columns"]["winner"]) for row in found] == [
        ("pku_saferlhf_better", "better_response_id"),
        ("pku_saferlhf_safer", "safer_response_id"),
    ]


@pytest.mark.parametrize(
    ("name", "fix"), [("nectra", "did you mean 'nectar'?"), ("zzz", "`dpo formats` lists all")]
)
def test_a_name_that_nothing_has_is_refused(name: str, fix: str) -> None:
    with pytest.raises(RecipeError, match=f"no format, layout or set '{name}'") as error:
        run(name)
    assert fix in str(error.value)


def test_nothing_heavy_is_imported_for_it() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from dpo_cli.cli.app import app\n"
        "assert CliRunner().invoke(app, ['formats']).exit_code == 0\n"
        "print(sorted({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
