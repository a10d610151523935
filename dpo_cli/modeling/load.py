"""Loading a causal LM: safetensors only, no remote code, fp32 master weights, and what is wrong with it said before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig, PreTrainedModel

from dpo_cli.errors import ModelError, Problem
from dpo_cli.modeling.limits import too_many_ids
from dpo_cli.modeling.model_folder import has_other_towers, inspect_folder, line_of, loader_of
from dpo_cli.modeling.multimodal import freeze_towers
from dpo_cli.modeling.reward_head import HEAD, start_head
from dpo_cli.modeling.silence_transformers import quiet
from dpo_cli.packages import is_installed

_WHERE = "model.name"


def load_model(
    folder: Path,
    vocabulary: int,
    *,
    dropout: bool = False,
    dtype: torch.dtype = torch.float32,
    quantize: str | None = None,
) -> PreTrainedModel:
    """Return the causal LM in a folder, in evaluation mode; in one that reads images too, all but the language model is frozen.

    In fp32 where it is trained, because a bf16 master loses a 5e-7 step entirely (bf16 spacing at 0.02 is 1.2e-4); speed comes from
    autocast.

    Args:
        folder: a model folder in Hugging Face layout.
        vocabulary: number of token ids that the tokenizer can give.
        dropout: keep the dropout that the config states; otherwise it is set to 0.
        dtype: of the weights.
        quantize: `nf4` keeps linear layers in 4 bits, for an adapter to be trained on.

    Raises:
        ModelError: no such folder, no safetensors weights, no causal LM, quantized, code in the folder, weights damaged, missing,
            of another shape or not finite, an embedding smaller than the tokenizer, or a generation config that could not be saved.
    """
    config = inspect_folder(folder)
    model, info = _read(folder, loader_of(config), dtype=dtype, **_in_bits(quantize))
    model = _checked(folder, model, info, vocabulary, dropout)
    freeze_towers(model)
    return model


def load_reward_model(
    folder: Path,
    vocabulary: int,
    seed: int = 0,
    *,
    dropout: bool = False,
    dtype: torch.dtype = torch.float32,
    quantize: str | None = None,
) -> PreTrainedModel:
    """Return a folder's model with a scalar head: its own where it is a reward model, else one drawn by `seed` on the causal LM's backbone.

    Raises:
        ModelError: as `load_model`, and where transformers has no such class for the architecture, or the model reads images too.
    """
    if has_other_towers(inspect_folder(folder)):
        what = f"{folder} reads images too, and its class has no scalar head"
        raise ModelError.of(_WHERE, what, "a text-only model for a reward model")
    try:
        kind = AutoModelForSequenceClassification
        model, info = _read(folder, kind, dtype=dtype, num_labels=1, **_in_bits(quantize))
    except ValueError:
        what = f"transformers has no sequence classification class for {folder}"
        raise ModelError.of(_WHERE, what, "an architecture that has one, such as Llama or Qwen") from None
    has_head = f"{HEAD}.weight" not in info["missing_keys"]
    info["missing_keys"] = [key for key in info["missing_keys"] if key != f"{HEAD}.weight"]
    # What stands outside the backbone is the causal LM's head.
    backbone = f"{model.base_model_prefix}."
    info["unexpected_keys"] = [key for key in info["unexpected_keys"] if key.startswith(backbone)]
    model = _checked(folder, model, info, vocabulary, dropout)
    if not has_head:
        start_head(model, seed)
    return model


def _checked(
    folder: Path, model: PreTrainedModel, info: dict[str, list[Any]], vocabulary: int, dropout: bool
) -> PreTrainedModel:
    """Return the model ready for training, or everything that is wrong with it."""
    problems = [*_weights(folder, info), *_embedding(folder, model, vocabulary), *_finite(folder, model)]
    if problems:
        raise ModelError(problems)
    if not dropout:
        _switch_off_dropout(model)
    model.config.use_cache = False
    return model.eval()


def _read(folder: Path, kind: Any, **more: Any) -> tuple[PreTrainedModel, dict[str, list[Any]]]:
    """Return the model as it loads in an automatic class, and what transformers says about its weights."""
    try:
        with quiet():
            loaded: Any = kind.from_pretrained(
                folder,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # reported in `info`, like everything else that is wrong with the weights
                output_loading_info=True,
                **more,
            )
    except (OSError, SafetensorError) as error:
        raise ModelError.of(
            str(folder), f"weights cannot be read: {line_of(error)}", "copy the model again"
        ) from None
    return cast("tuple[PreTrainedModel, dict[str, list[Any]]]", loaded)


def _in_bits(quantize: str | None) -> dict[str, Any]:
    """Return what `from_pretrained` wants to keep linear layers in 4 bits, in place of nothing.

    Raises:
        ModelError: no CUDA GPU, or no bitsandbytes.
    """
    if quantize is None:
        return {}
    key = "model.quantize"
    if not torch.cuda.is_available():
        raise ModelError.of(key, f"{quantize} needs a CUDA GPU, and there is none", f"{key}: null")
    if not is_installed("bitsandbytes"):
        raise ModelError.of(key, f"{quantize} needs bitsandbytes", "pip install 'dpo-cli[quantize]'")
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantize,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": config, "device_map": {"": torch.cuda.current_device()}}


def _weights(folder: Path, info: dict[str, list[Any]]) -> list[Problem]:
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    misfit = sorted(
        f"{name} {list(there)} for {list(wanted)}" for name, there, wanted in info["mismatched_keys"]
    )
    what = [
        ("weights of another shape than config.json says", misfit),
        ("weights are missing, they would be random", missing),
        ("weights that the model has no place for", unexpected),
    ]
    return [
        Problem(
            str(folder),
            f"{text}: {', '.join(names[:5])} ({len(names)} in all)",
            "use a complete checkpoint of this architecture",
        )
        for text, names in what
        if names
    ]


def _embedding(folder: Path, model: PreTrainedModel, vocabulary: int) -> list[Problem]:
    rows = cast("torch.nn.Embedding", model.get_input_embeddings()).num_embeddings
    return [] if vocabulary <= rows else [too_many_ids(str(folder), vocabulary, rows)]


def _finite(folder: Path, model: PreTrainedModel) -> list[Problem]:
    bad = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    return (
        [Problem(str(folder), f"weights are not finite: {', '.join(bad[:5])}", "download the model again")]
        if bad
        else []
    )


def _switch_off_dropout(model: PreTrainedModel) -> None:
    """Zero every dropout: modules, and the probabilities that attention layers hold as numbers."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "attention_dropout", None), float):
            setattr(module, "attention_dropout", 0.0)  # noqa: B010 - a plain number, which Module's stubs do not know
