"""The GGUF file of a real model answers in llama.cpp as the folder does in transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpo_cli.export.gguf_file import write_gguf

MODEL = Path(__file__).parents[2] / "models" / "SmolLM2-135M-Instruct"
NEW_TOKENS = 24
PROMPTS = (
    "Name three colours.",
    "What is the capital of Portugal?",
    "Write one sentence about rain.",
    "How many days has a leap year?",
    "Translate 'good morning' into French.",
    "What is 17 + 25?",
    "Explain what a compass is for.",
    "Give me a synonym of 'quick'.",
    "Who wrote Hamlet?",
    "List two uses of vinegar.",
    "What does 'ubiquitous' mean?",
    "Write a haiku about a pond.",
    "Why is the sky blue?",
    "Name a fruit that starts with 'b'.",
    "What is the opposite of 'shallow'?",
    "How do I boil an egg?",
    "Wie heißt die Hauptstadt von Österreich?",
    "def add(a, b):\n    return a + b\n\nWhat does this do?",
    "Is 2024 divisible by 8?  Say yes or no.",
    "Say hello to Zoë 👋 in 5 words.",
)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_llama_cpp_answers_greedily_as_transformers(tmp_path: Path) -> None:
    llama_cpp: Any = pytest.importorskip("llama_cpp")
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    write_gguf(model, tokenizer, tmp_path / "m.gguf", "fp32", "smollm2")
    theirs = llama_cpp.Llama(
        str(tmp_path / "m.gguf"), n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False
    )
    equal, total = 0, 0
    for prompt in PROMPTS:
        turns = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert theirs.tokenize(text.encode(), add_bos=False, special=True) == ids
        ours = answer(model, ids)
        said = []
        for token in theirs.generate(ids, temp=0.0, repeat_penalty=1.0):
            said.append(token)
            if len(said) == len(ours):
                break
        equal += next((i for i, (a, b) in enumerate(zip(ours, said, strict=True)) if a != b), len(ours))
        total += len(ours)
    assert total > 10 * len(PROMPTS)
    # A near tie may fall the other way, and the rest of that answer with it.
    assert equal >= 0.97 * total, f"{equal} of {total} tokens stand before an answer's first difference"


def answer(model: Any, ids: list[int]) -> list[int]:
    given = torch.tensor([ids])
    out = model.generate(
        input_ids=given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=NEW_TOKENS
    )
    return out[0, len(ids) :].tolist()
