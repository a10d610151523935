"""The same step with TRL's DPOTrainer, turn by turn: plain and, where it has it, padding-free rows, without activation checkpointing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from dpo_cli.modeling.blocks import set_blocks
from dpo_cli.modeling.scorer import Scorer
from dpo_cli.packages import is_installed
from dpo_cli.train.loop import optimizer_step
from dpo_cli.types import TokenGroup
from scripts.gpu.context import Context
from scripts.gpu.runs import a_run
from scripts.gpu.shapes import random_llama, random_pairs

ROUNDS = 4
SHARE = 0.5

Measured = tuple[float, float]
"""A step's seconds and the memory it took above what was there before, GiB."""


def run(here: Context) -> None:
    """Time steps of both on the same token ids, alternating, each from its own copy of one model."""
    here.need("trl")
    here.need("datasets")
    import trl

    here.figure("trl", trl.__version__)
    for size in ("135M",) if here.tiny else ("135M", "1B"):
        _compare(here, size)


def _compare(here: Context, size: str) -> None:
    n_row, batch = (96, 4) if here.tiny else (1024, 8)
    model = random_llama(size, here.tiny, here.device)
    groups = random_pairs(batch, n_row, SHARE, model.config.vocab_size, jitter=0.5)
    ours = a_run(here.folder, Scorer(model), groups, batch_size=batch, token_budget=64_000)

    def our_step() -> None:
        optimizer_step(ours)
        ours.step += 1

    for is_free in (False, True):
        name = f"TRL, padding-free {'on' if is_free else 'off'}"
        try:
            their_step = _trl_step(here, random_llama(size, here.tiny, here.device), groups, is_free)
            their_step()
        except Exception as error:  # whatever TRL raises here, the rest is still to be measured
            here.figure(f"{size} {name}", f"{type(error).__name__}: {str(error)[:300]}")
            continue
        for is_compiled in (False, True) if here.is_cuda else (False,):
            set_blocks(model, is_compiled=is_compiled)
            our_step()
            rounds = [(_measured(here, our_step), _measured(here, their_step)) for _ in range(ROUNDS)]
            _report(here, f"{size} ours{', compiled' * is_compiled} to {name}", batch, rounds)


def _report(here: Context, name: str, batch: int, rounds: Sequence[tuple[Measured, Measured]]) -> None:
    speed = [theirs[0] / mine[0] for mine, theirs in rounds]
    here.figure(
        f"{name}: pairs/s of each",
        [round(batch / median(side[0] for side in sides), 2) for sides in zip(*rounds, strict=True)],
    )
    here.figure(
        f"{name}: speed, median and range", [round(x, 2) for x in (median(speed), min(speed), max(speed))]
    )
    if here.is_cuda:
        here.figure(
            f"{name}: GiB of a step above weights and moments",
            [round(max(side[1] for side in sides), 2) for sides in zip(*rounds, strict=True)],
        )


def _measured(here: Context, step: Callable[[], None]) -> Measured:
    """Return a step's seconds, and the memory it took above what was there before, GiB."""
    before = here.allocated_gib()
    here.reset_peak()
    seconds = here.seconds_of(step)
    return seconds, (here.peak_gib() or 0.0) - before


def _trl_step(
    here: Context, model: Any, groups: Sequence[TokenGroup], is_padding_free: bool
) -> Callable[[], None]:
    """Return a function that does one whole optimizer step of TRL's trainer on all groups as one batch."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from tests.fakes import byte_tokenizer

    class Ready(DPOTrainer):
        """Takes token ids as they are."""

        def _prepare_dataset(self, dataset: Any, *_args: Any, **_kwargs: Any) -> Any:
            return dataset

    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    rows = [
        dict(zip(names, (ids.tolist() for ids in (group.prompt, *group.completions)), strict=True))
        for group in groups
    ]
    options: dict[str, Any] = {"padding_free": True} if is_padding_free else {}
    config = DPOConfig(
        output_dir=str(here.folder / "trl"),
        per_device_train_batch_size=len(groups),
        learning_rate=1e-5,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        bf16=here.is_cuda,
        gradient_checkpointing=False,
        precompute_ref_log_probs=True,
        max_length=None,
        save_strategy="no",
        report_to="none",
        use_cpu=not here.is_cuda,
        disable_tqdm=True,
        **options,
    )
    if is_padding_free and is_installed("flash_attn"):
        model.set_attn_implementation("flash_attention_2")  # else transformers masks the row by its positions
    trainer = Ready(
        model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=byte_tokenizer()
    )
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1  # `train` sets it, and is not called here
    wrapped, optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
    batch = next(iter(trainer.get_train_dataloader()))

    def step() -> None:
        trainer.training_step(wrapped, dict(batch))
        trainer.accelerator.clip_grad_norm_(wrapped.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
