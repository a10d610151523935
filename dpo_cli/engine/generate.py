"""Answers to prompts, each from its own seed: what a row says does not depend on the batch it was in, up to rounding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from dpo_cli.modeling.precision import free_bytes
from dpo_cli.modeling.scorer import Scorer

MAX_ROWS = 64
"""Of a batch: what a kill costs, and the rows of logits that are held at once."""


class Ask(NamedTuple):
    """One answer that is asked for."""

    prompt: Sequence[int]
    """Token ids, with the generation prompt."""
    seed: int = 0
    """Of this answer's own noise, at most 63 bits."""


class _Noise:
    """Samples by argmax: log-probs over the temperature plus Gumbel noise, which each row draws from its own generator.

    A token changes only where rounding (other batch mates, other padding) exceeds the distance of the two largest sums.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, device: torch.device) -> None:
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self._temperature = temperature

    def __call__(self, _ids: Tensor, scores: Tensor) -> Tensor:
        waits = torch.stack(
            [
                torch.empty_like(row).exponential_(generator=own)
                for row, own in zip(scores, self._generators, strict=True)
            ]
        )
        return scores / self._temperature - waits.log()


def generate(
    model: PreTrainedModel,
    asks: Sequence[Ask],
    stops: Sequence[int],
    *,
    temperature: float,
    max_new_tokens: int,
    max_tokens: int,
) -> Iterator[list[tuple[int, list[int]]]]:
    """Yield answers batch by batch: the place of each ask and its token ids, with the stop token where it came to one.

    Args:
        model: a causal LM in evaluation mode, with its own attention (see `Scorer.take`).
        asks: in any order; they are answered sorted by length, so that little is padding.
        stops: tokens that end an answer.
        temperature: 0 takes the likeliest token. Nothing else shapes the distribution, whatever the model's own settings say.
        max_new_tokens: cut an answer after so many.
        max_tokens: of a batch, padding and room for the answers included; one ask is always taken.
    """
    at = 0
    order = np.argsort([len(ask.prompt) for ask in asks], kind="stable")[::-1].tolist()
    while at < len(order):
        width = len(asks[order[at]].prompt) + max_new_tokens
        members = order[at : at + max(1, min(MAX_ROWS, max_tokens // width))]
        texts = _batch(model, [asks[member] for member in members], stops, temperature, max_new_tokens)
        yield list(zip(members, texts, strict=True))
        at += len(members)


def _batch(
    model: PreTrainedModel, asks: Sequence[Ask], stops: Sequence[int], temperature: float, max_new_tokens: int
) -> list[list[int]]:
    width = max(len(ask.prompt) for ask in asks)
    ids = torch.tensor([[stops[0]] * (width - len(ask.prompt)) + list(ask.prompt) for ask in asks])
    mask = torch.tensor([[0] * (width - len(ask.prompt)) + [1] * len(ask.prompt) for ask in asks])
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        use_cache=True,
        eos_token_id=list(stops),
        pad_token_id=stops[0],
    )
    noise = _Noise([ask.seed for ask in asks], temperature, model.device) if temperature > 0 else None
    run: Any = model.generate
    # What a call leaves open is taken from the model's own settings (repetition_penalty, ...): a sample would not be the model's.
    stated, model.generation_config = model.generation_config, config
    try:
        with torch.no_grad():
            out = run(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                generation_config=config,
                logits_processor=LogitsProcessorList([noise] if noise else []),
            )
    finally:
        model.generation_config = stated
    return [_until(row, set(stops)) for row in out[:, width:].tolist()]


def _until(tokens: Sequence[int], stops: set[int]) -> list[int]:
    """Return tokens up to the first stop, which is kept; behind it is padding."""
    end = next((i + 1 for i, token in enumerate(tokens) if token in stops), len(tokens))
    return list(tokens[:end])


def generation_budget(model: PreTrainedModel, device: torch.device) -> int:
    """Estimate how many tokens' keys and values, fp32 and a head each, fit in half of the free memory; nothing is kept for a backward."""
    config = model.config.get_text_config()
    bytes_per_token = 2 * 4 * config.num_hidden_layers * config.hidden_size
    return max(256, free_bytes(device) // 2 // bytes_per_token)


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens at which a server ends an answer: those of the generation config, or the tokenizer's end token."""
    stated = model.generation_config.eos_token_id if model.generation_config is not None else None
    if stated is None:
        return [int(tokenizer.eos_token_id)]
    return [stated] if isinstance(stated, int) else list(stated)


def answers(
    scorer: Scorer,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int = 64,
) -> list[str]:
    """Return one greedy answer to each prompt, without special tokens.

    Args:
        scorer: the bare scorer; its path is left as it was.
        tokenizer: decodes the answers.
        prompts: token ids, with the generation prompt.
        max_new_tokens: cut an answer after so many.
    """
    path, was_training = scorer.path, scorer.training
    scorer.take("padded")
    scorer.eval()
    stops, texts = stop_ids(scorer.model, tokenizer), [""] * len(prompts)
    batches = generate(
        scorer.model,
        [Ask(prompt) for prompt in prompts],
        stops,
        temperature=0,
        max_new_tokens=max_new_tokens,
        max_tokens=len(prompts) * (max(map(len, prompts)) + max_new_tokens),
    )
    for member, ids in (pair for batch in batches for pair in batch):
        texts[member] = str(tokenizer.decode(ids, skip_special_tokens=True)).strip()
    scorer.take(path)
    scorer.train(was_training)
    return texts
