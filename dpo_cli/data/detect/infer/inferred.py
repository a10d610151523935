"""What was found out about a file."""

from __future__ import annotations

from dataclasses import dataclass, field

from dpo_cli.data.detect.label_words import spelled
from dpo_cli.data.formats._base import Format
from dpo_cli.recipe.schema import Source


@dataclass(frozen=True)
class Inferred:
    """What a file holds, as a source that states all of it."""

    source: Source
    format: Format
    rows: int
    kept: int
    dropped: dict[str, int]
    """Rows left out, by reason."""
    unused: dict[str, str] = field(default_factory=dict)
    """Column that nothing reads -> why that is harmless."""
    layout: str = ""
    """Name of the published layout, where it is one."""
    roles: dict[str, str] = field(default_factory=dict)
    """Word of the file for a role -> the role it is read as, where they differ."""

    def lines(self) -> list[str]:
        """Return it in words, one fact per line."""
        source = self.source
        known = f" (the layout of {self.layout})" if self.layout else ""
        facts = [f"{source.path}: {self.rows:,} rows, read as {self.format.name}{known}: {self.format.fits}"]
        for name, column in source.columns.items():
            facts.append(f"  {name} is the column {column!r}" if column else f"  {name} is not read")
        if source.labels:
            facts.append(f"  words: {spelled(source.labels)}")
        if source.better is not None:
            facts.append(f"  the {source.better} rating is better")
        if source.gather != "rows":
            facts.append(f"  rows are gathered by {source.gather}")
        if self.roles:
            facts.append(f"  roles: {', '.join(f'{word!r} is {role}' for word, role in self.roles.items())}")
        facts += [f"  left out {n:,}: {reason}" for reason, n in self.dropped.items()]
        if self.unused:
            unused = ", ".join(f"{name} ({why})" for name, why in self.unused.items())
            facts.append(f"  not used: {unused}")
        return facts
