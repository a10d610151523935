"""What activation checkpointing saves and costs: steps of a 135M shape with 4,096 tokens at once, turn by turn, each in a process of its own.

`python scripts/bench/checkpointing.py [--tokens 4096] [--rounds 3]`; random weights, fp32, the packed path.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def main() -> None:
    """Run both kinds in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=4096, help="of the one micro-batch of a step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kind", choices=["none", "full"], help="measure this one in this process")
    args = parser.parse_args()
    if args.kind is not None:
        print(json.dumps(measured(args.kind == "full", args.tokens)))
        return
    kinds = ("none", "full")
    turns = [[_apart(kind, args.tokens) for kind in kinds] for _ in range(args.rounds)]
    found = dict(zip(kinds, zip(*turns, strict=True), strict=True))
    for kind, rounds in found.items():
        seconds, gib = (median(row[name] for row in rounds) for name in ("seconds", "gib"))
        print(f"{kind}: {seconds:.2f} s a step, {gib:.2f} GiB of a step above weights and moments")
    for name, what in (("gib", "memory"), ("seconds", "time")):
        ratios = [full[name] / none[name] for none, full in zip(found["none"], found["full"], strict=True)]
        print(f"{what}, full to none: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def _apart(kind: str, tokens: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--kind", kind, "--tokens", str(tokens)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return row


def measured(is_checkpointed: bool, tokens: int) -> dict[str, float]:
    """Return the seconds of a step and the memory it takes above what is there before it, GiB."""
    import torch

    from dpo_cli.modeling.blocks import set_blocks
    from dpo_cli.modeling.scorer import Scorer
    from dpo_cli.train.loop import optimizer_step
    from scripts.gpu.runs import a_run
    from scripts.gpu.shapes import random_llama, random_pairs

    model = random_llama("135M", False, torch.device("cpu"))
    set_blocks(model, is_checkpointed=is_checkpointed)
    # Half of a row is prompt, computed once: a pair of rows of n tokens costs 1.5 n.
    n_row = 512
    groups = random_pairs(round(tokens / (1.5 * n_row)), n_row, 0.5, model.config.vocab_size)
    small = random_pairs(1, 64, 0.5, model.config.vocab_size)
    with tempfile.TemporaryDirectory() as folder:
        warm = a_run(Path(folder), Scorer(model), small, batch_size=1, token_budget=tokens, precision="fp32")
        optimizer_step(warm)  # the moments are there from now on
        a = a_run(
            Path(folder),
            Scorer(model),
            groups,
            batch_size=len(groups),
            token_budget=2 * tokens,
            precision="fp32",
        )
        a.optimizer = warm.optimizer
        before = _resident_gib()
        began = time.perf_counter()
        optimizer_step(a)
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": seconds, "gib": peak - before}


def _resident_gib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**30


if __name__ == "__main__":
    main()
