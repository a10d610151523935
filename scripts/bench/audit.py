"""How long `dpo audit` takes on 100,000 pairs of about 300 words: written, audited in a process of its own, three times.

python scripts/bench/audit.py [--rows 100000]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = [
    f"{a}{b}{c}" for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u", "ai", "ou") for c in "lmnrst"
]
PLANTED = 1000
"""Rows that stand twice."""


def text(rng: random.Random, n: int) -> str:
    """Give about `n` words in sentences and lines."""
    words = rng.choices(WORDS, k=rng.randint(n // 2, n * 3 // 2))
    return " ".join(
        word + ("." if i % 12 == 11 else "\n" if i % 60 == 59 else "") for i, word in enumerate(words)
    )


def write(path: Path, n: int) -> None:
    """Write `n` pairs, `PLANTED` of them twice."""
    rng = random.Random(0)
    with path.open("w") as file:
        lines = []
        for _ in range(n - PLANTED):
            row = {"prompt": text(rng, 60), "chosen": text(rng, 120), "rejected": text(rng, 120)}
            lines.append(json.dumps(row) + "\n")
        file.writelines([*lines, *lines[:PLANTED]])


def main() -> None:
    """Run the three rounds and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write(path, rows)
        print(f"{rows:,} rows, {path.stat().st_size / 2**20:.0f} MiB, {len(os.sched_getaffinity(0))} cores")
        for _ in range(3):
            began, cpu = time.perf_counter(), os.times().children_user
            done = subprocess.run(
                [sys.executable, "-m", "dpo_cli", "audit", str(path), "--json"],
                capture_output=True,
                text=True,
            )
            found = {f["name"]: f["count"] for f in json.loads(done.stdout)["findings"]}
            assert found == {"duplicates": PLANTED}, (found, done.stderr)
            seconds = time.perf_counter() - began
            print(
                f"{seconds:.1f} s, {os.times().children_user - cpu:.1f} s of CPU, {rows / seconds:,.0f} rows/s"
            )


if __name__ == "__main__":
    main()
