"""One way in which a file's rows could be read, and what it would make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dpo_cli.data import formats
from dpo_cli.data.detect.columns.profile import Profile
from dpo_cli.data.detect.label_words import UnknownWord, read_labels
from dpo_cli.data.detect.reading import Reading, named_fields
from dpo_cli.data.formats._base import BadRow, SkipRow
from dpo_cli.data.settings import Setting
from dpo_cli.types import Example, Text

if TYPE_CHECKING:
    from dpo_cli.recipe.schema import Source

SHOWN_CHARS = 60
Names = Mapping[str, str]
"""Columns that are stated: what the format calls it -> the path."""


@dataclass(frozen=True)
class Candidate:
    """A reading of a file, as far as it is known."""

    format: str
    columns: Mapping[str, str]
    """What the format calls it -> where the file has it."""
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    better: str | None = None
    """Which ratings are the better ones; None where there are none, or the usual direction is meant."""
    gather: str = "rows"
    ignore: tuple[str, ...] = ()
    means: str = ""
    """What is taken for what, for a person who has to choose."""
    is_sure: bool = True
    """Whether names and values say that it is so; otherwise it is only offered."""
    unknown: tuple[str, ...] = ()
    """Words that nobody could place."""

    is_whole: bool = True
    """Whether it is known what is asked."""

    @classmethod
    def of(cls, source: Source) -> Candidate:
        """Return the reading that a whole source states."""
        return cls(
            source.format, source.columns, source.labels, source.better, source.gather, tuple(source.ignore)
        )

    def applied(self, given: Source) -> Source:
        """Return the source that reads the file so; what is stated already stays."""
        columns = {name: path for name, path in self.columns.items() if name != path}
        labels = {name: list(words) for name, words in self.labels.items()}
        return replace(
            given,
            format=self.format,
            columns={**columns, **given.columns},
            labels=labels or given.labels,
            better=given.better or self.better,  # type: ignore[arg-type]
            gather=self.gather,  # type: ignore[arg-type]
            ignore=list(dict.fromkeys([*given.ignore, *self.ignore])),
        )


def settings_of(source: Source, given: Source) -> list[Setting]:
    """Return what must be typed to get a source, but for what is stated already."""
    stated = [Setting("format", source.format)] if given.format == "auto" else []
    for name in ("gather", "better"):
        if getattr(source, name) != getattr(given, name):
            stated.append(Setting(name, getattr(source, name)))
    stated += [
        Setting(f"columns.{name}", path)
        for name, path in source.columns.items()
        if given.columns.get(name) != path
    ]
    if source.labels != given.labels:
        stated += [Setting(f"labels.{name}", word) for name, words in source.labels.items() for word in words]
    stated += [Setting("ignore", name) for name in source.ignore if name not in given.ignore]
    return stated


def examples(source: Source, profile: Profile) -> list[Example | None]:
    """Return what a source makes of the sampled rows; None for a row that it cannot read or leaves out."""
    layout = formats.get(source.format)
    words = read_labels(source.labels, "FILE")
    columns, unread = named_fields(source, frozenset(profile.words))
    reading = Reading(layout, True, columns, words, source.better == "lower", unread)
    found: list[Example | None] = []
    for row in profile.sample:
        try:
            found.append(layout.parse(reading.read(row), "", True))
        except (BadRow, SkipRow, UnknownWord):
            found.append(None)
    return found


def agree(
    one: Sequence[Example | None], other: Sequence[Example | None], *, with_prompts: bool = False
) -> bool:
    """Return whether two readings choose the same answer, of several or alone, wherever both choose, and ask the same where that counts."""
    both = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return bool(both) and all(
        _say_the_same(a, b) and (not with_prompts or a.prompt == b.prompt) for a, b in both
    )


def _say_the_same(one: Example, other: Example) -> bool:
    n, m = len(one.completions), len(other.completions)
    last = said(one.completions[-1]) == said(other.completions[-1]) or n != m
    is_first = said(one.completions[0]) == said(other.completions[0])
    return is_first and last and one.label is other.label and (n > 1) == (m > 1)


def said(text: Text) -> str:
    """Return an answer's last words, to be shown or compared."""
    return text if isinstance(text, str) else str(text[-1]["content"] or text[-1].get("tool_calls", ""))


def shown(example: Example) -> str:
    """Return what an example would teach, in a line."""
    best = _short(said(example.completions[0]))
    if len(example.completions) > 1:
        return f"chosen {best}, rejected {_short(said(example.completions[-1]))}"
    return f"{'wanted ' if example.label else 'unwanted ' if example.label is False else 'answer '}{best}"


def asked(example: Example) -> str:
    """Return what an example asks, in a line: its last words."""
    text = (
        example.prompt
        if isinstance(example.prompt, str)
        else "\n".join(str(turn["content"]) for turn in example.prompt)
    )
    text = " ".join(text.split())
    return f"prompt {text if len(text) <= 2 * SHOWN_CHARS else '...' + text[-2 * SHOWN_CHARS :]!r}"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "...")
