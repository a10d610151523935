"""How long `dpo init` takes to recognise a file, and with how much memory: 10,000 and 100,000 rows of four layouts, each in a process of its own.

python scripts/bench/inference.py
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORDS = [
    "the",
    "sea",
    "is",
    "blue",
    "mostly",
    "and",
    "cold",
    "in",
    "winter",
    "where",
    "nobody",
    "goes",
    "to",
    "swim",
]


def text(n: int, seed: int) -> str:
    """Return a text of n words."""
    return " ".join(WORDS[(seed * 7 + place * 3) % len(WORDS)] for place in range(n)) + f" {seed}"


ROWS: dict[str, Callable[[int], dict[str, Any]]] = {
    "pairs": lambda n: {"prompt": text(20, n), "chosen": text(60, n + 1), "rejected": text(60, n + 2)},
    "two answers and a winner": lambda n: {
        "question": text(20, n),
        "response_a": text(60, n + 1),
        "response_b": text(60, n + 2),
        "winner": ["model_a", "model_b", "tie"][n % 3],
    },
    "conversations": lambda n: {
        "messages": [{"role": "user", "content": text(20, n)}, {"role": "assistant", "content": text(60, n)}],
        "label": bool(n % 2),
    },
    "lists with scores": lambda n: {
        "prompt": text(20, n),
        "completions": [text(40, n + k) for k in range(4)],
        "scores": [1, 4, 2, 3],
    },
}


def measured(path: str, results: Any) -> None:
    """Infer a file; report the seconds and the peak of this process, MiB, above that of its start."""
    from dpo_cli.data.detect.infer import infer
    from dpo_cli.recipe.schema import Source

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    found = infer(Source(path=path))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results.put((found.kept, seconds, (peak - before) / 1024))


def main() -> None:
    """Measure every layout at both sizes."""
    context = multiprocessing.get_context("spawn")
    print(f"{'layout':<26} {'rows':>8} {'seconds':>8} {'MiB more':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for name, row in ROWS.items():
            for n in (10_000, 100_000):
                path = Path(folder) / "rows.jsonl"
                with path.open("w") as file:
                    file.writelines(json.dumps(row(place)) + "\n" for place in range(n))
                results = context.Queue()
                process = context.Process(target=measured, args=(str(path), results))
                process.start()
                _, seconds, more = results.get()
                process.join()
                print(f"{name:<26} {n:>8,} {seconds:>8.1f} {more:>9.0f}", flush=True)


if __name__ == "__main__":
    main()
