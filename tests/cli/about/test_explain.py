"""`dpo explain`: keys, logged names, losses."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from dpo_cli.cli.about.explain import explain
from dpo_cli.errors import RecipeError, StorageError


def told(capsys: pytest.CaptureFixture[str], *arguments: object, **options: object) -> str:
    explain(*arguments, **options)  # type: ignore[arg-type]
    return capsys.readouterr().out


def test_a_key_that_says_the_same_everywhere_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "method.name")

    assert text.count("method.name") == 1 and text.count("Selects the method.") == 1
    assert "dpo | ipo | kto" in text
    assert told(capsys, "method.beta").count("method.beta") == 5, "what methods say differently stays apart"


def test_a_logged_name_is_told_with_unit_range_and_what_is_good(capsys: pytest.CaptureFixture[str]) -> None:
    held_out = told(capsys, "eval/rewards/accuracies")

    assert held_out.startswith("eval/rewards/accuracies: share; 0 to 1; a coin has 0.5\n")
    assert "A tie counts half" in held_out and "every held-out row" in held_out and "good: " in held_out
    assert "since the last log" in told(capsys, "train/rewards/margins")
    assert told(capsys, "rewards").count("good: ") == 9
    facts = json.loads(told(capsys, "rewards/margins", as_json=True))
    assert facts["unit"] == "reward units, beta included" and facts["name"] == "rewards/margins"


def test_an_unknown_name_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RecipeError, match="did you mean 'rewards/margins'"):
        explain("rewards/margns")
    with pytest.raises(RecipeError, match="dpo explain metrics"):
        explain("nothing/like/it")
    with pytest.raises(RecipeError, match=r"did you mean 'optim\.lr'"):
        explain("optim.lrr")


def test_a_loss_is_a_table_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "loss", ["method.beta=[0.1, 0.5]"], svg=tmp_path / "loss.svg")

    assert "margin  beta 0.1" in text and "+0      0.6931" in text and "gradient of the loss" in text
    words = {each.text for each in ET.parse(tmp_path / "loss.svg").iter()}
    assert {"beta 0.1", "beta 0.5", "Loss", "Gradient of the loss"} <= words
    facts = json.loads(told(capsys, "loss", ["method.name=ipo"], as_json=True))
    assert [curve["beta"] for curve in facts["curves"]] == [0.025, 0.05, 0.1, 0.2, 0.4]


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (["method.name=kto"], "has no margin"),
        (["method.beta=[0.1, x]"], "is no list of numbers"),
        (["method.beta=[0.1, -1]"], "above 0"),
        (["optim.lr=1"], "does not belong to the method"),
        (["method.bta=1"], r"did you mean 'method\.beta'"),
    ],
)
def test_what_is_no_loss_is_refused(overrides: list[str], match: str) -> None:
    with pytest.raises(RecipeError, match=match):
        explain("loss", overrides)


def test_pictures_belong_to_a_loss_and_to_a_folder_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--svg: belongs to a loss"):
        explain("optim.lr", svg=tmp_path / "a.svg")
    with pytest.raises(StorageError, match="No such file"):
        explain("loss", svg=tmp_path / "no" / "a.svg")


def test_a_png_needs_matplotlib_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpo_cli.reports.charts.png.has_matplotlib", lambda: False)
    with pytest.raises(RecipeError, match=r"pip install 'dpo-cli\[plots\]', or --svg FILE"):
        explain("loss", png=tmp_path / "loss.png")


def test_a_png_is_written_by_matplotlib(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    explain("loss", png=tmp_path / "loss.png")

    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
