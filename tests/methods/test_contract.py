"""What every file of `methods/` keeps, with every loss it has."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from dpo_cli import methods
from dpo_cli.methods._base import Method, mean_loss
from dpo_cli.recipe.describe import field_docs
from dpo_cli.types import DataKind, LogProbs, LossOutput
from tests.methods.cases import CONFIGS, IN_PARTS, part, random_pairs, with_gradient

METHODS = {name: methods.get(name) for name in methods.names()}
every_case = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def loss_of(policy: LogProbs, reference: LogProbs, config: Any) -> LossOutput:
    method = METHODS[config.name]
    return method.loss(policy, reference if method.needs_reference else None, config)


def share(out: LossOutput, whole: LogProbs) -> torch.Tensor:
    """Give a part's share of the loss, by the units of the whole."""
    units = {"example": len(whole.tokens) // 2, "token": int(whole.tokens[0::2].sum())}
    return torch.stack([term.weight * term.losses.sum() / units[term.unit] for term in out.terms]).sum()


@pytest.mark.parametrize("name", METHODS)
def test_the_file_declares_a_method_of_its_name(name: str) -> None:
    method, config = METHODS[name], METHODS[name].config()
    assert isinstance(method, Method)
    assert config.name == name
    assert method.data in get_args(DataKind)
    assert (method.reward is None) == (method.data in ("pairs", "rankings")), (
        "single completions are ranked by a reward"
    )
    assert "arXiv:" in method.paper
    assert method.problems(config) == []
    assert method.data != "pairs" or method.needs_reference == (method.at_reference is not None)


@pytest.mark.parametrize("name", METHODS)
def test_one_line_says_which_form_of_the_method_it_is(name: str) -> None:
    line = METHODS[name].form(METHODS[name].config())
    assert line.startswith(name)
    assert "\n" not in line
    assert 30 < len(line) < 120


@pytest.mark.parametrize("name", METHODS)
def test_every_field_says_what_it_means(name: str) -> None:
    config = METHODS[name].config
    docs = field_docs(config)
    for field in dataclasses.fields(config):
        assert len(docs[field.name]) >= 15, field.name


def test_methods_are_declared_without_torch() -> None:
    code = (
        "import sys\n"
        "from dpo_cli import methods\n"
        "[method.problems(method.config()) for method in map(methods.get, methods.names())]\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(methods.__file__).parents[2])


@every_case
def test_configs_of_the_cases_are_allowed(config: Any) -> None:
    assert METHODS[config.name].problems(config) == []


@every_case
def test_gradcheck(config: Any) -> None:
    policy, reference = random_pairs(4)

    def loss(total: torch.Tensor) -> torch.Tensor:
        return mean_loss(loss_of(LogProbs(total, policy.tokens), reference, config), policy)

    assert torch.autograd.gradcheck(loss, (policy.total.clone().requires_grad_(),))


@every_case
def test_loss_has_its_closed_form_where_policy_is_reference(config: Any) -> None:
    method, (_, values) = METHODS[config.name], random_pairs(5)
    closed_form = None if method.at_reference is None else method.at_reference(config)
    loss = mean_loss(loss_of(values, values, config), values).item()

    if closed_form is None:
        assert loss > 0
    else:
        assert loss == pytest.approx(closed_form, rel=1e-12)


@pytest.mark.parametrize("config", IN_PARTS.values(), ids=IN_PARTS)
def test_loss_is_invariant_to_micro_batching(config: Any) -> None:
    policy, reference = random_pairs(7)
    policy = with_gradient(policy)
    whole = share(loss_of(policy, reference, config), policy)
    cut = [(0, 3), (3, 4), (4, 7)]
    in_parts = torch.stack(
        [share(loss_of(part(policy, *ends), part(reference, *ends), config), policy) for ends in cut]
    ).sum()

    torch.testing.assert_close(in_parts, whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(in_parts, policy.total), torch.autograd.grad(whole, policy.total)
    )


@every_case
def test_the_order_of_the_pairs_changes_nothing(config: Any) -> None:
    policy, reference = random_pairs(6)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    rows = torch.stack([2 * order, 2 * order + 1], 1).flatten()
    shuffled = [LogProbs(values.total[rows], values.tokens[rows]) for values in (policy, reference)]

    torch.testing.assert_close(
        mean_loss(loss_of(shuffled[0], shuffled[1], config), policy),
        mean_loss(loss_of(policy, reference, config), policy),
    )


@every_case
def test_extreme_log_ratios_and_one_token_completions_stay_finite(config: Any) -> None:
    far, near, certain = -501.0, -1.0, 0.0
    policy = with_gradient(
        LogProbs(
            torch.tensor([far, near, near, far, certain, far, far, certain, certain, certain]),
            torch.tensor([1, 1, 1, 1, 1, 9, 9, 1, 1, 1]),
        )
    )
    reference = LogProbs(torch.tensor([near, far] * 2 + [far, near] * 3), policy.tokens)
    out = loss_of(policy, reference, config)
    (gradient,) = torch.autograd.grad(mean_loss(out, policy), policy.total)

    assert all(torch.isfinite(term.losses).all() for term in out.terms)
    assert torch.isfinite(gradient).all()
    assert all(torch.isfinite(values).all() for values in out.metrics.values())


@every_case
def test_losses_are_fp32_and_metrics_are_per_pair_without_gradient(config: Any) -> None:
    policy, reference = random_pairs(3, dtype=torch.float32)
    out = loss_of(with_gradient(policy), reference, config)

    assert [(term.losses.shape, term.losses.dtype) for term in out.terms] == [((3,), torch.float32)] * len(
        out.terms
    )
    assert all(values.shape == (3,) and not values.requires_grad for values in out.metrics.values())
    logps = set() if methods.get(config.name).trains_head else {"logps/chosen"}
    assert {"rewards/margins", "rewards/accuracies", "lengths/chosen", *logps} <= set(out.metrics)


UPHILL = {key: config for key, config in CONFIGS.items() if key != "dpo-discopop"}
"""Cases whose first step raises the margin; discopop's does not, see test_pairwise.py."""


@pytest.mark.parametrize("config", UPHILL.values(), ids=UPHILL)
def test_a_first_step_raises_the_margin(config: Any) -> None:
    _, reference = random_pairs(4)
    policy = with_gradient(reference)
    (gradient,) = torch.autograd.grad(mean_loss(loss_of(policy, reference, config), policy), policy.total)

    assert (gradient[0::2] < gradient[1::2]).all()
