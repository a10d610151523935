"""docs/memory.md is what the script makes of today's sums, and says what `dpo plan` says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dpo_cli.cli.app import app
from scripts.plan_table import page
from tests.recipe.build import MINIMAL, write

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_is_what_the_script_makes() -> None:
    assert page() == (ROOT / "docs" / "memory.md").read_text(), (
        "python -m scripts.plan_table > docs/memory.md"
    )


@pytest.mark.parametrize(
    ("model", "card", "overrides", "way"),
    [
        ("Llama-3.2-1B", "rtx4090", [], "All weights\n"),
        ("Llama-3.1-8B", "h100-80gb", ["train.weights=bf16"], "All weights, in bf16\n"),
        ("Llama-3.1-8B", "rtx4090", ["model.adapter={rank: 16}"], "LoRA"),
        ("Qwen2.5-14B", "l40s", ["model.adapter={rank: 16}", "model.quantize=nf4"], "QLoRA"),
    ],
)
def test_a_cell_is_what_the_command_says(
    tmp_path: Path, model: str, card: str, overrides: list[str], way: str
) -> None:
    recipe = str(write(tmp_path, MINIMAL))
    arguments = [
        "plan",
        recipe,
        f"model.name=org/{model}",
        *overrides,
        "train.precision=bf16",
        "data.train=[{path: org/set}]",
    ]

    done = CliRunner().invoke(app, [*arguments, "--gpu", card, "--json"], catch_exceptions=False)

    found = json.loads(done.stdout)
    section = page().partition(f"## {way}")[2].partition("##")[0]
    heads, *rows = [
        [cell.strip() for cell in line.split("|")] for line in section.splitlines() if line[:1] == "|"
    ]
    (row,) = [row for row in rows if row[1] == model.replace("-", " ")]
    (column,) = [n for n, head in enumerate(heads) if head.startswith(card)]
    star = " *" if found["setup"]["is_checkpointed"] else ""
    assert row[column] == f"{found['tokens']['most']:,}{star}"
