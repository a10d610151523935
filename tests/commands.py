"""Command lines as documents show them, held against the commands and the recipe keys that there are."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from typer.main import get_command

from dpo_cli import methods
from dpo_cli.cli.app import app
from dpo_cli.recipe.hints import keys
from dpo_cli.recipe.schema import Recipe

EVERYWHERE = {"--debug", "--plugin", "--version", "--help"}
"""Options of `dpo` itself that stand anywhere on the line."""


def tree(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Give every command with the words that call it."""
    command = command or get_command(app)
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from tree(below, (*path, name))


@functools.cache
def known_commands() -> dict[tuple[str, ...], Any]:
    """Give every command by the words that call it."""
    return dict(tree())


def shown(text: str) -> list[list[str]]:
    """Give the words of each `dpo ...` line, also behind variables, `&&` and a prompt."""
    lines = re.findall(r"^(?:\$ )?(?:\w+=\S+ )*(dpo .*)$", text, flags=re.MULTILINE)
    parts = [part.strip() for line in lines for part in re.split(r" (?:&&|\|) (?=dpo )", line)]
    return [shlex.split(re.sub(r"   .*", "", part), comments=True) for part in parts]


def mistakes(words: Sequence[str]) -> list[str]:
    """List what a command line names that is not there: the command, an option, a recipe key."""
    commands = known_commands()
    path = max((words[1 : n + 1] for n in (1, 2) if tuple(words[1 : n + 1]) in commands), key=len, default=[])
    if not path:
        return [f"no command: {' '.join(words)}"]
    options = {name for each in commands[tuple(path)].params for name in each.opts} | EVERYWHERE
    wrong = [word for word in words if word.startswith("--") and word.partition("=")[0] not in options]
    behind = words[1 + len(path) :]
    named = [
        word.partition("=")[0]
        for before, word in zip(["", *behind], behind, strict=False)
        if re.match(r"[a-z_.]+(\[\d\])?[\w.]*=", word) and not before.startswith("--")
    ]
    return [f"{' '.join(words)}: no {each}" for each in [*wrong, *filter(_is_unknown, named)]]


@functools.cache
def known_keys() -> frozenset[str]:
    """Give the key of everything that a recipe may hold, with whatever method."""
    configs = [methods.get(name).config for name in methods.names()]
    return frozenset(key for config in configs for key, _, _ in keys(Recipe, config))


def _is_unknown(key: str) -> bool:
    return re.sub(r"\[\d+\]", "[]", key) not in known_keys()
