"""The reference store at 100,000 pairs: time to load it and prove that nothing is missing, to verify it, to add one row.

The values are made up; keys, segments and code paths are the real ones. Every figure is the median of `--rounds`.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dpo_cli.reference.cached import ReferenceValues
from dpo_cli.reference.known_values import open_ledger
from dpo_cli.reference.store import Store
from dpo_cli.types import TokenGroup

ABOUT = {"precision": "fp32"}


def main() -> None:
    """Print a line for a store of large and one of small segments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    groups = [group(rng, number) for number in range(args.pairs)]
    values = {
        key: (-random.random() * 300, n) for g in groups for key, n in zip(g.keys, g.scored, strict=True)
    }
    for label, rows in (("merged, one segment", len(values)), ("unmerged, segments of 64 pairs", 128)):
        with tempfile.TemporaryDirectory() as folder:
            measure(label, Path(folder), groups, values, rows, args.rounds)


def group(rng: np.random.Generator, number: int) -> TokenGroup:
    """Give a pair of ordinary length with a prompt of its own."""
    parts = [rng.integers(0, 49_000, rng.integers(20, 300)).astype(np.int32) for _ in range(3)]
    parts[0][0] = number % 49_000
    return TokenGroup(parts[0], (parts[1], parts[2]), (parts[1] >= 0, parts[2] >= 0), f"made[{number}]")


def measure(
    label: str,
    root: Path,
    groups: list[TokenGroup],
    values: dict[str, tuple[float, int]],
    rows: int,
    rounds: int,
) -> None:
    """Fill a store and print what reading, verifying and adding to it takes."""
    store, keys = Store(root, "made", ABOUT), list(values)
    for start in range(0, len(keys), rows):
        store.write({key: values[key] for key in keys[start : start + rows]})

    def cover() -> None:
        for one in groups:
            vars(one).pop("keys", None)  # digests are part of the price
        ledger = open_ledger(groups, "made", ABOUT, str(root), None)
        assert not ReferenceValues(ledger.known).missing(groups)

    def verify() -> None:
        command = [sys.executable, "-m", "dpo_cli", "cache", "verify", "--store", str(root), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["completions"] == len(values)

    def add() -> None:
        Store(root, "made", ABOUT).write({random.randbytes(16).hex(): (-1.0, 1)})

    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    figures = [median(work, rounds) for work in (cover, verify)]
    print(
        f"{label}: {len(groups):,} pairs, {size / 2**20:.1f} MiB; load and coverage {figures[0]:.2f} s,"
        f" `dpo cache verify` {figures[1]:.2f} s, add one row {1000 * median(add, rounds):.0f} ms"
    )


def median(work: Callable[[], None], rounds: int) -> float:
    """Give the median duration in seconds."""
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
