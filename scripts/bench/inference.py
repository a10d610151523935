"""How long `dpo init` looks at a file before it says what is in it, and in how much memory: 10,000 and 100,000 rows of four layouts.

python scripts/bench/inference.py [--rows 100000]

Each look is a process of its own; its peak is what the system says of it. Ends with exit code 1 where a look takes 20 s or its memory grows by
more than 64 MiB with ten times the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS, GROWTH_MIB = 20.0, 64.0
WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u") for c in "lmnrst"]
Row = dict[str, Any]


def text(rng: random.Random, n: int) -> str:
    """Give about `n` words."""
    return " ".join(rng.choices(WORDS, k=rng.randint(n // 2, n * 3 // 2)))


def pairs(rng: random.Random) -> Row:
    """Give a row of chosen and rejected."""
    return {"question": text(rng, 40), "chosen": text(rng, 80), "rejected": text(rng, 80)}


def votes(rng: random.Random) -> Row:
    """Give a row of two answers and a winner."""
    row = {"prompt": text(rng, 40), "response_a": text(rng, 80), "response_b": text(rng, 80)}
    return {**row, "winner": rng.choice(("model_a", "model_b", "tie")), "model_a": "one", "model_b": "other"}


def messages(rng: random.Random) -> Row:
    """Give a row of two whole conversations."""
    asked = [{"role": role, "content": text(rng, 30)} for role in ("user", "assistant", "user")]
    sides = ([*asked, {"role": "assistant", "content": text(rng, 60)}] for _ in range(2))
    return dict(zip(("chosen", "rejected"), sides, strict=True))


def scored(rng: random.Random) -> Row:
    """Give a row of four answers, each with a score."""
    answers = [{"text": text(rng, 60), "score": rng.randint(1, 10), "model": f"m{i}"} for i in range(4)]
    return {"instruction": text(rng, 40), "completions": answers}


LAYOUTS: tuple[Callable[[random.Random], Row], ...] = (pairs, votes, messages, scored)


def write(path: Path, layout: Callable[[random.Random], Row], n: int) -> None:
    """Write `n` rows of a layout."""
    rng = random.Random(0)
    with path.open("w") as file:
        file.writelines(json.dumps(layout(rng)) + "\n" for _ in range(n))


def look(path: Path) -> tuple[float, float, str]:
    """Infer a file in a process of its own; give seconds, peak MiB and what it was read as."""
    end, start = os.pipe()
    child = os.fork()
    if not child:
        from dpo_cli.data.infer import infer
        from dpo_cli.recipe.schema import Source

        began = time.perf_counter()
        found = infer(Source(path=str(path)))
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        os.write(start, json.dumps([seconds, peak, f"{found.format.name}, {found.kept:,} kept"]).encode())
        os._exit(0)
    os.close(start)
    with os.fdopen(end) as file:
        said = file.read()
    os.waitpid(child, 0)
    seconds, peak, layout = json.loads(said)
    return float(seconds), float(peak), str(layout)


def main() -> int:
    """Look at each layout with a tenth of the rows and with all, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    rows, is_slow = parser.parse_args().rows, False
    with tempfile.TemporaryDirectory() as folder:
        for layout in LAYOUTS:
            peaks = []
            for n in (rows // 10, rows):
                path = Path(folder) / "rows.jsonl"
                write(path, layout, n)
                seconds, peak, found = look(path)
                peaks.append(peak)
                is_slow |= seconds >= SECONDS
                size = path.stat().st_size / 2**20
                print(f"{layout.__name__:<9} {n:>9,} rows, {size:5.0f} MiB: {seconds:5.1f} s, peak {peak:4.0f} MiB ({found})")
            is_slow |= peaks[1] - peaks[0] > GROWTH_MIB
    return int(is_slow)


if __name__ == "__main__":
    sys.exit(main())
