"""The ledger of a run: what each training pair met on the way and how it stands at the end; hardest, suspect and forgotten pairs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpo_cli.errors import StorageError
from dpo_cli.evaluate.pairs.label_noise import Flips, find_flips
from dpo_cli.methods._base import wins

FOLDER = "ledger"
VISITS = "visits.jsonl"
PAIRS = "pairs.parquet"
SUSPECTS = "suspects.jsonl"

Visit = tuple[int, float, float]
"""Steps done before it, margin before the pair's own gradient, the loss's weight on the pair."""

Texts = Mapping[str, Mapping[str, Any]]
"""Key -> texts of a pair."""


@dataclass(frozen=True, eq=False)
class Ledger:
    """n training pairs, each once, as their run met them. Margins are in the method's reward units."""

    key: np.ndarray
    """Digest of prompt, chosen and rejected as the data state them, (n,)."""
    source: np.ndarray
    """`file:line`, (n,)."""
    visits: list[list[Visit]]
    """By step; empty for a pair that no step came to."""
    margin: np.ndarray
    """At the end of the run, (n,); 0 for a tie."""

    def __len__(self) -> int:
        return len(self.key)

    @property
    def weight(self) -> np.ndarray:
        """Mean weight of the loss on each pair over its visits, (n,); nan without a visit."""
        return np.array([_mean([weight for _, _, weight in each]) for each in self.visits])

    @property
    def fell(self) -> np.ndarray:
        """How far a pair that was right at a visit has fallen below zero at the end, (n,); 0 for all others."""
        return np.where((self.best > 0) & (self.margin < 0), self.best - self.margin, 0.0)

    @property
    def first(self) -> np.ndarray:
        """The margin at each pair's first visit, before any gradient of its own, (n,); nan without a visit."""
        return np.array([each[0][1] if each else np.nan for each in self.visits])

    @property
    def standing(self) -> np.ndarray:
        """Mean margin over the visits after the first and the end of the run, (n,).

        A label learnt by heart is right at the end; on the way it was wrong for longer than others (area under the margin, Pleiss et al.
        2020, arXiv:2001.10528).
        """
        after = ([margin for _, margin, _ in each[1:]] for each in self.visits)
        return np.array([_mean([*each, end]) for each, end in zip(after, self.margin.tolist(), strict=True)])

    @cached_property
    def flips(self) -> Flips:
        """What the margins say of the labels."""
        return find_flips(self.first, self.standing)

    @property
    def best(self) -> np.ndarray:
        """The highest margin that each pair had at a visit, (n,); nan without a visit."""
        met = ([margin for _, margin, _ in each if not math.isnan(margin)] for each in self.visits)
        return np.array([max(margins, default=np.nan) for margins in met])

    def figures(self) -> dict[str, Any]:
        """Return the whole in figures, for JSON."""
        suspected = self.flips.suspected
        return {
            "pairs": len(self),
            "right": float(wins(self.margin).mean()),
            "forgotten": int((self.fell > 0).sum()),
            "suspected": int(suspected.sum()),
            "flip_rate": self.flips.rate,
        }

    def lists(self, n: int) -> dict[str, list[dict[str, Any]]]:
        """Return up to n suspected pairs, those that stand lowest first; of the others those with the lowest margins, and those that fell furthest.

        Plain values for JSON: None where there is none, as of a pair that no step came to.
        """
        suspected = self.flips.suspected
        return {
            "suspects": self._top(-self.standing, n, suspected),
            "hardest": self._top(-self.margin, n, ~suspected),
            "forgotten": self._top(self.fell, n, ~suspected & (self.fell > 0)),
        }

    def order(self, by: np.ndarray, among: np.ndarray) -> list[int]:
        """Return the numbers of the pairs in `among`, (n,) bool, the largest value of `by` first."""
        return [int(at) for at in np.argsort(-by, kind="stable") if among[at]]

    def _top(self, by: np.ndarray, n: int, among: np.ndarray) -> list[dict[str, Any]]:
        best, weight, standing = self.best, self.weight, self.standing
        return [
            {
                "key": self.key[at],
                "source": self.source[at],
                "margin": _known(self.margin[at]),
                "best": _known(best[at]),
                "weight": _known(weight[at]),
                "visits": len(self.visits[at]),
                "standing": _known(standing[at]),
            }
            for at in self.order(by, among)[:n]
        ]


def ledger_of(
    keys: Sequence[str], sources: Sequence[str], visits: Mapping[int, list[Visit]], margins: np.ndarray
) -> Ledger:
    """Return the ledger of an epoch's examples; a pair that stands in it several times is one pair with all visits.

    Args:
        keys: of each example, (n,).
        sources: `file:line` of each.
        visits: example -> its visits; see `read_visits`.
        margins: of each at the end of the run, (n,), reward units.
    """
    first = {key: at for at, key in reversed(list(enumerate(keys)))}
    met: dict[str, list[Visit]] = {key: [] for key in first}
    for at, key in enumerate(keys):
        met[key] += visits.get(at, [])
    order = sorted(first.values())
    each = [sorted(met[keys[at]]) for at in order]
    final = margins[order].astype(np.float64)
    return Ledger(
        np.array([keys[at] for at in order], dtype=object),
        np.array([sources[at] for at in order], dtype=object),
        each,
        final,
    )


def read_visits(path: Path) -> dict[int, list[Visit]]:
    """Return the visits to each example from the lines of `visits.jsonl`.

    A resumed run repeats the steps after its checkpoint: the later line counts. What a crash cut short is left out.
    """
    met: dict[tuple[int, int], Visit] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            part = json.loads(line)
        except json.JSONDecodeError:
            continue
        for step, row, margin, weight in zip(
            part["step"], part["row"], part["margin"], part["weight"], strict=True
        ):
            met[row, step] = (step, _number(margin), _number(weight))
    visits: dict[int, list[Visit]] = {}
    for (row, _), visit in sorted(met.items()):
        visits.setdefault(row, []).append(visit)
    return visits


def write_ledger(ledger: Ledger, texts: Texts, folder: Path) -> None:
    """Write `pairs.parquet`, and `suspects.jsonl` with the suspected pairs and their texts, those that stand lowest first: `data.drop` reads it.

    Args:
        ledger: what to write.
        texts: key -> what to show of a pair: prompt, chosen and rejected.
        folder: is made where it is missing.

    Raises:
        StorageError: it cannot be written.
    """
    columns: dict[str, Any] = {
        name: pa.array(getattr(ledger, name)) for name in ("key", "source", "margin", "weight", "fell")
    }
    columns |= {"standing": pa.array(ledger.standing), "suspected": pa.array(ledger.flips.suspected)}
    for i, (name, kind) in enumerate(
        (("steps", pa.int64()), ("margins", pa.float64()), ("weights", pa.float64()))
    ):
        columns[name] = pa.array([[visit[i] for visit in each] for each in ledger.visits], pa.list_(kind))
    lines = [
        json.dumps(
            {
                "key": ledger.key[at],
                "source": ledger.source[at],
                "margin": float(ledger.margin[at]),
                **texts[ledger.key[at]],
            },
            ensure_ascii=False,
            default=str,
        )
        for at in ledger.order(-ledger.standing, ledger.flips.suspected)
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), folder / f"{PAIRS}.tmp", write_page_checksum=True)
        (folder / f"{SUSPECTS}.tmp").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        for name in (PAIRS, SUSPECTS):
            os.replace(folder / f"{name}.tmp", folder / name)
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}"
        raise StorageError.of(str(folder), what, "free some space and run the same command again") from None


def read_ledger(folder: Path) -> Ledger:
    """Read what `write_ledger` wrote.

    Raises:
        StorageError: no such file, or none of ours.
    """
    try:
        table = pq.read_table(folder / PAIRS, page_checksum_verification=True)
        key, source, margin = (
            np.asarray(table[name].to_numpy(zero_copy_only=False)) for name in ("key", "source", "margin")
        )
        visits = [
            list(zip(*parts, strict=True))
            for parts in zip(
                *(table[name].to_pylist() for name in ("steps", "margins", "weights")), strict=True
            )
        ]
    except (OSError, KeyError, pa.ArrowException) as error:
        what = f"no ledger of a run: {' '.join(str(error).split())[:200]}"
        raise StorageError.of(str(folder / PAIRS), what, "train with train.ledger=true, to the end") from None
    return Ledger(key, source, visits, margin)


def _mean(values: Sequence[float]) -> float:
    """Return the mean of what is a number; a visit in a step that was left out (`train.skip_nonfinite`) may say nothing."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else float("nan")


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
