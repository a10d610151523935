"""What a run keeps of its pairs, read back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dpo_cli.cli.evaluate.ledger import ledger as show_ledger
from dpo_cli.errors import StorageError
from dpo_cli.evaluate.pairs.pair_history import FOLDER, ledger_of, read_ledger, read_visits, write_ledger


def line(step: list[int], row: list[int], margin: list[float | None]) -> str:
    return json.dumps({"step": step, "row": row, "margin": margin, "weight": [0.05] * len(step)}) + "\n"


def test_the_later_line_of_a_visit_counts_and_a_torn_one_does_not(tmp_path: Path) -> None:
    path = tmp_path / "visits.jsonl"
    path.write_text(
        line([0, 0, 1], [3, 1, 3], [0.0, 0.0, 0.5]) + line([1, 2], [3, 1], [0.7, None]) + '{"step": [3'
    )
    visits = read_visits(path)

    assert visits[3] == [(0, 0.0, 0.05), (1, 0.7, 0.05)]
    assert np.isnan(visits[1][1][1]) and len(visits[1]) == 2
    assert read_visits(tmp_path / "none") == {}


def test_a_pair_that_stands_twice_in_an_epoch_is_one_pair() -> None:
    visits = {0: [(0, 0.0, 0.05)], 1: [(0, 0.0, 0.05)], 2: [(3, 0.4, 0.04)]}
    ledger = ledger_of(["a", "b", "a"], ["f:1", "f:2", "f:1"], visits, np.array([0.5, -0.5, 0.5]))

    assert ledger.key.tolist() == ["a", "b"] and ledger.margin.tolist() == [0.5, -0.5]
    assert ledger.visits[0] == [(0, 0.0, 0.05), (3, 0.4, 0.04)]


def test_a_visit_in_a_step_that_was_left_out_says_nothing_and_spoils_nothing() -> None:
    nan = float("nan")
    visits = {0: [(0, nan, nan), (5, 0.6, 0.04), (9, nan, nan), (12, 0.8, 0.02)]}
    ledger = ledger_of(["a"], ["f:1"], visits, np.array([1.0]))

    assert ledger.weight == pytest.approx([0.03])
    assert ledger.standing == pytest.approx([0.8]) and ledger.best == pytest.approx([0.8])


def test_forgotten_pairs_were_right_and_are_wrong_now() -> None:
    visits = {0: [(0, 0.0, 1.0), (5, 0.6, 1.0)], 1: [(0, 0.2, 1.0)], 2: [(0, -0.2, 1.0)]}
    ledger = ledger_of(list("abcd"), list("abcd"), visits, np.array([-0.4, 0.3, -0.5, -0.1]))

    assert ledger.fell.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert [each["source"] for each in ledger.lists(5)["forgotten"]] == ["a"]
    assert [each["source"] for each in ledger.lists(2)["hardest"]] == ["c", "a"]


def test_a_pair_that_no_step_came_to_is_shown_without_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    visits = {0: [(0, 0.2, 0.05)]}
    found = ledger_of(["a", "b"], ["f:1", "f:2"], visits, np.array([0.3, -0.4]))
    write_ledger(found, {}, tmp_path / FOLDER)
    show_ledger(tmp_path, as_json=True)
    first, second = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["hardest"]
    assert (first["best"], first["weight"], first["visits"], first["standing"]) == (None, None, 0, -0.4)
    assert (second["best"], second["weight"]) == (0.2, 0.05)
    show_ledger(tmp_path)
    assert "nan" not in capsys.readouterr().out


def test_a_ledger_reads_back_as_it_was_written(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    turned = np.arange(700) < 140
    margins = np.where(turned, -1, 1) * draw.normal(1.3, 1, 700)
    keys = [f"k{i}" for i in range(700)]
    ledger = ledger_of(keys, [f"f:{i}" for i in range(700)], {0: [(4, 0.1, 0.05)]}, margins)
    write_ledger(ledger, {key: {"prompt": "p", "chosen": "ü", "rejected": "r"} for key in keys}, tmp_path)
    again = read_ledger(tmp_path)

    assert json.dumps([again.figures(), again.lists(5)]) == json.dumps([ledger.figures(), ledger.lists(5)])
    lines = (tmp_path / "suspects.jsonl").read_text().splitlines()
    assert len(lines) == again.flips.suspected.sum() > 100
    first = json.loads(lines[0])
    assert first["margin"] == margins.min() and first["chosen"] == "ü"
    assert json.loads(lines[-1])["margin"] >= first["margin"]


def test_a_run_without_a_ledger_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"train\.ledger=true"):
        read_ledger(tmp_path)
