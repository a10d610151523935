"""What an evaluation knows of each pair, as columns: the file that every later question is asked of."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpo_cli.errors import StorageError
from dpo_cli.methods._base import wins

FILE_NAME = "pairs.parquet"


@dataclass(frozen=True, eq=False)
class PairRows:
    """n pairs as a model judged them. In a file every column of two is two: `chosen_...` and `rejected_...`."""

    key: np.ndarray
    """Digest of prompt, chosen and rejected as the data state them, (n,): what makes it the same row for any model."""
    set: np.ndarray
    """Name of the set that the row came from, (n,)."""
    source: np.ndarray
    """`file:line`, (n,)."""
    prompt: np.ndarray
    """Digest of the prompt, (n,): rows of one prompt belong together in intervals."""
    ids: np.ndarray
    """Digest of each completion's token ids and score mask, (n, 2)."""
    prompt_tokens: np.ndarray
    """(n,)."""
    tokens: np.ndarray
    """Scored tokens, (n, 2)."""
    logps: np.ndarray
    """Summed log-probs, nats, (n, 2); nan for a reward model."""
    ref_logps: np.ndarray
    """The same under the reference; nan without one."""
    rewards: np.ndarray
    """In the method's own units, (n, 2)."""
    tie: np.ndarray
    """Whether the rewards differ by no more than arithmetic makes them, (n,) bool; see `methods._base.ties`."""

    def __len__(self) -> int:
        return len(self.key)

    @property
    def margin(self) -> np.ndarray:
        """Reward of chosen minus rejected, (n,)."""
        return self.rewards[:, 0] - self.rewards[:, 1]

    @property
    def correct(self) -> np.ndarray:
        """What each pair counts in the accuracy, (n,): 1 where the chosen completion has the higher reward, 1/2 for a tie, else 0."""
        return wins(self.margin, self.tie)

    @property
    def has_reference(self) -> bool:
        """Whether there are reference log-probs."""
        return not np.isnan(self.ref_logps).any()

    @property
    def has_logps(self) -> bool:
        """Whether there are log-probs; a reward model has none."""
        return not np.isnan(self.logps).any()

    def take(self, which: np.ndarray) -> PairRows:
        """Return some of the rows, by index or mask, in that order."""
        return PairRows(*(getattr(self, field.name)[which] for field in fields(self)))

    def aligned(self, keys: Sequence[str]) -> PairRows:
        """Return the rows in the order of `keys`, sorted; a row that stands several times keeps its order among its likes."""
        rows = self.take(np.argsort(self.key, kind="stable"))
        assert rows.key.tolist() == list(keys), "aligned takes the same rows"
        return rows


_SIDES = ("chosen", "rejected")
_NAMES = {"ids": "{}_ids", "tokens": "{}_tokens", "logps": "logps_{}", "ref_logps": "ref_{}_logps"}
_NAMES["rewards"] = "{}_reward"
"""Columns of two, as a file names them; `ref_chosen_logps` is TRL's own."""


def write_rows(rows: PairRows, path: Path) -> None:
    """Write rows as Parquet, whole or not at all; `margin` and `correct` are columns too.

    Raises:
        StorageError: it cannot be written.
    """
    columns: dict[str, Any] = {}
    for field in fields(rows):
        values = getattr(rows, field.name)
        if field.name not in _NAMES:
            columns[field.name] = pa.array(values)
            continue
        for k, side in enumerate(_SIDES):
            columns[_NAMES[field.name].format(side)] = pa.array(values[:, k], from_pandas=True)
    columns |= {"margin": pa.array(rows.margin), "correct": pa.array(rows.correct)}
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), temporary, write_page_checksum=True)
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError.of(
            str(path), f"cannot be written: {error.strerror or error}", "--out FOLDER"
        ) from None


def read_rows(path: Path) -> PairRows:
    """Read what `write_rows` wrote.

    Raises:
        StorageError: no such file, or none of ours.
    """
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        columns = {}
        for field in fields(PairRows):
            names = [_NAMES[field.name].format(side) for side in _SIDES] if field.name in _NAMES else []
            found = [np.asarray(table[name].to_numpy(zero_copy_only=False)) for name in names or [field.name]]
            columns[field.name] = np.stack(found, axis=1) if names else found[0]
    except (OSError, KeyError, pa.ArrowException) as error:
        what = f"no readable results of `dpo eval`: {' '.join(str(error).split())[:200]}"
        raise StorageError.of(str(path), what, "run `dpo eval` again") from None
    return PairRows(**columns)
