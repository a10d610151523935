"""Reference log-probs by completion: scored once before the first step, looked up in every step, pinned beside the run.

Does not share values between runs yet.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from dpo_cli.errors import StorageError
from dpo_cli.types import LogProbs, TokenGroup

Sums = list[tuple[float, int]]
ScoreAll = Callable[[Sequence[TokenGroup]], list[Sums]]
"""Groups -> for each its completions' (summed log-prob, scored tokens), on all ranks."""


class ReferenceValues:
    """What the reference thinks of completions: key -> (summed log-prob in nats, scored tokens)."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[float, int]] = {}

    def fill(self, groups: Iterable[TokenGroup], score_all: ScoreAll) -> int:
        """Score the groups that hold a completion without a value; give how many completions were scored.

        A key stands for token ids and score mask, so equal completions of equal prompts are scored once.
        """
        missing = {group.keys: group for group in groups if any(key not in self._values for key in group.keys)}
        for group, sums in zip(missing.values(), score_all(list(missing.values())), strict=True):
            self._values.update(zip(group.keys, sums, strict=True))
        return sum(len(group.keys) for group in missing.values())

    def lookup(self, groups: Sequence[TokenGroup], device: torch.device | str = "cpu") -> LogProbs:
        """Give the values of the groups' completions in batch order, (N,); every one must have been filled."""
        found = [self._values[key] for group in groups for key in group.keys]
        total = torch.tensor([total for total, _ in found], dtype=torch.float32)
        tokens = torch.tensor([tokens for _, tokens in found])
        return LogProbs(total.to(device, non_blocking=True), tokens.to(device, non_blocking=True))

    def save(self, path: Path) -> None:
        """Pin the values: write them to a Parquet file with page checksums, whole or not at all."""
        table = pa.table(
            {
                "key": list(self._values),
                "sum_logp": pa.array([total for total, _ in self._values.values()], pa.float64()),
                "n_tokens": pa.array([tokens for _, tokens in self._values.values()], pa.int32()),
            }
        )
        temporary = path.with_suffix(".tmp")
        pq.write_table(table, temporary, write_page_checksum=True)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)

    def load(self, path: Path) -> None:
        """Take over pinned values.

        Raises:
            StorageError: the file is damaged.
        """
        try:
            table = pq.read_table(path, page_checksum_verification=True)
        except (OSError, pa.ArrowInvalid) as error:
            raise StorageError.of(str(path), f"damaged: {error}", "delete the file; the values are scored again") from None
        columns = [table[name].to_pylist() for name in ("key", "sum_logp", "n_tokens")]
        self._values.update({key: (total, tokens) for key, total, tokens in zip(*columns, strict=True)})
