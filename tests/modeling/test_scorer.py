"""The packed, prefix-sharing scorer against plain rows through each architecture's own logits."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor

from dpo_cli.modeling.attention import _asks_for_gqa, packed_attention
from dpo_cli.modeling.exactness import choose_path
from dpo_cli.modeling.scorer import Scorer, score
from dpo_cli.types import TokenGroup
from tests.fakes import tiny_llama

NATS_PER_TOKEN = 1e-4
RELATIVE_GRADIENT = 1e-5

COMMON = {
    "vocab_size": 211,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
SMALL = {"vocab_size": 211, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
GPT2 = {"vocab_size": 211, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
NO_DROPOUT = {"attn_pdrop": 0, "resid_pdrop": 0, "embd_pdrop": 0}
PACKED = {
    "llama": hf.LlamaConfig(**COMMON),
    "qwen3": hf.Qwen3Config(**COMMON, head_dim=8),
    "mistral, window 8": hf.MistralConfig(**COMMON, sliding_window=8),
    "gemma": hf.GemmaConfig(**COMMON, head_dim=8),
    "gemma2, window 9, soft-caps": hf.Gemma2Config(**COMMON, head_dim=8, sliding_window=9),
    "gemma3, window 9": hf.Gemma3TextConfig(**COMMON, head_dim=8, sliding_window=9),
    "phi3, window 8": hf.Phi3Config(**COMMON, pad_token_id=0, sliding_window=8),
    "gpt-neox": hf.GPTNeoXConfig(**SMALL, intermediate_size=64, max_position_embeddings=512),
    "gpt2, learned positions": hf.GPT2Config(**GPT2, **NO_DROPOUT),
    "opt": hf.OPTConfig(**SMALL, ffn_dim=64, word_embed_proj_dim=32, max_position_embeddings=512, dropout=0),
    "granite, scaled logits": hf.GraniteConfig(**COMMON, logits_scaling=3.0),
    "cohere, scaled logits": hf.CohereConfig(**COMMON, logit_scale=0.3),
}
PADDED = {
    "gpt-j, outside the interface": hf.GPTJConfig(**GPT2, **NO_DROPOUT, rotary_dim=4),
    "gpt-oss, attention sinks": hf.GptOssConfig(
        **COMMON, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=9
    ),
    "mamba, a state-space model": hf.MambaConfig(
        vocab_size=211, hidden_size=32, num_hidden_layers=2, state_size=4
    ),
}


@pytest.fixture(scope="module")
def groups() -> list[TokenGroup]:
    """One to four completions a prompt, a prompt of one token, completions of one token, partial masks."""
    rng = np.random.default_rng(0)
    shapes = ((20, (7, 11)), (5, (9,)), (31, (3, 3, 6, 12)), (1, (1, 5, 2)))
    return [random_group(rng, n_prompt, lengths) for n_prompt, lengths in shapes]


def random_group(rng: np.random.Generator, n_prompt: int, lengths: tuple[int, ...]) -> TokenGroup:
    masks = [rng.random(length) < 0.7 for length in lengths]
    for mask in masks:
        mask[rng.integers(len(mask))] = True
    ids = [rng.integers(3, 211, length).astype(np.int32) for length in (n_prompt, *lengths)]
    return TokenGroup(ids[0], tuple(ids[1:]), tuple(masks))


def build(config: hf.PreTrainedConfig) -> hf.PreTrainedModel:
    torch.manual_seed(0)
    return hf.AutoModelForCausalLM.from_config(copy.deepcopy(config)).eval()


def oracle(model: hf.PreTrainedModel, groups: list[TokenGroup]) -> Tensor:
    """Score every completion alone, unpadded, through the model's own logits, in float64: (N,)."""
    sums = []
    for group in groups:
        for ids, mask in zip(group.completions, group.masks, strict=True):
            row = torch.from_numpy(np.concatenate([group.prompt, ids])).long()[None]
            log_probs = model(input_ids=row, use_cache=False).logits[0].double().log_softmax(-1)
            start = len(group.prompt) - 1
            sums.append(torch.stack([log_probs[start + i, ids[i]] for i in np.nonzero(mask)[0]]).sum())
    return torch.stack(sums)


def gradients(model: hf.PreTrainedModel, totals: Tensor) -> Tensor:
    """Give the gradient of a mixed sum of the totals over all weights, flattened."""
    mixed = (totals * torch.linspace(-2, 3, len(totals), dtype=totals.dtype)).sum()
    found = torch.autograd.grad(mixed, list(model.parameters()), allow_unused=True)
    return torch.cat([grad.flatten() for grad in found if grad is not None])


@pytest.mark.parametrize("name", PACKED)
def test_packed_scores_and_gradients_equal_unpadded_rows(name: str, groups: list[TokenGroup]) -> None:
    model = build(PACKED[name])
    truth = oracle(model, groups)
    expected = gradients(model, truth)
    scorer = Scorer(model, "packed")

    found = score(scorer, scorer.layout(groups))
    grads = gradients(model, found.total)

    assert ((found.total - truth).abs() / found.tokens).max() < NATS_PER_TOKEN
    assert (grads - expected).norm() / expected.norm() < RELATIVE_GRADIENT


@pytest.mark.parametrize("name", [*PACKED, *PADDED])
def test_padded_scores_equal_unpadded_rows(name: str, groups: list[TokenGroup]) -> None:
    model = build({**PACKED, **PADDED}[name])
    truth = oracle(model, groups)
    scorer = Scorer(model, "padded")

    found = score(scorer, scorer.layout(groups))

    assert ((found.total - truth).abs() / found.tokens).max() < NATS_PER_TOKEN


@pytest.mark.parametrize("name", PADDED)
def test_models_that_cannot_be_packed_take_padded_rows_and_say_so(
    name: str, groups: list[TokenGroup]
) -> None:
    scorer = Scorer(build(PADDED[name]))

    found = choose_path(scorer, groups, "auto", lambda: torch.autocast("cpu", enabled=False), is_fp32=True)

    assert found.path == scorer.path == "padded"
    assert "padded rows (slower), because" in found.reason


def test_exact_models_take_packed_rows(groups: list[TokenGroup]) -> None:
    scorer = Scorer(build(PACKED["gemma2, window 9, soft-caps"]))

    found = choose_path(scorer, groups, "auto", lambda: torch.autocast("cpu", enabled=False), is_fp32=True)

    assert found.path == scorer.path == "packed"
    assert found.difference < NATS_PER_TOKEN


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(
    "name", ["llama", "mistral, window 8", "gemma3, window 9", "gpt2, learned positions"]
)
def test_flex_attention_gives_the_loops_scores(name: str, groups: list[TokenGroup]) -> None:
    scorer = Scorer(build(PACKED[name]), "packed")
    with torch.no_grad():
        loop = score(scorer, scorer.layout(groups)).total
        scorer.kernel = "flex"
        flex = score(scorer, scorer.layout(groups)).total

    assert torch.allclose(loop, flex, atol=1e-4)


def varlen_2_13(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, *,
    scale: float | None = None, window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """Compute `varlen_attn` as its documentation has it, segment by segment: (T, H, D) in, packed by `cu`, causal at the lower right."""
    assert enable_gqa or q.shape[1] == k.shape[1], "torch 2.13 refuses grouped queries that it is not told of"
    assert window_size[1] == 0 and q.is_contiguous() and k.is_contiguous()
    out = []
    for (q0, q1), (k0, k1) in zip(
        torch.stack([cu_q[:-1], cu_q[1:]], 1).tolist(),
        torch.stack([cu_k[:-1], cu_k[1:]], 1).tolist(),
        strict=True,
    ):
        assert q1 - q0 <= max_q and k1 - k0 <= max_k
        back = torch.arange(k1 - k0 - (q1 - q0), k1 - k0)[:, None] - torch.arange(k1 - k0)
        mask = (back >= 0) & (back <= (window_size[0] if window_size[0] >= 0 else k1))
        segment = [each.transpose(0, 1)[None] for each in (q[q0:q1], k[k0:k1], v[k0:k1])]
        out.append(
            torch.nn.functional.scaled_dot_product_attention(*segment, mask, scale=scale, enable_gqa=True)[
                0
            ].transpose(0, 1)
        )
    return torch.cat(out)


def varlen_2_11(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, *,
    scale: float | None = None, window_size: tuple[int, int] = (-1, -1),
) -> Tensor:  # fmt: skip
    """Compute the same with the arguments of torch 2.11, which takes fewer key heads unasked."""
    return varlen_2_13(
        q, k, v, cu_q, cu_k, max_q, max_k, scale=scale, window_size=window_size, enable_gqa=True
    )


@pytest.mark.parametrize("interface", [varlen_2_11, varlen_2_13])
@pytest.mark.parametrize("name", ["llama", "mistral, window 8", "gpt2, learned positions"])
def test_varlen_attention_is_called_as_both_interfaces_want_it(
    monkeypatch: pytest.MonkeyPatch, name: str, interface: Callable[..., Tensor], groups: list[TokenGroup]
) -> None:
    """The kernel itself needs a GPU; here the arguments are checked, forward and gradient, against the loop."""
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", interface)
    monkeypatch.setattr("dpo_cli.modeling.attention._asks_for_gqa", _asks_for_gqa.__wrapped__)
    model = build(PACKED[name])
    scorer = Scorer(model, "packed")
    loop = score(scorer, scorer.layout(groups)).total
    expected = gradients(model, loop)

    scorer.kernel = "varlen"
    varlen = score(scorer, scorer.layout(groups)).total

    assert torch.allclose(loop, varlen, atol=1e-4)
    assert (gradients(model, varlen) - expected).norm() / expected.norm() < RELATIVE_GRADIENT


def test_the_installed_varlen_attention_takes_these_arguments() -> None:
    """On the meta device, which checks arguments and shapes and computes nothing."""
    scorer = Scorer(tiny_llama().to("meta"), "packed", "varlen")
    group = random_group(np.random.default_rng(0), 5, (3, 4))
    query, key = torch.empty(1, 4, 12, 8, device="meta"), torch.empty(1, 2, 12, 8, device="meta")
    row = scorer.layout([group])

    out, _ = packed_attention(
        scorer, query, key, key, None, 0.3, sliding_window=4, segments=row.segments, kernel="varlen"
    )

    assert out.shape == (1, 12, 4, 8)


def test_fault_084_a_score_does_not_depend_on_batch_mates(groups: list[TokenGroup]) -> None:
    scorer = Scorer(build(PACKED["llama"]), "packed")
    with torch.no_grad():
        together = score(scorer, scorer.layout(groups)).total
        alone = torch.cat([score(scorer, scorer.layout([group])).total for group in groups])

    assert torch.allclose(together, alone, atol=1e-5)


def test_per_token_scores_add_up_to_the_totals(groups: list[TokenGroup]) -> None:
    scorer = Scorer(build(PACKED["llama"]), "packed")
    with torch.no_grad():
        found = score(scorer, scorer.layout(groups), per_token=True)

    assert found.per_token is not None
    parts = found.per_token.split(found.tokens.tolist())
    assert torch.allclose(torch.stack([part.sum() for part in parts]), found.total, atol=1e-5)
    assert found.tokens.tolist() == [n for group in groups for n in group.scored]


def test_bf16_autocast_keeps_fp32_logits(groups: list[TokenGroup]) -> None:
    """With an exact backbone (hidden states given), autocast must not change the head's forward at all."""
    from dpo_cli.modeling.head import Head, token_log_probs

    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(9, 32), torch.randn(211, 32), torch.randint(211, (9,))
    plain = token_log_probs(hidden, Head(weight, None), targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = token_log_probs(hidden, Head(weight, None), targets)

    assert torch.equal(plain, mixed)


def test_head_gradients_equal_autograds_over_full_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    from dpo_cli.modeling import head

    monkeypatch.setattr(head, "chunk_logits", lambda _device: 211 * 4)  # several chunks
    torch.manual_seed(0)
    values = [torch.randn(10, 32), torch.randn(211, 32), torch.randn(211)]
    targets, weights = torch.randint(211, (10,)), torch.randn(10)
    fused_inputs = [value.clone().requires_grad_() for value in values]
    plain_inputs = [value.double().requires_grad_() for value in values]

    fused = head.token_log_probs(
        fused_inputs[0], head.Head(*fused_inputs[1:], scale=0.7, softcap=5.0), targets
    )
    logits = 5.0 * torch.tanh((plain_inputs[0] @ plain_inputs[1].T + plain_inputs[2]) * 0.7 / 5.0)
    plain = logits.log_softmax(1).gather(1, targets[:, None])[:, 0]
    got = torch.autograd.grad((fused * weights).sum(), fused_inputs)
    want = torch.autograd.grad((plain * weights.double()).sum(), plain_inputs)

    assert torch.allclose(fused.double(), plain, atol=1e-5)
    for mine, truth in zip(got, want, strict=True):
        assert torch.allclose(mine.double(), truth, atol=1e-5)


def test_the_key_of_a_completion_does_not_depend_on_where_its_shared_prompt_ends() -> None:
    ids = np.arange(3, 13, dtype=np.int32)
    mask = np.array([False, True, True, True, True])
    short = TokenGroup(ids[:5], (ids[5:],), (mask,))
    long = TokenGroup(ids[:6], (ids[6:],), (mask[1:],))
    other_mask = TokenGroup(ids[:5], (ids[5:],), (~mask,))

    assert short.keys == long.keys
    assert short.keys != other_mask.keys


def test_scorer_shares_the_prompt() -> None:
    scorer = Scorer(tiny_llama(), "packed")
    group = TokenGroup(
        *(np.arange(3, 53, dtype=np.int32),), (np.arange(5, dtype=np.int32),) * 2, (np.ones(5, bool),) * 2
    )

    assert scorer.layout([group]).n_computed == 60
    scorer.take("padded")
    assert scorer.layout([group]).n_computed == 110
