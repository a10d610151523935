"""Loading a causal LM: safetensors only, no remote code, fp32 master weights, and what is wrong with it said before training."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from dpo_cli.errors import ModelError, Problem

_WHERE = "model.name"


def load_model(folder: Path, vocabulary: int, *, dropout: bool = False) -> PreTrainedModel:
    """Give the causal LM in a folder, in fp32, in evaluation mode.

    fp32, because a bf16 master loses a 5e-7 step entirely (bf16 spacing at 0.02 is 1.2e-4); speed comes from autocast.

    Args:
        folder: a model folder in Hugging Face layout.
        vocabulary: number of token ids that the tokenizer can give.
        dropout: keep the dropout that the config states; otherwise it is set to 0.

    Raises:
        ModelError: no such folder, no safetensors weights, code in the folder, weights missing or not finite, an embedding
            smaller than the tokenizer, or a generation config that could not be saved.
    """
    inspect_folder(folder)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
    )
    model, info = cast("tuple[PreTrainedModel, dict[str, list[str]]]", loaded)
    problems = [*_weights(folder, info), *_embedding(folder, model, vocabulary), *_finite(folder, model)]
    if problems:
        raise ModelError(problems)
    if not dropout:
        _switch_off_dropout(model)
    model.config.use_cache = False
    return model.eval()


def inspect_folder(folder: Path) -> None:
    """Check everything about a model folder that needs no weights.

    Raises:
        ModelError: see `load_model`.
    """
    if not folder.is_dir():
        raise ModelError.of(
            _WHERE, f"no such model folder: {folder}", "a folder in Hugging Face layout, or a hub id"
        )
    if not (folder / "config.json").is_file():
        raise ModelError.of(
            str(folder), "not a model folder: no config.json", "point model.name at the folder that holds it"
        )
    if not any(folder.glob("*.safetensors")):
        raise ModelError.of(
            str(folder),
            "no *.safetensors weights; pickled weights are not read",
            "save it as safetensors first",
        )
    try:
        config = json.loads((folder / "config.json").read_text())
    except ValueError as error:
        raise ModelError.of(
            str(folder / "config.json"), f"not JSON: {error}", "copy the model again"
        ) from None
    if "auto_map" in config:
        raise ModelError.of(
            str(folder / "config.json"),
            "the model brings its own code (auto_map)",
            "use a model that transformers has",
        )
    check_generation_config(folder)


def check_generation_config(folder: Path) -> None:
    """Check that the generation config can be saved again: an inconsistent one would fail the first save, hours later.

    Raises:
        ModelError: the settings contradict each other.
    """
    if not (folder / "generation_config.json").is_file():
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            GenerationConfig.from_pretrained(folder, local_files_only=True).validate(strict=True)
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise ModelError.of(
                str(folder / "generation_config.json"), reason, "mend the file: it is saved with the model"
            ) from None


def _weights(folder: Path, info: dict[str, list[str]]) -> list[Problem]:
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    what = [
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
    if vocabulary <= rows:
        return []
    what = f"the tokenizer has {vocabulary} ids, the embedding {rows} rows"
    return [Problem(str(folder), what, "use the tokenizer that belongs to the model (model.tokenizer)")]


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
