"""Answers depend on their prompt and their seed alone, and are drawn from the model's own distribution."""

from __future__ import annotations

import pytest
import torch

from dpo_cli.engine.generate import Ask, generate, stop_ids
from tests.fakes import byte_tokenizer, tiny_llama

ASKS = [Ask(list(range(5, 5 + n)), seed=n) for n in (3, 9, 5, 30, 4, 17)]


def said(asks: list[Ask], temperature: float, max_tokens: int, length: int = 12) -> list[list[int]]:
    model = tiny_llama()
    assert model.generation_config is not None
    model.generation_config.repetition_penalty = 5.0
    batches = generate(
        model, asks, [4], temperature=temperature, max_new_tokens=length, max_tokens=max_tokens
    )
    told = dict(pair for batch in batches for pair in batch)
    return [told[i] for i in range(len(asks))]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_does_not_depend_on_its_batch(temperature: float) -> None:
    together, alone = (said(ASKS, temperature, max_tokens) for max_tokens in (10_000, 1))
    turned = said(ASKS[::-1], temperature, 10_000)[::-1]

    assert together == alone == turned
    assert all(0 < len(ids) <= 12 for ids in together)


def test_another_seed_says_something_else_and_the_same_seed_the_same() -> None:
    one, same, other = said([Ask([7, 8, 9], 1), Ask([7, 8, 9], 1), Ask([7, 8, 9], 2)], 1.0, 10_000)

    assert one == same != other


def test_greedy_takes_the_likeliest_token_whatever_the_models_settings_say() -> None:
    model, ids = tiny_llama(), list(ASKS[1].prompt)
    with torch.no_grad():
        for _ in range(10):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))

    assert said([ASKS[1]], 0.0, 1, length=10) == [ids[len(ASKS[1].prompt) :]]


def test_tokens_come_as_often_as_the_softmax_says() -> None:
    n, temperature = 3000, 0.5
    with torch.no_grad():
        logits = tiny_llama()(torch.tensor([[7, 8, 9]])).logits[0, -1]
    expected = n * (logits / temperature).softmax(-1)
    tokens = said([Ask([7, 8, 9], seed) for seed in range(n)], temperature, 10_000, length=1)
    found = torch.bincount(torch.tensor([ids[0] for ids in tokens]), minlength=300)
    chi_square = float(((found - expected) ** 2 / expected).sum())

    assert 299 - 4 * (2 * 299) ** 0.5 < chi_square < 299 + 4 * (2 * 299) ** 0.5


def test_answers_stop_where_a_server_stops() -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer()
    assert model.generation_config is not None
    model.generation_config.eos_token_id = [2, 4]
    assert stop_ids(model, tokenizer) == [2, 4]
    model.generation_config.eos_token_id = None
    assert stop_ids(model, tokenizer) == [tokenizer.eos_token_id]

    (whole,) = said([ASKS[0]], 1.0, 1)
    stop = whole[4]
    told = dict(
        next(generate(tiny_llama(), [ASKS[0]], [stop], temperature=1.0, max_new_tokens=12, max_tokens=1))
    )
    assert told[0] == whole[: whole.index(stop) + 1]
