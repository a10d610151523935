"""`dpo train` and `dpo precompute-ref` against TRL's DPOTrainer on the same token ids, in one run, turn by turn.

Parity: one batch of 8 pairs, 8 steps at lr 5e-6 in fp32; losses and the first gradient norm must agree. Pace: an epoch in batches of 8,
several rounds, TRL with precomputed reference; prints pairs/s, peak memory and the ratio of each round. Reference: log-probs only, other
rows in each round. TRL runs in a virtual environment of its own (`make bench` makes it); this file is also the script that runs there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BATCH = 8
PARITY_STEPS = 8
LR = 5e-6
Result = dict[str, Any]
"""`losses`, `grad_norms` (one a step), `pairs_per_second`, `peak_memory_gib`; or `reference_s` and `reference` (chosen, rejected, ...)."""


def main() -> None:
    """Run both parts and print a table."""
    args = arguments()
    if args.trl_job:
        print(json.dumps(run_trl(json.loads(args.trl_job))))
        return
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        if args.part in ("parity", "both"):
            parity(args, prepare(args, work / "parity", BATCH, args.parity_max_length))
        if args.part in ("pace", "both"):
            pace(args, prepare(args, work / "pace", args.pairs, args.max_length))
        if args.part == "reference":
            reference(args, work)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="models/SmolLM2-135M-Instruct")
    parser.add_argument(
        "--data", default="../shared/data/hh_helpful_base_dev_messages.jsonl", help="preference rows"
    )
    parser.add_argument("--part", choices=["parity", "pace", "both", "reference"], default="both")
    parser.add_argument("--pairs", type=int, default=32, help="pairs of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=512, help="tokens of the pace part's rows")
    parser.add_argument(
        "--parity-max-length", type=int, default=256, help="shorter rows: the same proof in less time"
    )
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of the pace part")
    parser.add_argument("--trl-python", default=".venv-trl/bin/python")
    parser.add_argument(
        "--trl-checkpointing",
        action="store_true",
        help="TRL's gradient checkpointing: its default, slower, smaller",
    )
    parser.add_argument("--trl-job", help=argparse.SUPPRESS)
    return parser.parse_args()


def prepare(args: argparse.Namespace, work: Path, n: int, max_length: int, skip: int = 0) -> Result:
    """Write n rows, after those to skip, and their token ids as `dpo` makes them; TRL is given the ids, so tokenisation is out of the comparison."""
    from dpo_cli.data.load import load_data
    from dpo_cli.data.tokenize.tokenizer import load_tokenizer
    from dpo_cli.recipe.load import load

    work.mkdir()
    recipe, ids, rows = work / "bench.yaml", work / "ids.json", work / "rows.jsonl"
    recipe.write_text(
        f"model: {{name: {Path(args.model).resolve()}}}\n"
        f"data: {{train: [{{path: {rows}}}], split: {{eval: 0.0}}, max_length: {max_length}, long_completion: drop}}\n"
        f"optim: {{lr: {LR}, schedule: constant, warmup: 0}}\n"
        f"train: {{batch_size: {BATCH}, save_every: 0, samples: 0, output_dir: {work}/runs}}\n"
        "log: {every: 1}\n"
    )
    rows.write_text(Path(args.data).read_text())
    config = load(str(recipe)).recipe
    groups = load_data(config.data, load_tokenizer(config.model)).train[skip : skip + n]
    kept = [int(group.source.rpartition(":")[2]) for group in groups]
    lines = rows.read_text().splitlines(keepends=True)
    rows.write_text("".join(lines[number - 1] for number in kept))
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    parts = [(group.prompt, *group.completions) for group in groups]
    ids.write_text(json.dumps([{k: v.tolist() for k, v in zip(names, part, strict=True)} for part in parts]))
    return {
        "recipe": str(recipe),
        "ids": str(ids),
        "n": len(groups),
        "work": str(work),
        "model": config.model.name,
    }


def parity(args: argparse.Namespace, job: Result) -> None:
    """Print how far losses and the first gradient norm are apart on one repeated batch."""
    ours = run_ours(job, [f"train.epochs={PARITY_STEPS}", "train.precision=fp32"])
    theirs = start_trl(args, job | {"epochs": PARITY_STEPS, "precision": "fp32"})
    apart = max(abs(a - b) for a, b in zip(ours["losses"], theirs["losses"], strict=True))
    norm = abs(ours["grad_norms"][0] / theirs["grad_norms"][0] - 1)
    print(
        f"parity, fp32, {BATCH} pairs x {PARITY_STEPS} steps: losses within {apart:.1e}, first gradient norm within {norm:.1e} relative"
    )
    print("  ours " + " ".join(f"{loss:.6f}" for loss in ours["losses"]))
    print("  TRL  " + " ".join(f"{loss:.6f}" for loss in theirs["losses"]))


def pace(args: argparse.Namespace, job: Result) -> None:
    """Print pairs/s and peak memory of both, round by round, and the ratios' median and spread."""
    print(
        f"pace, {args.precision}, {job['n']} pairs, batch {BATCH}, TRL checkpointing {'on' if args.trl_checkpointing else 'off'}"
    )
    speed, memory = [], []
    for number in range(args.rounds):
        ours = run_ours(job, [f"train.precision={args.precision}", "train.resume=never"])
        theirs = start_trl(args, job | {"epochs": 1, "precision": args.precision})
        speed.append(ours["pairs_per_second"] / theirs["pairs_per_second"])
        memory.append(ours["peak_memory_gib"] / theirs["peak_memory_gib"])
        print(
            f"  round {number + 1}: ours {ours['pairs_per_second']:.3f} pairs/s {ours['peak_memory_gib']:.2f} GiB,"
            f" TRL {theirs['pairs_per_second']:.3f} pairs/s {theirs['peak_memory_gib']:.2f} GiB,"
            f" {speed[-1]:.2f}x the speed, {memory[-1]:.0%} of the memory",
            flush=True,
        )
    print(
        f"ratio: {statistics.median(speed):.2f}x the speed ({min(speed):.2f} to {max(speed):.2f}),"
        f" {statistics.median(memory):.0%} of the memory ({min(memory):.0%} to {max(memory):.0%})"
    )


def reference(args: argparse.Namespace, work: Path) -> None:
    """Print pairs/s of precomputing the reference alone; loading a model is left out on both sides."""
    print(
        f"reference, {args.precision}, {args.pairs} pairs a round of at most {args.max_length} tokens, TRL in batches of {BATCH}"
    )
    ratios, apart = [], []
    for number in range(args.rounds):
        job = prepare(args, work / f"reference{number}", args.pairs, args.max_length, number * args.pairs)
        store = work / f"store{number}"
        settings = [f"train.precision={args.precision}", f"reference.store={store}", "--json"]
        ours = json.loads(
            _output([sys.executable, "-m", "dpo_cli", "precompute-ref", job["recipe"], *settings])
        )
        theirs = start_trl(args, job | {"epochs": 0, "precision": args.precision})
        ratios.append(theirs["reference_s"] / ours["seconds"])
        apart.append(_apart(job, store, theirs["reference"]))
        print(
            f"  round {number + 1}: ours {job['n'] / ours['seconds']:.3f} pairs/s, TRL {job['n'] / theirs['reference_s']:.3f} pairs/s,"
            f" {ratios[-1]:.2f}x; values within {apart[-1]:.1e} nats per token",
            flush=True,
        )
    print(
        f"ratio: {statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f}), {args.rounds * args.pairs} pairs"
    )


def _apart(job: Result, store: Path, theirs: list[float]) -> float:
    """Give the largest difference of the store's values from TRL's, nats per token."""
    import numpy as np

    from dpo_cli.reference.segments import read_segment
    from dpo_cli.types import TokenGroup

    ours = {k: v for path in store.rglob("*.parquet") for k, v in read_segment(path).items()}
    keys = []
    for row in json.loads(Path(job["ids"]).read_text()):
        prompt, *answers = (
            np.array(row[name], np.int32) for name in ("prompt_ids", "chosen_ids", "rejected_ids")
        )
        keys += TokenGroup(prompt, tuple(answers), tuple(ids == ids for ids in answers)).keys
    return max(abs(ours[key][0] - value) / ours[key][1] for key, value in zip(keys, theirs, strict=True))


def run_ours(job: Result, overrides: list[str]) -> Result:
    """Run `dpo train` in a process of its own, as a user would."""
    command = [sys.executable, "-m", "dpo_cli", "train", job["recipe"], "--json", *overrides]
    status = json.loads(_output(command))
    rows = [json.loads(line) for line in (Path(status["run_dir"]) / "metrics.jsonl").read_text().splitlines()]
    return {
        "losses": [row["train/loss"] for row in rows if "train/loss" in row],
        "grad_norms": [row["train/grad_norm"] for row in rows if "train/grad_norm" in row],
        "pairs_per_second": status["pairs_per_second"],
        "peak_memory_gib": status["peak_memory_gib"],
    }


def start_trl(args: argparse.Namespace, job: Result) -> Result:
    """Run this file with TRL's interpreter."""
    job |= {"checkpointing": args.trl_checkpointing}
    result: Result = json.loads(_output([args.trl_python, __file__, "--trl-job", json.dumps(job)]))
    return result


def _output(command: list[str]) -> str:
    """Give the last line of a command's stdout; its stderr is shown only where it fails."""
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(command[:4])} failed with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout.strip().splitlines()[-1]


def run_trl(job: Result) -> Result:
    """Train with TRL on given token ids; in TRL's environment only."""
    import resource

    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig

    dataset = Dataset.from_list(json.loads(Path(job["ids"]).read_text()))
    config = DPOConfig(
        output_dir=f"{job['work']}/trl",
        per_device_train_batch_size=BATCH,
        num_train_epochs=job["epochs"] or 1,
        learning_rate=LR,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        bf16=job["precision"] == "bf16",
        gradient_checkpointing=job["checkpointing"],
        precompute_ref_log_probs=True,
        max_length=None,
        save_strategy="no",
        report_to="none",
        logging_steps=1,
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
    )
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    clock = _step_clock()
    began = time.monotonic()
    trainer = _recording_trainer()(
        model=model, args=config, train_dataset=dataset, processing_class=tokenizer, callbacks=[clock]
    )
    if not job["epochs"]:
        seconds = time.monotonic() - began
        columns = [trainer.train_dataset[name] for name in ("ref_chosen_logps", "ref_rejected_logps")]
        return {
            "reference_s": seconds,
            "reference": [value for pair in zip(*columns, strict=True) for value in pair],
        }
    trainer.train()
    seconds = clock.ended - clock.began
    return {
        "losses": trainer.seen_losses,
        "grad_norms": [row["grad_norm"] for row in trainer.state.log_history if "grad_norm" in row],
        "pairs_per_second": job["n"] * job["epochs"] / seconds,
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def _recording_trainer() -> type:
    """Give DPOTrainer that takes ready token ids and keeps each loss unrounded."""
    from trl import DPOTrainer

    class Recording(DPOTrainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.seen_losses: list[float] = []
            super().__init__(*args, **kwargs)

        def _prepare_dataset(self, dataset: Any, *_args: Any, **_kwargs: Any) -> Any:
            return dataset

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            out = super().compute_loss(*args, **kwargs)
            self.seen_losses.append(float(out[0] if isinstance(out, tuple) else out))
            return out

    return Recording


def _step_clock() -> Any:
    """Give a callback that knows when the first step began and the last one ended."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        began = ended = 0.0

        def on_step_begin(self, *_args: Any, **_kwargs: Any) -> None:
            self.began = self.began or time.monotonic()

        def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
            self.ended = time.monotonic()

    return Clock()


if __name__ == "__main__":
    main()
