"""The load-balancing loss of a mixture of experts: transformers' own figure, whatever the layout of the rows."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from dpo_cli.errors import ModelError
from dpo_cli.modeling.router_loss import router_of
from dpo_cli.modeling.scorer import Scorer, score
from dpo_cli.train.loop import optimizer_step
from dpo_cli.types import TokenGroup
from tests.fakes import tiny_llama
from tests.train.small import small_run

COMMON: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "num_experts_per_tok": 2,
}
MIXTURES = {
    "mixtral": hf.MixtralConfig(**COMMON, num_local_experts=4),
    "qwen2-moe": hf.Qwen2MoeConfig(
        **COMMON, num_experts=4, moe_intermediate_size=16, shared_expert_intermediate_size=16
    ),
    "olmoe": hf.OlmoeConfig(**COMMON, num_experts=4),
}


def mixture(name: str) -> hf.PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = hf.AutoModelForCausalLM.from_config(copy.deepcopy(MIXTURES[name]))
        for key, weight in model.named_parameters():
            if "gate" in key or "router" in key:
                torch.nn.init.normal_(weight)  # far from even, so that the loss says something
    return model.float()


def groups() -> list[TokenGroup]:
    rng = np.random.default_rng(0)
    found = []
    for n_prompt, lengths in ((20, (7, 11)), (5, (9,)), (31, (3, 12, 6))):
        ids = [rng.integers(3, 300, length).astype(np.int32) for length in (n_prompt, *lengths)]
        masks = tuple(np.ones(length, dtype=bool) for length in lengths)
        found.append(TokenGroup(ids[0], tuple(ids[1:]), masks))
    return found


@pytest.mark.parametrize("name", MIXTURES)
def test_packed_and_padded_rows_give_transformers_own_loss_and_gradient(name: str) -> None:
    found, slopes = {}, {}
    for path in ("padded", "packed"):
        model = mixture(name)
        scorer = Scorer(model, path).train()
        scorer.router = router_of(model, None)
        router = score(scorer, scorer.layout(groups())).router
        assert router is not None
        router.backward()
        found[path] = router.item()
        slopes[path] = torch.cat([w.grad.flatten() for w in model.parameters() if w.grad is not None])
    row = Scorer(mixture(name), "padded").layout(groups())
    own = mixture(name).train()(
        input_ids=row.input_ids,
        attention_mask=row.attention_mask,
        use_cache=False,
        output_router_logits=True,
    )
    assert found["padded"] == pytest.approx(own.aux_loss.item(), abs=1e-6)
    assert found["packed"] == pytest.approx(own.aux_loss.item(), abs=1e-5)
    assert own.aux_loss.item() > 2.001, "routing is even: the test would pass with a constant"
    assert (slopes["packed"] - slopes["padded"]).norm() < 1e-4 * slopes["padded"].norm()


def test_the_coefficient_is_the_models_own_unless_the_recipe_states_one() -> None:
    model = mixture("mixtral")
    own = router_of(model, None)
    assert own is not None and own.coefficient == model.config.router_aux_loss_coef > 0
    stated = router_of(model, 0.5)
    assert stated is not None and stated.coefficient == 0.5
    assert router_of(model, 0.0) is None


def test_a_model_without_routers_has_none_and_refuses_a_coefficient() -> None:
    assert router_of(tiny_llama(), None) is None
    assert router_of(tiny_llama(), 0.0) is None
    with pytest.raises(ModelError, match=r"model\.router_loss: LlamaForCausalLM has no router loss"):
        router_of(tiny_llama(), 0.1)


def test_nothing_is_balanced_outside_training() -> None:
    model = mixture("mixtral")
    scorer = Scorer(model).eval()
    scorer.router = router_of(model, None)
    assert score(scorer, scorer.layout(groups())).router is None


def test_a_step_adds_the_loss_weighted_by_tokens_and_logs_it_plain(tmp_path: Path) -> None:
    def first(budget: int, coefficient: float) -> dict[str, float]:
        run, _ = small_run(
            tmp_path, f"model.router_loss={coefficient}", token_budget=budget, model=mixture("mixtral")
        )
        optimizer_step(run)
        return run.meter.reduce()

    bare, one, many = first(10_000, 0.0), first(10_000, 0.1), first(500, 0.1)

    assert "train/aux_loss" not in bare
    assert bare["train/loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert one["train/loss"] == pytest.approx(bare["train/loss"] + 0.1 * one["train/aux_loss"], abs=1e-5)
    assert many["train/loss"] == pytest.approx(bare["train/loss"] + 0.1 * many["train/aux_loss"], abs=1e-5)
    assert many["train/aux_loss"] == pytest.approx(one["train/aux_loss"], rel=0.02)
