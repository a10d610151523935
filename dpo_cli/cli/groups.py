"""`dpo --help` by group: commands are listed under the folder that they are in."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

TITLES = {
    "data": "Data",
    "train": "Train",
    "evaluate": "Evaluate",
    "samples": "Samples and judges",
    "models": "Models",
    "reference": "Reference",
    "about": "About",
}
"""Folder -> heading."""


class ByFolder(TyperGroup):
    """A group of commands whose help lists them under headings."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each folder, commands in the order of their registration."""
        rows: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                limit = formatter.width - 6 - max(map(len, self.commands))
                rows.setdefault(_folder(command), []).append((name, command.get_short_help_str(limit)))
        for folder, title in TITLES.items():
            if folder in rows:
                with formatter.section(title):
                    formatter.write_dl(rows[folder])


def _folder(command: Any) -> str:
    """Return the folder of a command's function, or of a subcommand's."""
    while command.callback is None or getattr(command, "commands", None):
        command = next(iter(command.commands.values()))
    return str(command.callback.__module__).split(".")[-2]
