"""Write the pages that are made from the code: every recipe key, every metric, every command.

    python -m scripts.docs_pages

A test checks that the pages are those of the code.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from dpo_cli import methods
from dpo_cli.cli.app import app
from dpo_cli.metrics.glossary import metrics
from dpo_cli.recipe.json_schema import json_schema

DOCS = Path(__file__).resolve().parents[1] / "docs"
MADE = "Made by `python -m scripts.docs_pages` from the code."


def recipes() -> str:
    """Return the page of every key."""
    schema = json_schema()
    lines = ["# Recipes: every key", "", MADE, "", "`dpo explain KEY` prints the same in a terminal.", ""]
    for name, group in schema["properties"].items():
        if name == "method":
            continue
        lines += [f"## {name}", "", _text(group.get("description", "")), ""]
        rows = list(_keys(name, group, schema))
        if rows:
            lines += ["| key | default | meaning |", "|---|---|---|", *rows, ""]
    lines += ["## method", "", "`method.name` selects the method; each has keys of its own.", ""]
    for each in schema["properties"]["method"]["anyOf"]:
        name = each["properties"]["name"].get("const") or each["properties"]["name"].get("default")
        lines += [f"### {name}", "", methods.get(name).paper, ""]
        lines += ["| key | default | meaning |", "|---|---|---|", *_keys("method", each, schema), ""]
    return "\n".join(lines).rstrip() + "\n"


def _keys(prefix: str, group: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    """Yield a row of the table for each key of a group, and of groups inside."""
    inner = group.get("properties")
    if inner is None:
        options = [
            *group.get("anyOf", []),
            *([group["items"]] if isinstance(group.get("items"), dict) else []),
        ]
        inner = next((each["properties"] for each in options if "properties" in each), {})
    for name, key in inner.items():
        path = f"{prefix}.{name}"
        if "properties" in key or any("properties" in each for each in key.get("anyOf", [])):
            yield f"| `{path}` | | {_text(key.get('description', ''))} |"
            yield from _keys(path, key, schema)
        elif isinstance(key.get("items"), dict) and "properties" in key["items"]:
            yield f"| `{path}` | | {_text(key.get('description', ''))} |"
            yield from _keys(f"{path}[]", key["items"], schema)
        else:
            default = "" if "default" not in key else f"`{_value(key['default'])}`"
            yield f"| `{path}` | {default} | {_text(key.get('description', ''))} |"


def _value(value: object) -> str:
    """Return a default as a recipe writes it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _text(text: str) -> str:
    """Return a text as a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def metric_page() -> str:
    """Return the page of every logged name."""
    lines = [
        "# Metrics",
        "",
        MADE,
        "",
        "Names as in TRL's dashboards, under `train/` and `eval/`. `dpo explain NAME` prints one.",
        "",
    ]
    lines += ["| name | meaning | unit | range | good |", "|---|---|---|---|---|"]
    for name, metric in metrics().items():
        cells = [_text(str(value)) for value in dataclasses.astuple(metric)]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Return the page of every command with its options."""
    lines = ["# Commands", "", MADE, ""]
    for path, command in _commands(get_command(app), ("dpo",)):
        lines += [f"## {' '.join(path)}", "", _paragraphs(command.help or ""), ""]
        rows = []
        for each in command.params:
            if getattr(each, "hidden", False) or "--help" in each.opts:
                continue
            name = (
                ", ".join(f"`{opt}`" for opt in each.opts)
                if each.param_type_name == "option"
                else f"`{(each.name or '').upper()}`"
            )
            rows.append(f"| {name} | {_text(getattr(each, 'help', None) or '')} |")
        if rows:
            lines += ["| argument or option | meaning |", "|---|---|", *rows, ""]
    return "\n".join(lines).rstrip() + "\n"


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not getattr(command, "commands", None):
        yield path, command
        return
    for name, inner in sorted(command.commands.items()):
        yield from _commands(inner, (*path, name))


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.replace("\b", "").split("\n\n"))


PAGES = {"recipes.md": recipes, "metrics.md": metric_page, "commands.md": commands}

if __name__ == "__main__":
    for page, make in PAGES.items():
        (DOCS / page).write_text(make(), encoding="utf-8")
