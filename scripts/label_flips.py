"""Turn the labels of some pairs over, and count how many of them `dpo ledger` finds: writes noisy training pairs and clean held-out ones.

    python scripts/label_flips.py polite.jsonl --out flipped
    dpo train smollm2_polite_dpo_lora 'data.train=[{path: flipped/train.jsonl}]' 'data.eval=[{path: flipped/eval.jsonl}]' train.ledger=true
    python scripts/label_flips.py --score runs/NAME --out flipped

Pairs are split as the recipe splits them, by digest of the prompt; labels are turned by lot, with a seed, and `flips.json` keeps which.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import pyarrow.parquet as pq

from dpo_cli.data.split import part_of, prompt_key
from dpo_cli.types import Example


def write(rows: list[dict[str, str]], out: Path, share: float, held_out: float, seed: int) -> None:
    """Write `train.jsonl` with `share` of its labels wrong, `clean.jsonl` with all right, `eval.jsonl`, and `flips.json` with line numbers."""
    parts: dict[str, list[dict[str, str]]] = {"train": [], "eval": []}
    for row in rows:
        example = Example(({"role": "user", "content": row["prompt"]},), (row["chosen"], row["rejected"]), "")
        parts[part_of(prompt_key(example), held_out, 0.0, 0)].append(row)
    train = parts["train"]
    turned = set(random.Random(seed).sample(range(len(train)), round(share * len(train))))
    noisy = [_turned(row) if number in turned else row for number, row in enumerate(train)]
    out.mkdir(parents=True, exist_ok=True)
    for name, written in (("train", noisy), ("clean", train), ("eval", parts["eval"])):
        (out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    (out / "flips.json").write_text(json.dumps([number + 1 for number in sorted(turned)]) + "\n")
    print(
        f"{out}: {len(train)} training pairs, {len(turned)} turned over; {len(parts['eval'])} held out, all right"
    )


def _turned(row: dict[str, str]) -> dict[str, str]:
    return {**row, "chosen": row["rejected"], "rejected": row["chosen"]}


def score(run: Path, out: Path) -> None:
    """Count the turned pairs among the suspects of a run, and the suspects among the turned pairs that it trained on."""
    turned = set(json.loads((out / "flips.json").read_text()))
    rows = pq.read_table(run / "ledger" / "pairs.parquet", columns=["source", "suspected"]).to_pylist()
    found = [(int(row["source"].rpartition(":")[2]) in turned, row["suspected"]) for row in rows]
    hits = sum(is_turned and suspected for is_turned, suspected in found)
    n_turned, n_suspected = (sum(flags) for flags in zip(*found, strict=True))
    print(f"{n_suspected} suspected of {len(found)}, {n_turned} turned over, {hits} both:", end=" ")
    print(f"recall {hits / max(n_turned, 1):.3f}, precision {hits / max(n_suspected, 1):.3f}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, nargs="?", help="JSONL of prompt, chosen, rejected")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--score", type=Path, metavar="RUN")
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--held-out", type=float, default=0.22)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.score:
        score(given.score, given.out)
    elif given.file:
        rows = [json.loads(line) for line in given.file.read_text().splitlines()]
        write(rows, given.out, given.share, given.held_out, given.seed)
    else:
        parser.error("a file to turn labels of, or --score RUN")


if __name__ == "__main__":
    main()
