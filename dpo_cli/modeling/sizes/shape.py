"""The sizes of a model's matrices, by its config or by its name: what memory and time follow from. No torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dpo_cli.errors import ModelError
from dpo_cli.modeling.hub import ADAPTER_CONFIG, local_folder
from dpo_cli.modeling.sizes.memory import stored_size

_UNGATED = {
    "bloom",
    "codegen",
    "falcon",
    "gpt2",
    "gpt_bigcode",
    "gpt_neo",
    "gpt_neox",
    "gptj",
    "mpt",
    "opt",
    "phi",
    "starcoder2",
}
"""Model types whose MLP is two matrices with an activation between them; others have a third, the gate."""
_FOUR_NORMS = {"gemma2", "gemma3", "gemma3_text"}
_HEAD_NORMS = {"gemma3", "gemma3_text", "olmo2", "olmo3", "qwen3", "qwen3_moe"}


@dataclass(frozen=True)
class Shape:
    """The sizes of a causal language model."""

    parameters: int
    """All of them, embeddings included."""
    layers: int
    hidden: int
    inner: int
    """Width of the MLP that a token goes through: of a mixture of experts, of all experts chosen for a token."""
    query: int
    """Width of all query heads together."""
    key: int
    """Width of all key heads together, and of all value heads."""
    vocabulary: int
    is_tied: bool
    """Whether the head's weight is the embedding's."""
    is_gated: bool = True
    """Three matrices an MLP and root-mean-square norms, as in Llama; otherwise two and layer norms, as in GPT-2."""
    norms: int = 2
    """Norms of hidden width a layer."""
    has_head_norms: bool = False
    """Whether queries and keys are normalised."""

    @property
    def head(self) -> int:
        """Parameters of the LM head."""
        return self.vocabulary * self.hidden

    @property
    def blocks(self) -> int:
        """Parameters of all decoder blocks."""
        return self.parameters - self.head * (1 if self.is_tied else 2)

    @property
    def linears(self) -> list[tuple[int, int]]:
        """Inputs and outputs of a layer's linear projections; of a mixture of experts, of those that a token goes through."""
        inward = [(self.hidden, self.inner)] * (2 if self.is_gated else 1)
        keys = [(self.hidden, self.key)] * 2
        return [
            (self.hidden, self.query),
            *keys,
            (self.query, self.hidden),
            *inward,
            (self.inner, self.hidden),
        ]

    @property
    def per_token(self) -> int:
        """Parameters of all blocks' linear projections that a token is multiplied with."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linears)


def shape_of(name: str) -> Shape:
    """Return the shape of a model without any network: by its folder's config, else that of the hub's cache, else by its name.

    Args:
        name: a folder, a run's folder, an adapter's folder, or a hub id.

    Raises:
        ModelError: none of these says it.
    """
    folder = local_folder(name) or _cached(name)
    if folder is not None and (folder / "config.json").is_file():
        return shape_in(folder)
    base = _adapter(name).get("base_model_name_or_path")
    if isinstance(base, str) and base:
        return shape_of(base)
    found = named_shape(name)
    if found is None:
        what = f"the sizes of '{name}' are unknown: no folder, not in the hub's cache, and no well-known name"
        raise ModelError.of("model.name", what, "`dpo fetch RECIPE` once, or model.name=FOLDER")
    return found


def rank_of(name: str) -> int | None:
    """Return the rank of the adapter in a folder, which training goes on with; None where the name is no adapter's folder."""
    rank = _adapter(name).get("r")
    return rank if isinstance(rank, int) else None


def _adapter(name: str) -> dict[str, Any]:
    """Return the settings of the adapter in a folder; none where it is a whole model's, or cannot be read."""
    folder = local_folder(name)
    if folder is None or (folder / "config.json").is_file():
        return {}
    try:
        stated = json.loads((folder / ADAPTER_CONFIG).read_text())
    except (OSError, ValueError):
        return {}
    return stated if isinstance(stated, dict) else {}


def shape_in(folder: Path) -> Shape:
    """Return the shape that a folder's config states, with the parameters of its weight files where they are there.

    Raises:
        ModelError: a config that cannot be read or lacks the sizes; a mixture of experts without weights.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
        shape = shape_by(config.get("text_config") or config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"states no sizes of a language model: {error!r}"
        raise ModelError.of(str(path), what, "use the folder of a causal LM") from None
    size = stored_size(folder)
    if size is not None:
        return replace(shape, parameters=size.parameters)
    if _is_mixture(config.get("text_config") or config):
        what = "is a mixture of experts, whose size only its weights say"
        raise ModelError.of(str(path), what, "`dpo fetch RECIPE` once, or a folder with the weights")
    return shape


def shape_by(config: Mapping[str, Any], parameters: int | None = None) -> Shape:
    """Return the shape that a language model's config states.

    Args:
        config: as in its `config.json`.
        parameters: how many there are; None computes it, without biases, for models that are no mixture of experts.

    Raises:
        KeyError: a size is missing.
    """
    kind = config.get("model_type", "")
    hidden = _size(config, "hidden_size", "n_embd", "d_model")
    heads = _size(config, "num_attention_heads", "n_head", "n_heads", default=1)
    width = _size(config, "head_dim", default=hidden // heads)
    inner = _size(config, "intermediate_size", "n_inner", "ffn_dim", default=4 * hidden)
    if _is_mixture(config):
        each = _size(config, "moe_intermediate_size", default=inner)
        inner = each * _size(config, "num_experts_per_tok", default=1)
    shape = Shape(
        parameters=parameters or 0,
        layers=_size(config, "num_hidden_layers", "n_layer", "n_layers"),
        hidden=hidden,
        inner=inner,
        query=heads * width,
        key=_size(config, "num_key_value_heads", default=heads) * width,
        vocabulary=_size(config, "vocab_size"),
        is_tied=bool(config.get("tie_word_embeddings", kind in {"gemma", "gemma2", "gpt2"})),
        is_gated=kind not in _UNGATED,
        norms=4 if kind in _FOUR_NORMS else 2,
        has_head_norms=kind in _HEAD_NORMS,
    )
    return shape if parameters is not None else replace(shape, parameters=_counted(shape))


def _size(config: Mapping[str, Any], *names: str, default: int | None = None) -> int:
    """Return the first of these sizes that the config has, the largest where layers differ.

    Raises:
        KeyError: it has none, and there is no default.
    """
    for name in names:
        value = config.get(name)
        if value:
            return int(max(value) if isinstance(value, list | tuple) else value)
    if default is None:
        raise KeyError(names[0])
    return default


def _counted(shape: Shape) -> int:
    embeddings = shape.head * (1 if shape.is_tied else 2)
    return embeddings + shape.per_token + (shape.layers * shape.norms + 1) * shape.hidden


def _is_mixture(config: Mapping[str, Any]) -> bool:
    return any(config.get(name) for name in ("num_experts", "num_local_experts", "n_routed_experts"))


def _cached(name: str) -> Path | None:
    """Return the folder of a hub id in the hub's cache; None where it is not there."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return None
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(name, "config.json")
    return Path(path).parent if isinstance(path, str) else None


def named_shape(name: str) -> Shape | None:
    """Return the shape of a well-known model by a name such as "org/Llama-3.1-8B-Instruct" or "runs/llama7b_sft/model"."""
    for part in Path(name).parts[:-3:-1]:
        plain = re.sub(r"[^a-z0-9]", "", part.lower())
        known = [each for each in KNOWN if re.search(rf"{each}(?![0-9])", plain)]
        if known:
            return KNOWN[max(known, key=len)]
    return None


def _known(
    vocabulary: int,
    hidden: int,
    inner: int,
    layers: int,
    heads: tuple[int, int, int],
    *,
    is_tied: bool = False,
    norms: int = 2,
    has_head_norms: bool = False,
) -> Shape:
    """Return a shape; `heads` are query heads, key heads and their width."""
    query, key = heads[0] * heads[2], heads[1] * heads[2]
    shape = Shape(
        0,
        layers,
        hidden,
        inner,
        query,
        key,
        vocabulary,
        is_tied,
        norms=norms,
        has_head_norms=has_head_norms,
    )
    return replace(shape, parameters=_counted(shape))


_LLAMA_7B = _known(32_000, 4096, 11_008, 32, (32, 32, 128))
_LLAMA_8B = _known(128_256, 4096, 14_336, 32, (32, 8, 128))
_LLAMA_70B = _known(128_256, 8192, 28_672, 80, (64, 8, 128))
KNOWN = {
    "smollm2135m": _known(49_152, 576, 1536, 30, (9, 3, 64), is_tied=True),
    "smollm2360m": _known(49_152, 960, 2560, 32, (15, 5, 64), is_tied=True),
    "smollm217b": _known(49_152, 2048, 8192, 24, (32, 32, 64), is_tied=True),
    "llama321b": _known(128_256, 2048, 8192, 16, (32, 8, 64), is_tied=True),
    "llama323b": _known(128_256, 3072, 8192, 28, (24, 8, 128), is_tied=True),
    "llama7b": _LLAMA_7B,
    "llama27b": _LLAMA_7B,
    "llama8b": _LLAMA_8B,
    "llama38b": _LLAMA_8B,
    "llama318b": _LLAMA_8B,
    "llama370b": _LLAMA_70B,
    "llama3170b": _LLAMA_70B,
    "llama3370b": _LLAMA_70B,
    "mistral7b": _known(32_000, 4096, 14_336, 32, (32, 8, 128)),
    "qwen2505b": _known(151_936, 896, 4864, 24, (14, 2, 64), is_tied=True),
    "qwen2515b": _known(151_936, 1536, 8960, 28, (12, 2, 128), is_tied=True),
    "qwen253b": _known(151_936, 2048, 11_008, 36, (16, 2, 128), is_tied=True),
    "qwen257b": _known(152_064, 3584, 18_944, 28, (28, 4, 128)),
    "qwen2514b": _known(152_064, 5120, 13_824, 48, (40, 8, 128)),
    "qwen2532b": _known(152_064, 5120, 27_648, 64, (40, 8, 128)),
    "qwen306b": _known(151_936, 1024, 3072, 28, (16, 8, 128), is_tied=True, has_head_norms=True),
    "qwen317b": _known(151_936, 2048, 6144, 28, (16, 8, 128), is_tied=True, has_head_norms=True),
    "qwen34b": _known(151_936, 2560, 9728, 36, (32, 8, 128), is_tied=True, has_head_norms=True),
    "qwen38b": _known(151_936, 4096, 12_288, 36, (32, 8, 128), has_head_norms=True),
    "qwen314b": _known(151_936, 5120, 17_408, 40, (40, 8, 128), has_head_norms=True),
    "qwen332b": _known(151_936, 5120, 25_600, 64, (64, 8, 128), has_head_norms=True),
    "gemma22b": _known(256_000, 2304, 9216, 26, (8, 4, 256), is_tied=True, norms=4),
    "gemma29b": _known(256_000, 3584, 14_336, 42, (16, 8, 256), is_tied=True, norms=4),
    "gemma227b": _known(256_000, 4608, 36_864, 46, (32, 16, 128), is_tied=True, norms=4),
    "gemma31b": _known(262_144, 1152, 6912, 26, (4, 1, 256), is_tied=True, norms=4, has_head_norms=True),
}
"""Shapes by the letters and digits of a name, from the models' published configurations."""
