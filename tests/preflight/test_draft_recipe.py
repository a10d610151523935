"""A recipe drawn up from data, model and machine: it loads, and says what it was made from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpo_cli.data import formats
from dpo_cli.data.detect.infer import Inferred
from dpo_cli.errors import DataError
from dpo_cli.modeling.sizes.size import ModelSize
from dpo_cli.preflight.draft_recipe import Machine, Plan, draft, method_for
from dpo_cli.recipe.load import load
from dpo_cli.recipe.schema import Recipe, Source
from dpo_cli.types import TokenGroup

CPU = Machine("2 CPU cores", 16.0, False, "fp32")
GPU = Machine("H100", 80.0, True, "bf16")


def group(row: int, prompt: int, *completions: int) -> TokenGroup:
    ids, masks = (
        tuple(np.arange(n, dtype=np.int32) for n in completions),
        tuple(np.ones(n, bool) for n in completions),
    )
    return TokenGroup(np.arange(prompt, dtype=np.int32), ids, masks, f"rows.jsonl:{row}")


def found(name: str = "strings", kept: int = 1000, path: str = "rows.jsonl", **fields: Any) -> Inferred:
    layout = formats.get(name)
    return Inferred(Source(path=path, format=name, **fields), layout, kept + 10, kept, {"a tie": 10}, ["id"])


def plan(*sources: Inferred, weights: int = 135_000_000, machine: Machine = CPU, longest: int = 90) -> Plan:
    groups = [group(row, 10, 20, longest - 10) for row in range(50)]
    return Plan("org/model", ModelSize(weights, 8192), sources or (found(),), groups, machine)


def written(folder: Path, made: Plan) -> Recipe:
    path = folder / "drawn.yaml"
    path.write_text(draft(made, folder), encoding="utf-8")
    return load(str(path)).recipe


def test_steps_are_counted_in_the_pairs_that_rankings_make(tmp_path: Path) -> None:
    pairs = plan(found("ranking"))
    rankings = replace(pairs, groups=[each for each in pairs.groups for _ in range(3)])
    assert "# 50 steps in all" in draft(pairs, tmp_path) and "plackett" not in draft(pairs, tmp_path)
    assert "# 150 steps in all" in draft(rankings, tmp_path)
    assert "drift further from where it starts; plackett_luce takes each ranking whole" in draft(
        rankings, tmp_path
    )


def test_everything_inferred_is_stated(tmp_path: Path) -> None:
    columns, labels = (
        {"prompt": "My question: why?", "winner": "no"},
        {"a": ['"x" # {y}'], "b": ["${model.name}", "yes", "1", "👍\x1b\u2028"]},
    )
    recipe = written(tmp_path, plan(found("winner", columns=columns, labels=labels)))
    (source,) = recipe.data.train
    assert (source.format, source.columns, source.labels) == ("winner", columns, labels)
    assert (recipe.method.name, recipe.train.precision, recipe.data.max_length) == ("dpo", "fp32", 128)
    text = (tmp_path / "drawn.yaml").read_text()
    assert "# 1,010 rows; 10 left out: a tie; not used: id" in text
    assert len(text.splitlines()) <= 16


@pytest.mark.parametrize(
    "name", ["rows.jsonl", "a b#c.jsonl", "-x: [y].jsonl", "true", "1e3", "ü.jsonl", "${x}.csv"]
)
def test_a_file_of_any_name_is_found_from_the_recipes_folder(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "recipes").mkdir()
    (tmp_path / "data" / name).write_text("")
    recipe = written(Path("recipes"), plan(found(path=f"data/{name}")))
    assert recipe.data.train[0].path == str(tmp_path / "data" / name)


def test_a_comment_cannot_end_its_line(tmp_path: Path) -> None:
    bad = Inferred(
        Source(path="x\nname: evil", format="strings"), formats.get("strings"), 9, 9, {}, ["a\nname: b"]
    )
    recipe = written(tmp_path, plan(bad))
    assert (recipe.name, recipe.data.train[0].path) == (None, "x\nname: evil")


@pytest.mark.parametrize(
    ("weights", "machine", "kept", "lr", "batch", "warned"),
    [
        (135_000_000, CPU, 1000, 1e-5, 16, False),
        (1_500_000_000, GPU, 5000, 5e-6, 32, False),
        (7_000_000_000, GPU, 60_000, 5e-7, 64, True),
        (1_500_000_000, CPU, 1000, 5e-6, 16, True),
    ],
)
def test_size_decides_learning_rate_batch_and_whether_it_fits(
    tmp_path: Path, weights: int, machine: Machine, kept: int, lr: float, batch: int, warned: bool
) -> None:
    made = plan(found(kept=kept), weights=weights, machine=machine)
    recipe = written(tmp_path, made)
    assert (recipe.optim.lr, recipe.train.batch_size) == (lr, batch)
    assert any("take a smaller model" in warning for warning in made.warnings()) == warned


@pytest.mark.parametrize(
    ("kept", "share", "epochs"), [(100, 0.2, 3), (500, 0.2, 2), (2000, 0.1, 1), (100_000, 0.002, 1)]
)
def test_rows_decide_what_is_held_out_and_how_often_they_are_seen(
    tmp_path: Path, kept: int, share: float, epochs: int
) -> None:
    recipe = written(tmp_path, plan(found(kept=kept)))
    assert (recipe.data.split.eval, recipe.train.epochs) == (share, epochs)


def test_rows_longer_than_the_limit_are_told(tmp_path: Path) -> None:
    made = plan(longest=3000)
    assert written(tmp_path, made).data.max_length == 1024
    assert "100% will be cut" in (tmp_path / "drawn.yaml").read_text()


def test_few_rows_are_warned_of() -> None:
    assert "12 rows teach little" in plan(found(kept=12)).warnings()[0]


@pytest.mark.parametrize(
    ("kinds", "method"),
    [
        ({"pairs"}, "dpo"),
        ({"labelled"}, "kto"),
        ({"pairs", "labelled"}, "kto"),
        ({"targets", "pairs"}, "sft"),
    ],
)
def test_a_method_trains_on_all_kinds(kinds: set[Any], method: str) -> None:
    assert method_for(kinds) == method


def test_kinds_that_no_method_trains_on_together_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"no method takes labelled completions .* and completions to imitate at once"
    ):
        method_for({"labelled", "targets"})
