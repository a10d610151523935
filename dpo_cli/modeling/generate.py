"""Greedy answers to a few prompts: what the numbers do not show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from dpo_cli.modeling.logprobs import Scorer


def answers(
    scorer: Scorer,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int = 64,
) -> list[str]:
    """Give one greedy answer to each prompt, without special tokens.

    Args:
        scorer: the bare scorer; its path is left as it was.
        tokenizer: decodes the answers; its end token stops them.
        prompts: token ids, with the generation prompt.
        max_new_tokens: cut an answer after so many.
    """
    path, was_training = scorer.path, scorer.training
    scorer.take("padded")
    scorer.eval()
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    device = scorer.model.device
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        use_cache=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    with torch.no_grad():
        generate: Any = scorer.model.generate
        out = generate(input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config)
    scorer.take(path)
    scorer.train(was_training)
    return [
        text.strip() for text in tokenizer.batch_decode(out[:, width:].tolist(), skip_special_tokens=True)
    ]
