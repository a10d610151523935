"""The README shows code that is there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from dpo_cli import methods
from dpo_cli.recipe.load import load
from dpo_cli.train.run import train
from tests.commands import mistakes, shown
from tests.train.tiny_recipe import write_recipe

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_method_that_it_shows_is_the_file() -> None:
    (shown,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)

    assert shown.strip() in (ROOT / "dpo_cli" / "methods" / "simpo.py").read_text()


def test_the_method_that_it_shows_trains_as_a_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shown,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    file = (ROOT / "dpo_cli" / "methods" / "simpo.py").read_text()
    imports = file[file.index("from __future__") : file.index("@dataclass")]
    (tmp_path / "shown.py").write_text(imports + shown.replace('"simpo"', '"shown"'))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr(methods, "_allowed", {"shown"})
    settings = ["method.name=shown", "train.max_steps=4", f"train.output_dir={tmp_path}/runs"]

    status = train(load(str(write_recipe(tmp_path)), settings), "dpo train tiny.yaml --plugin shown")

    assert status.state == "finished" and status.step == 4
    assert status.eval is not None and status.eval["n"] > 0


def test_it_lists_every_method() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE)

    assert sorted(set(listed)) == methods.names()


def test_its_command_lines_name_commands_options_and_keys_that_are_there() -> None:
    inline = re.findall(r"`(dpo [^`]+)`", README)
    lines = shown("\n".join([README, *inline]))

    assert len(lines) > 40
    wrong = [each for words in lines for each in mistakes(words)]
    assert wrong == ["dpo train my.yaml optim.lrr=1e-6: no optim.lrr"]  # shown for its message
