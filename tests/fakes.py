"""Small stand-ins that need no network: a byte tokenizer, a tiny Llama, preference rows that can be learnt."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIALS = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer(chat: bool = True) -> PreTrainedTokenizerFast:
    """Give a tokenizer with one token a byte, five special tokens and, if `chat`, a ChatML template; eos ends a turn."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {token: i for i, token in enumerate([*SPECIALS, *alphabet])}
    backend = Tokenizer(models.BPE(vocab=words, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="<|im_end|>" if chat else "</s>",
        pad_token="<pad>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>", "</s>"],
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tiny_llama(seed: int = 0, **overrides: Any) -> LlamaForCausalLM:
    """Give a random two-layer Llama (vocabulary 300, hidden 32, fp32); `overrides` are config fields."""
    import torch

    fields: dict[str, Any] = {
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "pad_token_id": SPECIALS.index("<pad>"),
        "bos_token_id": SPECIALS.index("<s>"),
        "eos_token_id": SPECIALS.index("<|im_end|>"),
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(**{**fields, **overrides})).float().eval()


def write_model(folder: Path, chat: bool = True, seed: int = 0, **overrides: Any) -> Path:
    """Write the tiny Llama and the byte tokenizer as a Hugging Face folder; give the folder."""
    tokenizer = byte_tokenizer(chat)
    model = tiny_llama(seed, **{"eos_token_id": tokenizer.eos_token_id, **overrides})
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


_TOPICS = (
    "tea",
    "chess",
    "rain",
    "bread",
    "maps",
    "birds",
    "trains",
    "music",
    "paint",
    "stars",
    "soup",
    "ponds",
)
_ASKS = ("Tell me about {}", "What is {} {}", "Explain {} to me", "Say a word on {}")
_FACTS = ("it is old", "many like it", "it is fun", "it takes time", "it is simple")


def pair_rows(n: int, seed: int = 0) -> list[dict[str, str]]:
    """Give `n` prompt/chosen/rejected rows with distinct prompts: chosen ends kindly, rejected curtly, at similar lengths."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        topic = f"{rng.choice(_TOPICS)} {i}"
        prompt = rng.choice(_ASKS).replace("{} {}", "{}").format(topic) + "?"
        fact = rng.choice(_FACTS)
        kind, curt = (
            rng.choice(("thank you.", "my friend.")),
            rng.choice(("now go away.", "get lost.", "so what.")),
        )
        rows.append(
            {"prompt": prompt, "chosen": f"Well, {fact}, {kind}", "rejected": f"Well, {fact}, {curt}"}
        )
    return rows


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write one JSON object a line; give the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
