"""What a method may ask of the scorer beside sums, against the model's own logits in float64."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from dpo_cli.engine.batching import score_groups
from dpo_cli.engine.scoring import log_probs_over_ranks
from dpo_cli.modeling.scorer import Scorer, score
from dpo_cli.types import TokenGroup
from tests.fakes import tiny_llama

TOLERANCE = 1e-4


def group(seed: int, n_prompt: int, *lengths: int) -> TokenGroup:
    rng = np.random.default_rng(seed)
    ids = [rng.integers(3, 300, length).astype(np.int32) for length in (n_prompt, *lengths)]
    masks = [rng.random(length) < 0.8 for length in lengths]
    for mask in masks:
        mask[-1] = True
    return TokenGroup(ids[0], tuple(ids[1:]), tuple(masks))


GROUPS = [group(0, 9, 7, 12), group(1, 1, 5, 2), group(2, 4, 3, 3)]


def own_log_probs(model: torch.nn.Module, given: TokenGroup, k: int) -> torch.Tensor:
    """Give log p of every next token of a prompt with its k-th completion, (T - 1, V), float64."""
    ids = torch.from_numpy(np.concatenate([given.prompt, given.completions[k]])).long()
    logits: torch.Tensor = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
    return logits.double().log_softmax(-1)


def scored_positions(given: TokenGroup, k: int) -> list[tuple[int, int]]:
    """Give (row of `own_log_probs`, token) of each scored token."""
    start = len(given.prompt) - 1
    return [(start + int(i), int(given.completions[k][i])) for i in np.flatnonzero(given.masks[k])]


@pytest.mark.parametrize("path", ["packed", "padded"])
def test_all_that_can_be_wanted_equals_the_models_own_logits(path: str) -> None:
    model = tiny_llama()
    scorer = Scorer(model, path)  # type: ignore[arg-type]
    found = score(scorer, scorer.layout(GROUPS, frozenset({"public", "confidence", "prompt"})))
    plain = score(scorer, scorer.layout(GROUPS))
    scorer.take("padded")

    public, confidence, prompt = [], [], []
    for given in GROUPS:
        for k in range(2):
            log_p = own_log_probs(model, given, k)
            at = scored_positions(given, k)
            each = torch.stack([log_p[row, token] for row, token in at])
            squares = torch.stack([(2 * log_p[row]).exp().sum().log() for row, _ in at])
            public.append(each[: min(given.scored)].sum())
            confidence.append((each - squares).mean())
        ids = torch.from_numpy(given.prompt[1:]).long()
        prompt.append(log_p[: len(ids)].gather(1, ids[:, None]).sum())

    assert found.public is not None and found.confidence is not None and found.prompt is not None
    assert found.prompt_tokens is not None and found.prompt_tokens.tolist() == [8, 0, 3]
    torch.testing.assert_close(found.public.double(), torch.stack(public), atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(found.confidence.double(), torch.stack(confidence), atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(found.prompt.double(), torch.stack(prompt), atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(found.total, plain.total)
    assert found.public.requires_grad and found.prompt.requires_grad and not found.confidence.requires_grad


def test_wanting_more_changes_no_gradient_of_the_sums() -> None:
    model = tiny_llama()
    scorer = Scorer(model)
    weights = [weight for weight in model.parameters() if weight.requires_grad]

    plain = torch.autograd.grad(score(scorer, scorer.layout(GROUPS)).total.sum(), weights)
    want = frozenset({"public", "confidence", "prompt"})
    more = torch.autograd.grad(score(scorer, scorer.layout(GROUPS, want)).total.sum(), weights)

    for one, other in zip(plain, more, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_the_public_part_scored_alone_is_the_one_read_from_the_whole() -> None:
    scorer = Scorer(tiny_llama())
    whole = score(scorer, scorer.layout(GROUPS, frozenset({"public"}))).public
    alone = score(scorer, scorer.layout([given.public() for given in GROUPS])).total

    assert whole is not None
    torch.testing.assert_close(whole, alone, atol=TOLERANCE, rtol=0)
    assert GROUPS[0].public().keys[0] == GROUPS[0].keys[0], "the shorter completion keeps its reference value"


def test_a_prompt_of_one_token_has_no_nll_of_its_own() -> None:
    assert GROUPS[1].prompt_alone() is None
    alone = GROUPS[0].prompt_alone()

    assert alone is not None and alone.scored == (8,)


def test_an_evaluation_of_prompts_of_one_token_has_no_prompt_to_score() -> None:
    scorer, groups = Scorer(tiny_llama()), [group(0, 1, 7, 12), group(1, 1, 5, 2)]
    found = log_probs_over_ranks(
        lambda some: score_groups(scorer, some, 100, nullcontext), groups, frozenset({"prompt"})
    )

    assert found.prompt is not None and found.prompt_tokens is not None
    assert found.prompt.tolist() == [0.0, 0.0] and found.prompt_tokens.tolist() == [0, 0]
