"""SFT's loss against transformers' own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dpo_cli.methods.sft import METHOD, SFTConfig, sft_loss, sft_reward
from dpo_cli.train.loop import count_units, normalised, optimizer_step
from dpo_cli.types import DataNeeds, LogProbs
from tests.fakes import tiny_llama
from tests.train.small import small_run


def test_loss_is_the_mean_over_all_tokens_not_over_rows() -> None:
    policy = LogProbs(torch.tensor([-2.0, -30.0]), torch.tensor([1, 9]))
    out = sft_loss(policy, None, SFTConfig())

    assert normalised(out, {"example": 2, "token": 10}).item() == pytest.approx(3.2)
    assert sft_reward(policy, None, SFTConfig()).tolist() == pytest.approx([-2.0, -30 / 9])


def test_turns_decide_what_the_data_score() -> None:
    assert METHOD.needs(SFTConfig()) == DataNeeds("targets")
    assert METHOD.needs(SFTConfig(turns="last")) == DataNeeds("targets", last_turn=True)


def test_a_step_has_the_loss_that_transformers_gives(tmp_path: Path) -> None:
    run, log = small_run(tmp_path, "method.name=sft", "train.batch_size=24", token_budget=150)
    width = max(len(g.prompt) + len(g.completions[0]) for g in run.groups)
    ids, labels = torch.zeros(24, width, dtype=torch.long), torch.full((24, width), -100)
    for row, group in enumerate(run.groups):
        whole = torch.tensor([*group.prompt.tolist(), *group.completions[0].tolist()])
        ids[row, : len(whole)] = whole
        labels[row, len(group.prompt) : len(whole)] = whole[len(group.prompt) :]
    expected = tiny_llama()(input_ids=ids, labels=labels).loss.item()
    optimizer_step(run)
    log.after_step(run)

    assert count_units(run.groups)["token"] == int((labels != -100).sum())
    assert log.losses[0] == pytest.approx(expected, abs=1e-5)
