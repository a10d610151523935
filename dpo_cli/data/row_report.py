"""What became of the rows, in numbers and in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from dpo_cli.data.row_notes import Note, Reason
from dpo_cli.errors import DataError
from dpo_cli.methods._base import wins
from dpo_cli.types import TokenGroup

QUANTILES = (0.5, 0.95, 1.0)

NOTE_WORDS = {
    Note.CUT: "truncated to data.max_length",
    Note.END_LOST: "lost an end token to truncation",
    Note.BOUNDARY: "with prompt tokens that change once an answer follows (not scored)",
    Note.END_ADDED: "got the tokenizer's end token, for the template writes none",
    Note.LAST_LOST: "lost the whole last answer of a conversation to truncation",
    Note.TURN_UNSCORED: "with an earlier answer that the template rewrites (not scored)",
    Note.THOUGHTS_SCORED: "with think blocks in their answers, scored like the rest (data.thinking: keep)",
    Note.THOUGHTS_CONTEXT: "with think blocks in their answers, read but not scored (data.thinking: unscored)",
    Note.THOUGHTS_REMOVED: "whose think blocks were removed (data.thinking: drop)",
    Note.THOUGHTS_LOST: "with think blocks that the template leaves out",
    Note.TOOLS_UNWRITTEN: "with tools that the template leaves out",
    Note.CALLS_UNWRITTEN: "with tool calls in their context that the template leaves out",
    Note.TURN_UNWRITTEN: "with messages in their context that the template leaves out",
    Note.EMPTY_THOUGHT: "with an empty think block that the template writes into the answer, scored "
    "(data.thinking: drop, or data.chat_template_kwargs={enable_thinking: false} where the template knows it)",
}


_UNWRITTEN = [NOTE_WORDS[note] for note in (Note.TOOLS_UNWRITTEN, Note.CALLS_UNWRITTEN, Note.TURN_UNWRITTEN)]


@dataclass
class SourceReport:
    """One source: rows read, kept, dropped by reason, and what was done to the kept ones."""

    path: str
    role: str
    """`train` or `eval`."""
    format: str
    rows: int
    kept: int = 0
    made: int = 0
    """Rows that the kept ones became: more where rankings became pairs."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Rows by reason."""
    notes: dict[str, int] = field(default_factory=dict)
    """Kept rows by what was done to them: truncated, end token lost, boundary, ..."""
    first: dict[str, str] = field(default_factory=dict)
    """Place of the first row of each entry of `dropped` and `notes`."""
    why: dict[str, str] = field(default_factory=dict)
    """What the template says, by the reason to drop a row."""
    unused_columns: list[str] = field(default_factory=list)
    lengths: dict[str, list[int]] = field(default_factory=dict)
    """Tokens of `prompt`, `chosen`, `rejected` (or `completion`): median, 95th percentile, longest."""
    longer_wins: float | None = None
    """Share of kept pairs whose chosen completion has more scored tokens; equal lengths count half. None without pairs."""
    wanted: float | None = None
    """Share of labelled completions that are wanted; None without labels."""
    margins: list[float] = field(default_factory=list)
    """Score of the chosen minus the rejected completion, where rows state it: smallest, median, largest."""

    def count(self, reason: str | None, notes: Note, place: str) -> None:
        """Count one row: dropped for a reason, or kept with notes."""
        if reason is not None:
            self.dropped[reason] = self.dropped.get(reason, 0) + 1
            self.first.setdefault(reason, place)
            return
        self.kept += 1
        for words in (words for flag, words in NOTE_WORDS.items() if flag in notes):
            self.notes[words] = self.notes.get(words, 0) + 1
            self.first.setdefault(words, place)

    def describe(self, groups: Sequence[TokenGroup]) -> None:
        """Fill in lengths and the share of longer winners from the kept groups."""
        if not groups:
            return
        names = ("chosen", "rejected") if len(groups[0].completions) == 2 else ("completion",)
        columns = {"prompt": [len(group.prompt) for group in groups]}
        columns |= {name: [group.scored[k] for group in groups] for k, name in enumerate(names)}
        self.lengths = {name: np.quantile(n, QUANTILES).astype(int).tolist() for name, n in columns.items()}
        if len(names) == 2:
            self.longer_wins = longer_wins(groups)
        if margins := [group.margin for group in groups if group.margin is not None]:
            self.margins = np.quantile(margins, (0, 0.5, 1)).tolist()
        labels = [group.label for group in groups if group.label is not None]
        self.wanted = sum(labels) / len(labels) if labels else None

    def check_usable(self) -> None:
        """Check that there are rows to train on.

        Raises:
            DataError: there are none.
        """
        if self.kept:
            return
        counts = ", ".join(f"{self.reason(reason)}: {n}" for reason, n in self.dropped.items())
        fix = "see `dpo check`; data.max_length, columns and format decide"
        if Reason.UNWRITTEN in self.dropped:
            fix = "model.chat_template=PATH of a template that writes all of an answer, its tool calls too"
        if Reason.REFUSED in self.dropped:
            fix = "model.chat_template=PATH of a template that takes such conversations"
        raise DataError.of(self.path, f"0 usable rows of {self.rows} ({counts})", fix)

    def lines(self) -> list[str]:
        """Say it in words, one fact a line."""
        head = (
            f"{self.role}: {self.path}: {_count(self.rows, 'row')}, format {self.format}, {self.kept:,} kept"
        )
        facts = [*map(self._drop_line, self.dropped), *map(self._note_line, self.notes)]
        if self.made != self.kept:
            facts.append(f"made {_count(self.made, 'pair')} of rankings")
        if self.unused_columns:
            facts.append(f"columns not used: {', '.join(self.unused_columns)}")
        if self.lengths:
            lengths = ", ".join(f"{name} {a:,} / {b:,} / {c:,}" for name, (a, b, c) in self.lengths.items())
            facts.append(f"tokens (median / 95% / longest): {lengths}")
        if self.longer_wins is not None:
            facts.append(f"the longer answer is the chosen one in {self.longer_wins:.0%} of pairs")
        if self.margins:
            facts.append(
                "score gap (smallest / median / largest): {:.3g} / {:.3g} / {:.3g}".format(*self.margins)
            )
        if self.wanted is not None:
            facts.append(f"{self.wanted:.0%} of the completions are wanted (label true)")
        return [head, *(f"  {fact}" for fact in facts)]

    def unwritten(self) -> list[str]:
        """Say of how many rows the template leaves out what, one fact a line."""
        dropped = [str(Reason.UNWRITTEN)] if Reason.UNWRITTEN in self.dropped else []
        notes = [what for what in _UNWRITTEN if what in self.notes]
        return [*map(self._drop_line, dropped), *map(self._note_line, notes)]

    def reason(self, reason: str) -> str:
        """Return a reason to drop a row, with what the template says."""
        return f"{reason}: {self.why[reason]}" if reason in self.why else reason

    def _drop_line(self, reason: str) -> str:
        return f"dropped {self.dropped[reason]:,}: {self.reason(reason)} (first: {self.first[reason]})"

    def _note_line(self, what: str) -> str:
        return f"{_count(self.notes[what], 'row')} {what} (first: {self.first[what]})"


@dataclass
class Report:
    """All sources, the parts they were dealt to, and what looks wrong across them."""

    sources: list[SourceReport] = field(default_factory=list)
    parts: dict[str, int] = field(default_factory=dict)
    """Rows of `train` (an epoch), `eval` and `test`."""
    leaked: int = 0
    """Held-out rows whose prompt is also trained on."""
    contradictions: int = 0
    """Pairs that stand in the data in both orders."""
    repeated: int = 0
    """Rows that repeat an earlier one word for word."""
    last_lost: int = 0
    """Rows that are not used: their last answer, the only one to score, was cut away."""

    dealt: list[str] = field(default_factory=list)
    """What is to be said of the parts: rows that `data.drop` took out, a share that holds out none."""
    audited: list[str] | None = None
    """What a full audit says of the rows, in place of the three counts above; None where there was none."""
    advice: list[str] = field(default_factory=list)
    """What the method says of its settings on these rows."""

    def unwritten(self) -> list[str]:
        """Say of how many rows the template leaves out what, so that the model would not read it: one fact a line, none where all is written."""
        return [line for source in self.sources for line in source.unwritten()]

    def warnings(self) -> list[str]:
        """Return what deserves a look, in words."""
        lines = [*self.dealt, *self.advice]
        if self.audited is not None:
            return lines + self.audited
        if self.leaked:
            lines.append(f"{_count(self.leaked, 'held-out row')} share a prompt with the training rows")
        if self.contradictions:
            lines.append(
                f"{_count(self.contradictions, 'pair')} stand in the data in both orders (a > b and b > a)"
            )
        if self.last_lost:
            lines.append(
                f"{_count(self.last_lost, 'row')} lost the last answer, the only one to score, to data.max_length: not used"
            )
        if self.repeated:
            lines.append(f"{_count(self.repeated, 'row')} repeat another word for word")
        return lines

    def lines(self) -> list[str]:
        """Say it all in words, one fact a line; warnings are marked as such."""
        parts = ", ".join(f"{name} {n:,}" for name, n in self.parts.items())
        facts = [line for source in self.sources for line in source.lines()]
        return [*facts, f"rows: {parts}", *(f"warning: {warning}" for warning in self.warnings())]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        return asdict(self) | {"warnings": self.warnings()}


def longer_wins(groups: Sequence[TokenGroup]) -> float:
    """Return the accuracy of preferring the longer completion; equal lengths count half."""
    chosen, rejected = (np.array([group.scored[k] for group in groups]) for k in (0, 1))
    return float(wins(chosen - rejected).mean())


def _count(n: int, thing: str) -> str:
    return f"{n:,} {thing}{'' if n == 1 else 's'}"
