"""What `--help` says is whole, fits a terminal, and shows commands that work."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from dpo_cli.cli.app import app
from dpo_cli.cli.groups import TITLES
from tests.commands import known_commands, mistakes, shown

COMMANDS = {" ".join(path): command for path, command in known_commands().items()}


def text_of(name: str) -> str:
    done = CliRunner().invoke(app, [*name.split(), "--help"], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_eighty_columns_and_says_what_each_parameter_is(name: str) -> None:
    parameters: list[Any] = COMMANDS[name].params

    assert max(map(len, text_of(name).splitlines())) <= 80
    assert [each.name for each in parameters if not each.help] == []


@pytest.mark.parametrize("group", ["", "cache", "recipes"])
def test_what_a_list_of_commands_says_of_each_stands_whole_on_one_line(group: str) -> None:
    first = "Commands:" if group else f"{next(iter(TITLES.values()))}:"
    text = text_of(group).partition(first)[2].partition("Example")[0].strip()
    listed = [line for line in text.splitlines() if line and not line.endswith(":")]
    below = [name.split()[-1] for name in COMMANDS if name and name.rpartition(" ")[0] == group]

    assert sorted(line.split()[0] for line in listed) == sorted(below)
    assert all(line.endswith(".") and not line.endswith("...") for line in listed)


def test_commands_are_listed_by_group() -> None:
    titles = [line.strip(":") for line in text_of("").splitlines() if line.strip(":") in TITLES.values()]

    assert titles == list(TITLES.values())


@pytest.mark.parametrize("name", COMMANDS)
def test_its_examples_name_commands_options_and_keys_that_are_there(name: str) -> None:
    lines = shown("\n".join(map(str.strip, text_of(name).splitlines())))

    assert [wrong for words in lines for wrong in mistakes(words)] == []
    assert all(words[1 : len(name.split()) + 1] == name.split() for words in lines[:1]) or name == "ledger"


def test_a_shown_line_with_a_slip_is_told() -> None:
    slips = "dpo prepare my.yaml\ndpo train my.yaml --seed 1\ndpo train my.yaml optim.lrr=1\ndpo train my.yaml optim.lr=1"

    assert [len(mistakes(words)) for words in shown(slips)] == [1, 1, 1, 0]
