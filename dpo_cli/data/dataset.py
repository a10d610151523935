"""The rows of a run: what the data say, what the model gets."""

from __future__ import annotations

from dataclasses import dataclass, field

from dpo_cli.data.row_notes import Note
from dpo_cli.data.row_report import Report
from dpo_cli.types import Example, TokenGroup


@dataclass(frozen=True, eq=False)
class DataRow:
    """One kept row: what the data say, and what the model gets."""

    example: Example
    group: TokenGroup
    source: str
    """The path of its source, as the recipe has it."""
    prompt_key: str
    """Digest of the prompt: rows of one prompt belong together in intervals and splits."""
    notes: Note
    """What was done to fit it."""
    stated: Example
    """What its row in the file says: `example`, or the ranking that this is a pair of."""
    ranking: TokenGroup | None = None
    """That ranking, for a method that trains on rankings."""


@dataclass(frozen=True, eq=False)
class Data:
    """The rows of a run. The order is that of the sources and their rows, the same in every run."""

    train_rows: list[DataRow]
    """An epoch: a source of weight 2 has each row twice, one of weight 0.5 the half of its rows that their digests choose."""
    eval_rows: list[DataRow]
    test_rows: list[DataRow]
    report: Report
    mismatched: list[TokenGroup] = field(default_factory=list)
    """Each training row's prompt with the completion of another prompt, in the order of `train_rows`; empty where the method asks for none."""

    @property
    def train(self) -> list[TokenGroup]:
        """Groups of an epoch."""
        return [row.group for row in self.train_rows]

    @property
    def eval(self) -> list[TokenGroup]:
        """Held-out groups, in the order of `eval_rows`."""
        return [row.group for row in self.eval_rows]

    @property
    def test(self) -> list[TokenGroup]:
        """Groups that no training run reads, in the order of `test_rows`."""
        return [row.group for row in self.test_rows]
