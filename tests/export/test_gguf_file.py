"""The GGUF writer: what transformers' own reader makes of the file computes what the model computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from dpo_cli.export.export import export
from dpo_cli.export.gguf_file import _SPLITS, unwritable, write_gguf
from tests.fakes import CHAT_TEMPLATE, SPECIALS, write_model

gguf = pytest.importorskip("gguf")

COMMON: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 4,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CONFIGS = {
    "llama": hf.LlamaConfig(**COMMON),
    "llama, tied": hf.LlamaConfig(**COMMON, tie_word_embeddings=True),
    "mistral": hf.MistralConfig(**COMMON, sliding_window=None),
    "qwen2": hf.Qwen2Config(**COMMON),
    "qwen3": hf.Qwen3Config(**COMMON, head_dim=128),
}
IDS = torch.tensor([[1, 70, 80, 90, 100, 4, 33, 260]])


def bpe_tokenizer(*before: Any) -> hf.PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with two merges, split as GPT-2 does unless something else is given."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {token: i for i, token in enumerate([*SPECIALS, *alphabet, "th", "the"])}
    backend = Tokenizer(models.BPE(vocab=words, merges=[("t", "h"), ("th", "e")]))
    own = not any(isinstance(part, pre_tokenizers.Split) for part in before)
    levels = [*before, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=own)]
    backend.pre_tokenizer = pre_tokenizers.Sequence(levels)
    backend.decoder = decoders.ByteLevel()
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="<|im_end|>", pad_token="<pad>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build(config: hf.PreTrainedConfig) -> hf.PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = hf.AutoModelForCausalLM.from_config(config).float().eval()
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight) * 0.05)  # norms and biases too
    return model


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_reads_the_file_back_as_the_same_model(name: str, tmp_path: Path) -> None:
    model = build(CONFIGS[name])
    assert unwritable(model, bpe_tokenizer()) is None
    write_gguf(model, bpe_tokenizer(), tmp_path / "m.gguf", "fp32", "tiny")
    theirs = hf.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32)

    torch.testing.assert_close(theirs.eval()(IDS).logits, model(IDS).logits, atol=1e-4, rtol=0)
    assert type(theirs).__name__ == type(model).__name__ or name == "mistral"


def test_the_tokenizer_comes_along_with_control_tokens_merges_and_template(tmp_path: Path) -> None:
    tokenizer = bpe_tokenizer()
    write_gguf(build(CONFIGS["llama"]), tokenizer, tmp_path / "m.gguf", "fp32", "tiny")
    theirs = hf.AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    text = "<|im_start|>user\nthe theatre, thé 12<|im_end|>"

    assert theirs(text).input_ids == tokenizer(text).input_ids
    assert theirs.chat_template == tokenizer.chat_template
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    kinds = fields["tokenizer.ggml.token_type"].contents()
    assert [kinds[i] for i in (3, 4, 50, 299)] == [3, 3, 1, 5]
    assert fields["tokenizer.ggml.tokens"].contents()[299] == "[PAD299]"
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2"
    assert fields["tokenizer.ggml.eos_token_id"].contents() == 4
    assert fields["tokenizer.ggml.add_bos_token"].contents() is False


def test_scaled_rotary_positions_are_written_as_factors(tmp_path: Path) -> None:
    model = build(hf.LlamaConfig(**COMMON, rope_parameters=LLAMA3))
    assert unwritable(model, bpe_tokenizer()) is None
    write_gguf(model, bpe_tokenizer(), tmp_path / "m.gguf", "fp32", "tiny")
    found = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    plain = 10000.0 ** -(np.arange(0, 8, 2) / 8)
    # arXiv:2407.21783's scaling: as they are above 64 / 4 turns' wavelength, an eighth below 64 / 1.
    expected = [1.0 if 2 * np.pi / f < 16 else 8.0 if 2 * np.pi / f > 64 else None for f in plain]

    assert [round(float(x), 4) for x, e in zip(found["rope_freqs.weight"], expected, strict=True) if e] == [
        e for e in expected if e
    ]


@pytest.mark.parametrize(
    ("before", "name"),
    [
        ([pre_tokenizers.Digits(individual_digits=True)], "smollm"),
        *(([pre_tokenizers.Split(Regex(split), "isolated")], name) for split, name in _SPLITS.items()),
    ],
)
def test_the_way_text_is_split_has_llama_cpps_name(before: list[Any], name: str, tmp_path: Path) -> None:
    tokenizer = bpe_tokenizer(*before)
    write_gguf(build(CONFIGS["qwen2"]), tokenizer, tmp_path / "m.gguf", "fp32", "tiny")
    assert gguf.GGUFReader(tmp_path / "m.gguf").fields["tokenizer.ggml.pre"].contents() == name


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    odd = bpe_tokenizer(pre_tokenizers.Split(Regex("x"), "isolated"))
    yarn = {**LLAMA3, "rope_type": "yarn"}
    gemma = build(hf.GemmaConfig(**COMMON, head_dim=8))

    assert "splits text in a way" in str(unwritable(build(CONFIGS["llama"]), odd))
    assert "GemmaForCausalLM is not one of LlamaForCausalLM" in str(unwritable(gemma, bpe_tokenizer()))
    biased = build(hf.LlamaConfig(**COMMON, attention_bias=True))
    assert "biases in the attention" in str(unwritable(biased, bpe_tokenizer()))
    scaled = build(hf.LlamaConfig(**COMMON, rope_parameters=yarn))
    assert "scaled by 'yarn'" in str(unwritable(scaled, bpe_tokenizer()))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_export_writes_it_into_the_folder_and_checks_it(dtype: str, tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    bpe_tokenizer().save_pretrained(base)
    done = export(str(base), "gguf", tmp_path / "out", dtype)

    assert done.gguf == tmp_path / "out" / "out.gguf" and done.gguf.is_file()
    assert done.command == f"llama-server -m {done.gguf} --jinja"
    kinds = {tensor.tensor_type.name for tensor in gguf.GGUFReader(done.gguf).tensors}
    assert kinds == ({"F32"} if dtype == "fp32" else {"F32", "BF16"})
    assert done.largest_logit <= 1e-4 or dtype == "bf16"


def test_export_gives_llama_cpps_own_command_where_it_cannot(tmp_path: Path) -> None:
    done = export(str(write_model(tmp_path / "base")), "gguf", tmp_path / "out", "fp32")

    assert done.gguf is None
    assert "convert_hf_to_gguf.py" in done.command
    assert "no GGUF file was written here: its tokenizer splits text" in "\n".join(done.lines())
