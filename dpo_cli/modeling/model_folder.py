"""A model folder before any weight is read: is there a language model in it that transformers has the code of, and can be saved again."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    GenerationConfig,
    PreTrainedConfig,
)

from dpo_cli.errors import ModelError
from dpo_cli.modeling.silence_transformers import quiet

_WHERE = "model.name"


def inspect_folder(folder: Path) -> PreTrainedConfig:
    """Return the config of a model folder after checking everything that needs no weights.

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
            f"dpo convert {folder}",
        )
    config = check_config(folder)
    check_generation_config(folder)
    return config


def check_generation_config(folder: Path) -> None:
    """Check that the generation config can be saved again: an inconsistent one would fail the first save, hours later.

    Raises:
        ModelError: the settings contradict each other.
    """
    if not (folder / "generation_config.json").is_file():
        return
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        try:
            GenerationConfig.from_pretrained(folder, local_files_only=True).validate(strict=True)
        except (OSError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise ModelError.of(
                str(folder / "generation_config.json"), reason, "fix the file: it is saved with the model"
            ) from None


def check_config(folder: Path) -> PreTrainedConfig:
    """Return the config of a folder: that of a causal LM, also one with other towers beside it, which transformers itself has the code of.

    Raises:
        ModelError: it is none.
    """
    path = folder / "config.json"
    try:
        stated = json.loads(path.read_text())
    except ValueError as error:
        raise ModelError.of(str(path), f"not JSON: {error}", "copy the model again") from None
    if isinstance(stated, dict) and "quantization_config" in stated:
        raise ModelError.of(
            str(path), "the weights are quantized, training needs full ones", "the original model"
        )
    code = own_code(stated)
    if code is not None:
        raise ModelError.of(
            str(path), f"the model brings its own code ({code})", "use a model that transformers has"
        )
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, TypeError, StrictDataclassError) as error:
        raise ModelError.of(
            str(path), line_of(error), "a causal language model that transformers has"
        ) from None
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and not has_other_towers(config):
        what = f"{type(config).__name__} is no causal language model"
        raise ModelError.of(str(path), what, "a model that continues text")
    return config


def has_other_towers(config: PreTrainedConfig) -> bool:
    """Return whether a config is that of a language model with other towers, such as one that reads images."""
    has_text = config.get_text_config() is not config and not config.is_encoder_decoder
    return has_text and type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING


def loader_of(config: PreTrainedConfig) -> Any:
    """Return the automatic class that a config's model is loaded by, with all of its towers."""
    return AutoModelForImageTextToText if has_other_towers(config) else AutoModelForCausalLM


def own_code(stated: Any) -> str | None:
    """Return the key through which a config, or one inside it, names code: classes beside it, or attention kernels on a hub."""
    if not isinstance(stated, dict):
        return None
    for key, value in stated.items():
        if key == "auto_map" or ("attn_implementation" in key and "/" in str(value)):
            return key
        inner = own_code(value)
        if inner is not None:
            return inner
    return None


def line_of(error: Exception) -> str:
    """Return the first sentence of an error, on one line."""
    return " ".join(str(error).split()).partition(". ")[0].rstrip(".")
