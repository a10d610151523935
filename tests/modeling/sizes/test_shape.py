"""A model's shape by its config and by its name, beside the model that transformers makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers as hf

from dpo_cli.errors import ModelError
from dpo_cli.modeling.sizes.shape import KNOWN, named_shape, rank_of, shape_by, shape_in, shape_of
from tests.fakes import tiny_llama, write_model
from tests.modeling.sizes.test_footprint import CONFIGS
from tests.modeling.test_scorer import PACKED, PADDED


@pytest.mark.parametrize("name", [*CONFIGS])
def test_parameters_follow_from_the_config(name: str) -> None:
    config = CONFIGS[name](3)
    with torch.device("meta"):
        model = hf.AutoModelForCausalLM.from_config(config)

    # Biases are left out, which are most in a model as small as this; GPT-2 has position embeddings too.
    counted = model.num_parameters() - (4096 * 256 if name == "gpt2" else 0)
    assert shape_by(config.to_dict()).parameters == pytest.approx(counted, rel=0.005)


OTHERS = {
    **PACKED,
    **PADDED,
    "mpt": hf.MptConfig(d_model=32, n_heads=4, n_layers=2, vocab_size=211),
    "bloom": hf.BloomConfig(hidden_size=32, n_head=4, n_layer=2, vocab_size=211),
    "mamba": hf.MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=211),
    "gemma3n": hf.Gemma3nTextConfig(hidden_size=32, intermediate_size=[64, 96], num_hidden_layers=2),
}


@pytest.mark.parametrize("name", [*OTHERS])
def test_every_config_has_a_shape(name: str) -> None:
    config = OTHERS[name].get_text_config()

    shape = shape_by(config.to_dict(), parameters=10**6)

    assert (shape.hidden, shape.layers) == (config.hidden_size, config.num_hidden_layers)
    assert shape.inner >= shape.hidden
    assert shape.query > 0 and 0 < shape.key <= shape.query


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("smollm2135m", 0.1345),
        ("smollm217b", 1.711),
        ("llama321b", 1.2358),
        ("llama323b", 3.213),
        ("llama27b", 6.738),
        ("llama318b", 8.030),
        ("llama3170b", 70.55),
        ("mistral7b", 7.242),
        ("qwen2505b", 0.494),
        ("qwen2515b", 1.544),
        ("qwen253b", 3.086),
        ("qwen257b", 7.616),
        ("qwen2514b", 14.77),
        ("qwen2532b", 32.76),
        ("qwen306b", 0.596),
        ("qwen317b", 1.72),
        ("qwen34b", 4.02),
        ("qwen38b", 8.19),
        ("qwen314b", 14.77),
        ("qwen332b", 32.76),
        ("gemma22b", 2.614),
        ("gemma29b", 9.24),
        ("gemma227b", 27.23),
        ("gemma31b", 1.0),
    ],
)
def test_known_shapes_have_the_published_sizes(name: str, billions: float) -> None:
    assert KNOWN[name].parameters / 1e9 == pytest.approx(billions, rel=0.003)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama318b"),
        ("meta-llama/Meta-Llama-3-8B", "llama38b"),
        ("huggyllama/llama-7b", "llama7b"),
        ("meta-llama/Llama-2-7b-hf", "llama27b"),
        ("/somewhere/runs/llama7b_hh_sft/model", "llama7b"),
        ("Qwen/Qwen2.5-0.5B-Instruct", "qwen2505b"),
        ("Qwen/Qwen3-4B", "qwen34b"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2135m"),
        ("google/gemma-2-2b-it", "gemma22b"),
        ("meta-llama/Llama-2-70b-hf", None),
        ("Qwen/Qwen2.5-72B", None),
        ("Qwen/Qwen3-30B-A3B", None),
        ("google/gemma-2b", None),
        ("org/model", None),
    ],
)
def test_a_name_is_that_of_a_known_shape_or_of_none(name: str, known: str | None) -> None:
    assert named_shape(name) == (None if known is None else KNOWN[known])


def test_a_folder_states_its_shape_and_its_weights_are_counted(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny")

    shape = shape_of(str(folder))

    assert shape.parameters == tiny_llama().num_parameters()
    assert (shape.layers, shape.hidden, shape.inner, shape.query, shape.key) == (2, 32, 64, 32, 16)
    (folder / "model.safetensors").unlink()
    assert shape_of(str(folder)) == shape


def test_an_adapter_has_the_shape_of_its_base(tmp_path: Path) -> None:
    base, adapter = write_model(tmp_path / "tiny"), tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base), "r": 24}))

    assert shape_of(str(adapter)) == shape_of(str(base))
    assert (rank_of(str(adapter)), rank_of(str(base)), rank_of("org/model")) == (24, None, None)
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match="are unknown"):
        shape_of(str(adapter))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "llama"}, "states no sizes"),
        ([], "states no sizes"),
        (
            {**hf.MixtralConfig(num_hidden_layers=2).to_dict(), "architectures": None},
            "mixture of experts",
        ),
    ],
)
def test_a_config_without_sizes_is_refused(tmp_path: Path, config: object, words: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config, default=str))

    with pytest.raises(ModelError, match=words):
        shape_in(tmp_path)


def test_an_unknown_name_is_refused_with_what_to_do() -> None:
    with pytest.raises(
        ModelError, match=r"model\.name: the sizes of 'org/unheard' are unknown.*Fix: `dpo fetch"
    ):
        shape_of("org/unheard")
