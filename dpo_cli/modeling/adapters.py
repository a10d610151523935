"""Adapters by peft: low-rank updates beside frozen weights. The model keeps its class; without the adapter it is its base.

Hu et al. 2021, LoRA, arXiv:2106.09685; Kalajdzievski 2023, rank-stabilised scaling, arXiv:2312.03732; Liu et al. 2024, DoRA, arXiv:2402.09353.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from dpo_cli.errors import ModelError, UserError
from dpo_cli.modeling.hub import ADAPTER_CONFIG
from dpo_cli.modeling.multimodal import tower_linears
from dpo_cli.modeling.reward_head import HEAD, is_reward_model
from dpo_cli.modeling.silence_transformers import quiet
from dpo_cli.packages import package_problems

if TYPE_CHECKING:
    from dpo_cli.recipe.schema import Adapter

WEIGHTS = "adapter_model.safetensors"
_OWN = ("lora_", "modules_to_save.")
"""What names of an adapter's parameters hold, and those of the base do not."""
_WRAPPED = (".base_layer.", ".original_module.")
"""What names of base parameters gain under an adapter."""
_PREFIX = "base_model.model."
"""What names gain in peft's files."""
_COPY = re.compile(r"\.modules_to_save\.[^.]+")
"""What the name of a trained copy has more than that of the module it was copied from."""


def is_adapted(model: PreTrainedModel) -> bool:
    """Return whether an adapter is trained in place of the model's own weights."""
    return bool(model._hf_peft_config_loaded)


def attach(model: PreTrainedModel, settings: Adapter, seed: int) -> None:
    """Freeze a model and put a fresh adapter beside its linear layers, in fp32; until the first step it changes nothing.

    A reward model's head is trained whole. The same seed draws the same adapter.

    Raises:
        ModelError: a target, or a module to save, that the model does not have; no peft.
    """
    _need_peft("model.adapter")
    from peft import LoraConfig

    is_reward = is_reward_model(model)
    whole = [*settings.modules_to_save, *([HEAD] if is_reward else [])]
    scale: Any = settings.alpha  # peft says whole numbers and takes any
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=scale,
        target_modules=tower_linears(model, settings.targets),
        lora_dropout=settings.dropout,
        use_rslora=settings.rank_stabilized,
        use_dora=settings.kind == "dora",
        modules_to_save=whole or None,
        task_type="SEQ_CLS" if is_reward else "CAUSAL_LM",
    )
    missing = [name for name in settings.modules_to_save if not _has(model, name)]
    if missing:
        what = f"the model has no module '{missing[0]}'"
        raise ModelError.of("model.adapter.modules_to_save", what, f"such as {', '.join(_linears(model))}")
    try:
        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(seed)
            model.add_adapter(config)
    except ValueError as error:
        what = f"the adapter fits nowhere: {' '.join(str(error).split()).partition('. ')[0]}"
        fix = f"all-linear, or names such as {', '.join(_linears(model))}"
        raise ModelError.of("model.adapter.targets", what, fix) from None
    _in_fp32(model)


def continue_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Load a folder's adapter onto its base, to be trained on; nothing pickled is read.

    Raises:
        ModelError: no safetensors weights, damaged ones, or an adapter of another model.
    """
    _need_peft(str(folder))
    _check_weights(folder)
    try:
        with quiet():
            loaded: Any = model.load_adapter(str(folder), is_trainable=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _unfit(folder, error) from None
    taken = _take_copies(model, folder, loaded.missing_keys)
    wrong = sorted({*loaded.missing_keys, *loaded.unexpected_keys} - taken)
    if wrong:
        what = f"the adapter's weights do not fit its base: {', '.join(wrong[:3])} ({len(wrong)} in all)"
        raise ModelError.of(str(folder), what, f"the base model that {ADAPTER_CONFIG} names")
    _in_fp32(model)


def merged(base: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Return a base with a folder's adapter folded into its weights.

    Raises:
        ModelError: as `continue_adapter`.
    """
    _need_peft(str(folder))
    from peft import PeftModel

    _check_weights(folder)
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that is to go
            whole: PreTrainedModel = PeftModel.from_pretrained(base, str(folder)).merge_and_unload(
                safe_merge=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _unfit(folder, error) from None
    return whole.eval()


def name_base(model: PreTrainedModel, name: str, revision: str | None) -> None:
    """Write into the adapter's settings which model it belongs to: what a server loads under it."""
    config: Any
    for config in model.peft_config.values():
        config.base_model_name_or_path, config.revision = name, revision


def base_parameters(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters of the base, by the names they have without an adapter."""
    for name, weight in model.named_parameters():
        if any(part in name for part in _OWN):
            continue
        for part in _WRAPPED:
            name = name.replace(part, ".")
        yield name, weight


def _need_peft(where: str) -> None:
    if problems := package_problems("peft", where, "an adapter"):
        raise ModelError(problems)


def _check_weights(folder: Path) -> None:
    if not (folder / WEIGHTS).is_file():
        what = f"no {WEIGHTS}; pickled weights are not read"
        raise ModelError.of(str(folder), what, f"dpo convert {folder}")


def _take_copies(model: PreTrainedModel, folder: Path, missing: Iterable[str]) -> set[str]:
    """Load the trained copies of whole modules that transformers 5.17 misses, and return their names in model and file.

    The file has a copy under the wrapped module's own name; transformers 5.19 and later look for it there.
    """
    copies = {name: _COPY.sub("", name) for name in missing if _COPY.search(name)}
    if not copies:
        return set()
    saved = {name.removeprefix(_PREFIX): value for name, value in load_file(folder / WEIGHTS).items()}
    taken: set[str] = set()
    for name, plain in copies.items():
        weight = model.get_parameter(name)
        if plain in saved and saved[plain].shape == weight.shape:
            weight.data.copy_(saved[plain])
            taken |= {name, plain, _PREFIX + plain}
    return taken


def _unfit(folder: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:300]
    return ModelError.of(str(folder), f"the adapter cannot be loaded: {reason}", "the base it was trained on")


def _in_fp32(model: PreTrainedModel) -> None:
    """Keep what is trained in fp32, whatever the base is in: bf16 loses small steps."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def _has(model: PreTrainedModel, name: str) -> bool:
    return any(each == name or each.endswith(f".{name}") for each, _ in model.named_modules())


def _linears(model: PreTrainedModel) -> list[str]:
    """Return the short names of the model's linear layers, first come first."""
    names = (name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear))
    return list(dict.fromkeys(name.rpartition(".")[2] for name in names))[:8]
