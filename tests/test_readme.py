"""README and docs show code and commands that are there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from dpo_cli import methods
from dpo_cli.recipe.load import load
from dpo_cli.train.run import train
from scripts import docs_pages
from tests.commands import mistakes, shown
from tests.train.tiny_recipe import write_recipe

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
METHOD = PAGES["add-a-method.md"]


def test_the_method_that_it_shows_is_the_file() -> None:
    (shown,) = re.findall(r"```python\n(.*?)```", METHOD, flags=re.DOTALL)

    assert shown.strip() in (ROOT / "dpo_cli" / "methods" / "simpo.py").read_text()


def test_the_method_that_it_shows_trains_as_a_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shown,) = re.findall(r"```python\n(.*?)```", METHOD, flags=re.DOTALL)
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


@pytest.mark.parametrize("text", [README, PAGES["methods.md"]], ids=["README", "methods"])
def test_it_lists_every_method(text: str) -> None:
    listed = re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)

    assert sorted(set(listed)) == methods.names()


def test_command_lines_name_commands_options_and_keys_that_are_there() -> None:
    text = "\n".join([README, *PAGES.values()])
    inline = re.findall(r"`(dpo [^`]+)`", text)
    lines = shown("\n".join([text, *inline]))

    assert len(lines) > 60
    wrong = {each for words in lines for each in mistakes(words)}
    assert wrong == {"dpo train my.yaml optim.lrr=1e-6: no optim.lrr"}  # shown for its message


def test_links_lead_to_pages_and_the_site_lists_each_page() -> None:
    for name, text in {"../README.md": README, **PAGES}.items():
        for link in re.findall(r"\]\(([^)#:]+\.(?:md|json))\)", text):
            assert (ROOT / "docs" / name).parent.joinpath(link).resolve().is_file(), f"{name}: {link}"
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    assert sorted(listed) == sorted(PAGES)


def test_scripts_that_are_named_are_there() -> None:
    for name, text in {"README.md": README, **PAGES}.items():
        for script in re.findall(r"scripts/[\w/]+\.py", text):
            assert (ROOT / script).is_file(), f"{name}: {script}"


def test_pages_made_from_the_code_are_those_of_the_code() -> None:
    for name, make in docs_pages.PAGES.items():
        assert PAGES[name] == make(), "python -m scripts.docs_pages"


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) < 160
