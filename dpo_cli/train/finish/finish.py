"""The end of a run: what ships is what was measured. Save, load again, evaluate again, as saved and as a server loads it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import GenerationConfig, PreTrainedModel

from dpo_cli import methods
from dpo_cli.engine.open_model import storage_of
from dpo_cli.errors import StorageError
from dpo_cli.evaluate.pairs.held_out import Evaluation
from dpo_cli.evaluate.pairs.run_eval import keep
from dpo_cli.export.usage import usage
from dpo_cli.modeling.adapters import continue_adapter, is_adapted, name_base
from dpo_cli.modeling.hub import model_start
from dpo_cli.modeling.load import load_model, load_reward_model
from dpo_cli.modeling.multimodal import copy_processor
from dpo_cli.modeling.reward_head import is_reward_model
from dpo_cli.modeling.scorer import Scorer
from dpo_cli.modeling.silence_transformers import quiet
from dpo_cli.packages import version_of
from dpo_cli.recipe.describe import to_yaml
from dpo_cli.reports.end_panel import Summary
from dpo_cli.reports.model_card import model_card
from dpo_cli.train.setup import Parts
from dpo_cli.types import LogProbs

MODEL_DIR = "model"
_PACKAGES = ("dpo-cli", "torch", "transformers", "accelerate", "datasets", "safetensors")
"""Whose versions a model card names."""
ROUNDING = 0.02
"""bf16 weights are refused where they change the mean held-out margin by a larger share than this."""


@dataclass(frozen=True)
class Measured:
    """The mean held-out margin at each stage, reward units; None where nothing is held out."""

    saved: float | None = None
    bf16: float | None = None
    note: str = ""
    """What the user should know about the saved type; empty where there is nothing."""


def save_model(parts: Parts) -> Path:
    """Write `model/`: weights in the type they were trained in, tokenizer, template, generation config; return its path.

    Raises:
        StorageError: it cannot be written.
    """
    target = parts.run_dir / MODEL_DIR
    if parts.runtime.is_main:
        _write(parts.scorer.model, parts, target)
    parts.runtime.wait()
    return target


def measure_saved(parts: Parts, trained: Evaluation | None) -> Measured:
    """Load the saved folder, evaluate it as it is and rounded to bf16, and save it in bf16 if the recipe asks and it holds.

    The policy in memory is let go first: never two models.
    """
    target = parts.run_dir / MODEL_DIR
    parts.scorer.model = torch.nn.Module()  # type: ignore[assignment]
    if trained is None:
        return _unmeasured(parts, target)
    scorer = _load_again(parts, target)
    as_saved = parts.scored(parts.data.eval, scorer, "evaluation")
    saved = parts.judged(*as_saved).margin
    _round(scorer.model)
    rounded = parts.scored(parts.data.eval, scorer, "evaluation")
    bf16 = parts.judged(*rounded).margin
    if parts.recipe.model.save_dtype == "fp32":
        _keep(parts, *as_saved)
        return Measured(saved, bf16, _rounding_note(trained.margin, bf16))
    if abs(bf16 - trained.margin) > ROUNDING * abs(trained.margin) and not parts.recipe.model.allow_rounding:
        note = (
            f"saved in fp32: bf16 would change the mean margin from {trained.margin:+.3g} to {bf16:+.3g};"
            " model.allow_rounding=true saves bf16 all the same"
        )
        _keep(parts, *as_saved)
        return Measured(saved, bf16, note)
    if parts.runtime.is_main:
        _write(scorer.model.to(torch.bfloat16), parts, target)  # type: ignore[arg-type]
    parts.runtime.wait()
    _keep(parts, *rounded)
    return Measured(bf16, bf16, "saved in bf16")


def _keep(parts: Parts, policy: LogProbs, reference: LogProbs | None) -> None:
    """Keep the held-out pairs of the model that ships, row by row."""
    if len(parts.data.eval[0].completions) == 2:
        keep(parts.run_dir, parts.data.eval_rows, policy, reference, parts.runtime, parts.choices.path)


def _load_again(parts: Parts, target: Path) -> Scorer:
    start = model_start(str(target), None, weights=True)
    load = load_reward_model if methods.get(parts.recipe.method.name).trains_head else load_model
    model = load(start.base, len(parts.tokenizer), **storage_of(parts.recipe, parts.runtime, start))
    if start.adapter is not None:
        continue_adapter(model, start.adapter)
    return Scorer(model.to(parts.runtime.device), parts.choices.path)


def _round(model: PreTrainedModel) -> None:
    """Round weights to bf16 in place, as a server's loader does.

    They stay fp32 tensors: the run's own arithmetic shows what the rounding costs, and a CPU is five times slower at a bf16 model.
    """
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.to(torch.bfloat16))


def _unmeasured(parts: Parts, target: Path) -> Measured:
    """Save in bf16 where the recipe insists although nothing is held out that could show what that costs."""
    wanted = parts.recipe.model
    if wanted.save_dtype == "fp32":
        return Measured()
    if not wanted.allow_rounding:
        what = "saved in fp32: nothing is held out that shows what bf16 costs"
        return Measured(note=f"{what}; model.allow_rounding=true saves bf16 all the same")
    if parts.runtime.is_main:
        scorer = _load_again(parts, target).to(torch.bfloat16)
        _write(scorer.model, parts, target)
    parts.runtime.wait()
    return Measured(note="saved in bf16, unmeasured: nothing is held out")


def _rounding_note(trained: float, bf16: float) -> str:
    if abs(bf16 - trained) <= ROUNDING * abs(trained):
        return ""
    return f"serve it in fp32: rounded to bf16 the mean margin goes from {trained:+.3g} to {bf16:+.3g}"


def _write(model: PreTrainedModel, parts: Parts, target: Path) -> None:
    """Save into a folder beside the target and rename, so that `model/` is whole or not there."""
    temporary, old = target.with_name(".tmp-model"), target.with_name(".old-model")
    try:
        for left_over in (temporary, old):
            shutil.rmtree(left_over, ignore_errors=True)
        model.config.use_cache = True
        if is_adapted(model):
            name_base(model, parts.start.base_name, parts.start.base_revision)
        with quiet():
            model.save_pretrained(temporary)
            parts.tokenizer.save_pretrained(temporary)
            copy_processor(parts.start.folder, temporary)
            if not is_reward_model(model):
                _fit_for_serving(temporary, parts)
        if target.exists():
            target.rename(old)
        temporary.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StorageError.of(
            str(target), f"model not written: {error}", "free some space and run the same command again"
        ) from None


def _fit_for_serving(folder: Path, parts: Parts) -> None:
    """Make the generation config name every token that ends an answer, and a pad token: servers read both from there."""
    path = folder / "generation_config.json"
    config = GenerationConfig.from_pretrained(folder) if path.exists() else GenerationConfig()
    known = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    ends = {token for token in [*known, parts.tokenizer.eos_token_id] if token is not None}
    config.eos_token_id = sorted(ends)
    if config.pad_token_id is None:
        pad = parts.tokenizer.pad_token_id
        config.pad_token_id = parts.tokenizer.eos_token_id if pad is None else pad
    config.save_pretrained(folder)


def card_of(parts: Parts, summary: Summary, trained: Evaluation | None, command: str) -> str:
    """Return the card of a run that ended, with the versions of the packages that made it."""
    recipe = parts.recipe
    method = methods.get(recipe.method.name)
    is_adapter = recipe.model.adapter is not None or parts.start.adapter is not None
    return model_card(
        summary,
        base_model=recipe.model.name,
        datasets=[source.path for source in recipe.data.train],
        method=recipe.method.name,
        paper=method.paper,
        recipe_yaml=to_yaml(recipe),
        command=command,
        versions={name: version_of(name) for name in (*_PACKAGES, *(["peft"] if is_adapter else []))},
        reference_wins=trained.baselines.reference_total if trained and trained.baselines else None,
        is_reward=method.trains_head,
        is_adapter=is_adapter,
        usage=usage(parts.tokenizer, is_reward=method.trains_head, is_adapter=is_adapter),
    )
