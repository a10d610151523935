"""Numbers that fit two readings on the rows at hand are asked about, or refused: never taken for the reading that turns pairs round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dpo_cli.data.detect.infer import infer
from dpo_cli.data.detect.infer.question import Question
from dpo_cli.errors import UserError
from dpo_cli.recipe.schema import Source
from tests.data.pasted import pasted
from tests.fakes import write_jsonl


def asked(folder: Path, rows: list[dict[str, Any]]) -> Question:
    with pytest.raises(Question) as question:
        infer(Source(path=str(write_jsonl(folder / "rows.jsonl", rows))))
    return question.value


def test_a_rank_of_single_answers_is_no_label(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"q{n}", "response": f"answer {n} {at}", "rank": at + 1}
        for n in range(6)
        for at in range(2)
    ]
    question = asked(tmp_path, rows)
    sources = [infer(pasted(option.command)).source for option in question.options]
    assert {source.format for source in sources} == {"ratings"}
    assert {source.better for source in sources} == {"lower", "higher"}


def test_ratings_that_are_all_one_are_no_thumbs_up(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "response": f"answer {n}", "stars": 1} for n in range(6)]
    with pytest.raises(UserError) as error:
        infer(Source(path=str(write_jsonl(tmp_path / "rows.jsonl", rows))))
    assert "stars" in str(error.value)


def test_a_place_that_is_always_one_may_be_the_first_or_the_second(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "answers": [f"x{n}", f"y{n}"], "best_index": 1} for n in range(6)]
    options = asked(tmp_path, rows).options
    labels = [infer(pasted(option.command)).source.labels for option in options]
    assert [sorted(each["a"] + each["b"]) for each in labels] == [["0", "1"]] * 2
    assert labels[0]["a"] == labels[1]["b"]
