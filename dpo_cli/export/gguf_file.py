"""GGUF, llama.cpp's one-file format: weights under its names, the tokenizer with its pre-tokenizer, the chat template.

Writes Llama-like models with a byte-level BPE tokenizer; anything else is llama.cpp's own converter's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dpo_cli.packages import is_installed

ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
"""What llama.cpp calls an architecture."""
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITS = {_WORDS % "{1,3}": "llama-bpe", _WORDS % "": "qwen2"}
"""What llama.cpp calls the splitting of text before the merges, by the expression in `tokenizer.json`."""


def unwritable(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return why a model cannot be written here; None where it can."""
    if not is_installed("gguf"):
        return "the gguf package is missing (pip install 'dpo-cli[gguf]')"
    if type(model).__name__ not in ARCHITECTURES:
        return f"{type(model).__name__} is not one of {', '.join(ARCHITECTURES)}"
    config: Any = model.config
    if getattr(config, "attention_bias", False) or (config.model_type == "qwen3" and config.head_dim != 128):
        return "transformers could not read it back to check it (biases in the attention, or an unusual head size)"
    kind = rope_of(model)["rope_type"]
    if kind not in ("default", "llama3"):
        return f"its rotary positions are scaled by '{kind}'"
    if not tokenizer.is_fast or _pre_tokenizer(tokenizer) is None:
        return "its tokenizer splits text in a way that has no name here"
    return None


def write_gguf(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path, dtype: str, name: str
) -> None:
    """Write a model and its tokenizer as one file.

    Args:
        model: one that `unwritable` has nothing against, adapters merged.
        tokenizer: its tokenizer.
        path: the file.
        dtype: `fp32`, or `bf16` for matrices; vectors stay in fp32, as llama.cpp wants them.
        name: of the model, for people.
    """
    import gguf

    architecture = ARCHITECTURES[type(model).__name__]
    matrix = gguf.GGMLQuantizationType.F32 if dtype == "fp32" else gguf.GGMLQuantizationType.BF16
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32 if dtype == "fp32" else gguf.LlamaFileType.MOSTLY_BF16)
    _add_sizes(writer, model)
    _add_tokenizer(writer, tokenizer, model.config.vocab_size)
    for target, weight in _tensors(model, architecture):
        kind = matrix if weight.ndim > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(target, gguf.quants.quantize(weight, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_sizes(writer: Any, model: PreTrainedModel) -> None:
    config: Any = model.config
    window = getattr(config, "sliding_window", None)
    # llama.cpp computes these architectures without a window, which is the same up to its length.
    writer.add_context_length(min(config.max_position_embeddings, window or config.max_position_embeddings))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope_of(model)["rope_theta"])
    writer.add_rope_dimension_count(_head_size(config))
    writer.add_key_length(_head_size(config))
    writer.add_value_length(_head_size(config))
    writer.add_vocab_size(config.vocab_size)


def _head_size(config: Any) -> int:
    own = getattr(config, "head_dim", None)  # Qwen2's config has none
    return int(own or config.hidden_size // config.num_attention_heads)


def rope_of(model: PreTrainedModel) -> dict[str, Any]:
    """Return a Llama-like model's rotary settings: `rope_type`, `rope_theta` and what scales them."""
    config: Any = model.config
    return dict(config.rope_parameters)


def _tensors(model: PreTrainedModel, architecture: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every tensor under llama.cpp's name; a head that is the embedding is not written twice."""
    import gguf

    config: Any = model.config
    kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    if rope_of(model)["rope_type"] == "llama3":
        yield "rope_freqs.weight", _rope_factors(model)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    weight: Tensor
    for name, weight in model.named_parameters():
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert target is not None, f"{name} has no name in llama.cpp's {architecture}"
        layer = name.split(".")[-2]
        if architecture == "llama" and layer in heads:
            weight = _interleaved(weight, heads[layer])
        yield target, weight.detach().float().cpu().numpy()


def _interleaved(weight: Tensor, n_heads: int) -> Tensor:
    """Return a query or key projection with each head's rows as (0, half, 1, half + 1, ...): ggml's llama rotates neighbours, transformers halves."""
    halves = weight.reshape(n_heads, 2, -1, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)


def _rope_factors(model: PreTrainedModel) -> np.ndarray:
    """Return what each rotary frequency is divided by, (head size / 2,)."""
    rotary: Any = model.base_model.get_submodule("rotary_emb")
    size = _head_size(model.config)
    plain = rope_of(model)["rope_theta"] ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
    return (plain / rotary.inv_freq.double().cpu()).float().numpy()


def _pre_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return llama.cpp's name for how text is split before the merges; None where it is not a byte-level BPE that is known here."""
    stated = _backend(tokenizer)
    if stated["model"]["type"] != "BPE" or stated["model"].get("byte_fallback"):
        return None
    splits = stated["pre_tokenizer"] or {}
    parts = splits.get("pretokenizers", [splits])
    if not parts or parts[-1].get("type") != "ByteLevel" or parts[-1].get("add_prefix_space"):
        return None
    before, uses_own = parts[:-1], parts[-1].get("use_regex", True)
    if not before:
        return "gpt-2" if uses_own else None
    if len(before) > 1:
        return None
    if before[0]["type"] == "Digits":
        return "smollm" if uses_own and before[0]["individual_digits"] else None
    is_split = before[0]["type"] == "Split" and before[0]["behavior"] == "Isolated" and not uses_own
    return _SPLITS.get(before[0]["pattern"].get("Regex", "")) if is_split else None


def _backend(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return found


def _add_tokenizer(writer: Any, tokenizer: PreTrainedTokenizerBase, n_rows: int) -> None:
    """Write vocabulary, merges, control tokens and template; rows of the embedding without a token get one that text never makes."""
    from gguf import TokenType

    stated = _backend(tokenizer)
    added = tokenizer.added_tokens_decoder
    tokens = {number: token for token, number in tokenizer.get_vocab().items()}
    kinds = [
        TokenType.UNUSED
        if number not in tokens
        else TokenType.NORMAL
        if number not in added
        else TokenType.CONTROL
        if added[number].special
        else TokenType.USER_DEFINED
        for number in range(n_rows)
    ]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in stated["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(tokenizer))
    writer.add_token_list([tokens.get(number, f"[PAD{number}]") for number in range(n_rows)])
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    for add, number in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if number is not None:
            add(number)
    ids = tokenizer("a").input_ids
    writer.add_add_bos_token(ids[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(ids[-1] == tokenizer.eos_token_id)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
