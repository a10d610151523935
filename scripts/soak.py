"""Sixty faults in a row against one run, seeded and repeatable; it must end with the weights and the log of a run that nothing happened to.

Kills and stops at a random call while it trains or saves, full disks, flipped bits in a checkpoint, no network. Run it as `make soak`, or
with `--tiny` on a model built in code, in minutes.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults.runs import (
    Done,
    Dpo,
    committed,
    flip_a_bit,
    only_run,
    outcome,
    status_of,
    write_faulty_recipe,
)

STARTER = Path(__file__).parent.parent / "recipes" / "starter"
REAL = (
    f"data.train=[{{path: {STARTER / 'train.jsonl'}, limit: 72}}]",
    f"data.eval=[{{path: {STARTER / 'heldout.jsonl'}, limit: 16}}]",
    "train.batch_size=2",
    "train.epochs=2",
    "train.save_every=1",
    "train.eval_every=10",
    "train.samples=0",
)
"""Of the quickstart: 72 steps of SmolLM2, a checkpoint of all weights and moments each; an attempt gets about one step far."""
TINY = ("train.max_steps=40", "train.epochs=99", "train.eval_every=10")
CHECKPOINT = "dpo_cli.runs.checkpoint."
WHERE = {
    "dpo_cli.train.loop.score": 8,
    "dpo_cli.train.loop._update": 2,
    "dpo_cli.train.checkpoint_writer.take_snapshot": 2,
    f"{CHECKPOINT}save_file": 6,
    f"{CHECKPOINT}_sync": 14,
    f"{CHECKPOINT}_digest": 8,
    "os.rename?step-": 4,
    "os.unlink": 8,
}
"""Function -> the last of its calls that a fault may choose: an attempt gets one or two steps far."""
KINDS = ("kill", "kill", "term", "full", "flip", "offline")


@dataclass(frozen=True)
class Fault:
    """What happens to one attempt."""

    kind: str
    target: str
    call: int
    bit: int


def main() -> None:
    """Print a line for each fault and whether the end is the same; exit code 1 where it is not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="recipes/quickstart.yaml")
    parser.add_argument("--tiny", action="store_true", help="a tiny model built in code")
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        recipe = write_faulty_recipe(Path(folder)) if args.tiny else Path(args.recipe).resolve()
        command = ["train", str(recipe), *(TINY if args.tiny else REAL), f"reference.store={folder}/store"]
        dpo = Dpo(Path(folder))
        try:
            is_same = soak(dpo, command, Path(folder), args.faults, args.seed)
        finally:
            dpo.close()
    sys.exit(0 if is_same else 1)


def soak(dpo: Dpo, command: list[str], folder: Path, n_faults: int, seed: int) -> bool:
    """Run once in peace and once under faults; tell whether both ended alike."""
    began = time.monotonic()
    quiet = dpo(*command, f"train.output_dir={folder / 'quiet'}", cwd=folder)
    assert quiet.rc == 0, quiet.err
    print(f"undisturbed: {time.monotonic() - began:.0f} s", flush=True)
    output, rng = folder / "faulted", random.Random(seed)
    for number in range(1, n_faults + 1):
        done, fault = attempt(dpo, command, output, rng)
        step = max(committed(only_run(output)), default=0)
        where = f"{fault.target.removeprefix('dpo_cli.train.')} call {fault.call}"
        print(f"{number:>3} {fault.kind:<8} {where:<32} exit {done.rc:>4}, step {step} saved", flush=True)
        assert status_of(output)["state"] != "finished", "too few steps for so many faults"
        assert done.rc in (0, 5, 75, -9) and "Traceback" not in done.err, done.err
    last = dpo(*command, f"train.output_dir={output}", cwd=folder)
    status = status_of(output)
    is_same = outcome(only_run(output)) == outcome(only_run(folder / "quiet"))
    told = "the same weights and log to the last bit" if is_same else "NOT the same"
    print(f"{n_faults} faults, {status['attempt'] + 1} attempts, exit {last.rc}, {status['message']}: {told}")
    return is_same and last.rc == 0


def attempt(dpo: Dpo, command: list[str], output: Path, rng: random.Random) -> tuple[Done, Fault]:
    """Let one fault happen to the run; the choice depends on the seed alone."""
    target = rng.choice(list(WHERE))
    fault = Fault(rng.choice(KINDS), target, rng.randint(1, WHERE[target]), rng.getrandbits(40))
    what = {"term": "SIGTERM", "full": "ENOSPC"}.get(fault.kind, "SIGKILL")
    if fault.kind == "full":
        fault = Fault(fault.kind, f"{CHECKPOINT}save_file", 1 + fault.call % 6, fault.bit)
    at = [(fault.target, fault.call, what)]
    where = f"train.output_dir={output}"
    done = dpo(*command, where, cwd=output.parent, at=at, offline=fault.kind == "offline")
    checkpoints = only_run(output) / "checkpoints"
    saved = committed(only_run(output))
    if fault.kind == "flip" and len(saved) > 1:  # of two; with none left there is nothing to go on from
        files = sorted((checkpoints / f"step-{saved[-1]:08d}").iterdir())
        flip_a_bit(files[fault.bit % len(files)], fault.bit)
    return done, fault


if __name__ == "__main__":
    main()
