"""`dpo score`: rewards a completion, held beside the margins of `dpo eval`, and rows that it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dpo_cli import methods
from dpo_cli.cli.evaluate.eval import evaluate
from dpo_cli.cli.evaluate.score import score
from dpo_cli.errors import DataError, RecipeError
from dpo_cli.evaluate.pairs.pair_rows import read_rows
from dpo_cli.evaluate.pairs.score_completions import rewards
from dpo_cli.types import LogProbs
from tests.fakes import pair_rows, write_jsonl, write_model
from tests.train.finished import finished_run
from tests.train.tiny_recipe import write_recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("rate"))


@pytest.fixture(scope="module")
def run(recipe: Path) -> Path:
    return finished_run(recipe, 1)


def scored(capsys: pytest.CaptureFixture[str], *arguments: Any, **options: Any) -> list[dict[str, Any]]:
    capsys.readouterr()
    score(*arguments, **options)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_differences_of_rewards_are_the_margins_of_eval(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = pair_rows(6, seed=4)
    write_jsonl(tmp_path / "pairs.jsonl", pairs)
    asked = [
        {"prompt": row["prompt"], "completions": [row["rejected"], row["chosen"]], "id": 7} for row in pairs
    ]
    write_jsonl(tmp_path / "asked.jsonl", asked)
    evaluate(str(run), [f"data.eval=[{{path: {tmp_path}/pairs.jsonl}}]"], "eval", tmp_path)
    rows = scored(capsys, str(run), tmp_path / "asked.jsonl")

    margins = [row["rewards"][1] - row["rewards"][0] for row in rows]
    assert margins == pytest.approx(read_rows(tmp_path / "pairs.parquet").margin.tolist(), abs=1e-5)
    for row, margin in zip(rows, margins, strict=True):
        assert row["id"] == 7 and row["best"] == row["ranking"][0] == int(margin > 0)


def test_repeated_samples_get_one_reward_and_the_best_is_written_alone(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_model(tmp_path / "other", seed=3)
    row = {
        "prompt": [{"role": "user", "content": "Hello?"}],
        "completions": ["hi", [{"role": "assistant", "content": "go away"}], "hi"],
    }
    write_jsonl(tmp_path / "asked.jsonl", [row])
    settings: dict[str, Any] = {"reference": str(recipe.parent / "tiny")}
    (told,) = scored(capsys, str(other), tmp_path / "asked.jsonl", ["train.precision=fp32"], **settings)
    score(
        str(other),
        tmp_path / "asked.jsonl",
        ["method.beta=0.2", "train.precision=fp32"],
        out=tmp_path / "best.jsonl",
        best=True,
        **settings,
    )
    best = json.loads((tmp_path / "best.jsonl").read_text())

    assert told["rewards"][0] == told["rewards"][2] != told["rewards"][1]
    assert best["completion"] == row["completions"][told["best"]] and best["of"] == 3
    assert best["reward"] == pytest.approx(2 * max(told["rewards"]), rel=1e-4)


def test_rows_that_do_not_fit_keep_their_place_with_the_reason(
    recipe: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": "long " * 300, "completions": ["a"]}, {"prompt": "short", "completions": ["a", "b"]}]
    write_jsonl(tmp_path / "asked.jsonl", rows)
    first, second = scored(
        capsys, str(recipe.parent / "tiny"), tmp_path / "asked.jsonl", ["reference.source=none"]
    )

    assert first["rewards"] is first["best"] is None and first["reason"]
    assert len(second["rewards"]) == 2 and max(second["rewards"]) < 0  # log-probs


def test_answers_that_are_cut_are_named(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "asked.jsonl", [{"prompt": "Tea?", "completions": ["yes", "yes " * 30]}])
    model, bare = str(recipe.parent / "tiny"), "reference.source=none"
    (whole,) = scored(capsys, model, tmp_path / "asked.jsonl", [bare])
    score(model, tmp_path / "asked.jsonl", [bare, "data.max_length=64"])
    told = capsys.readouterr()

    assert "cut" not in whole and json.loads(told.out)["cut"] == [1]
    assert "note: 1 of 1 rows have answers that were cut to 64 tokens" in told.err


def test_wrong_rows_are_told_with_their_lines(recipe: Path, run: Path, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "bad.jsonl", [{"prompt": "p"}, {"prompt": "p", "completions": [3]}])
    with pytest.raises(
        DataError, match=r"bad\.jsonl:1: \"completions\" is no list(.|\n)*bad\.jsonl:2: \"0\" is a number"
    ):
        score(str(run), path)
    with pytest.raises(DataError, match="no such file"):
        score(str(run), tmp_path / "nowhere.jsonl")
    with pytest.raises(RecipeError, match="none is named"):
        score(str(recipe.parent / "tiny"), path)


@pytest.mark.parametrize("name", ["dpo", "ipo", "kto", "orpo", "sft", "simpo", "reward"])
def test_every_method_rates_single_completions_as_it_rates_pairs(name: str) -> None:
    method = methods.get(name)
    config = method.config()
    policy = LogProbs(torch.tensor([-5.0, -9.0, -4.0, -4.5]), torch.tensor([3, 4, 2, 5]))
    reference = (
        LogProbs(torch.tensor([-6.0, -8.0, -4.0, -5.0]), policy.tokens) if method.needs_reference else None
    )
    found = rewards(policy, reference, method, config, is_bare=False)

    if method.reward is None:
        metrics = method.loss(policy, reference, config).metrics
        assert found[0::2].tolist() == pytest.approx(metrics["rewards/chosen"].tolist())
        assert found[1::2].tolist() == pytest.approx(metrics["rewards/rejected"].tolist())
    else:
        assert found.tolist() == pytest.approx(method.reward(policy, reference, config).tolist())
    assert rewards(policy, None, method, config, is_bare=True) is policy.total
