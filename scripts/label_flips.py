"""Turn the labels of some pairs over, to see how many `dpo ledger` finds: writes noisy training pairs and clean held-out ones.

    python scripts/label_flips.py write polite.jsonl --out flipped --share 0.2
    dpo train smollm2_polite_dpo_lora 'data.train=[{path: flipped/train.jsonl}]' 'data.eval=[{path: flipped/eval.jsonl}]' train.ledger=true
    python scripts/label_flips.py score flipped runs/NAME

The split is that of the recipe (by digest of the prompt). Labels are turned over by lot, with a seed; `flipped/flips.json` keeps which.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

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


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--held-out", type=float, default=0.22)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.file.read_text().splitlines()]
    write(rows, given.out, given.share, given.held_out, given.seed)


if __name__ == "__main__":
    main()
