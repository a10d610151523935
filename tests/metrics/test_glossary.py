"""Every name that a run logs is explained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from dpo_cli import methods
from dpo_cli.metrics.glossary import explain, facts, metrics
from dpo_cli.metrics.sinks.jsonl import FILE_NAME
from dpo_cli.recipe.load import load
from dpo_cli.train.run import train
from tests.methods.cases import random_pairs
from tests.train.tiny_recipe import write_recipe

OWN = {"step", "time", "attempt"}
"""Of a line, not of the run."""


def logged(folder: Path, *overrides: str) -> set[str]:
    """Train and give the names in `metrics.jsonl`."""
    settings = [
        "train.max_steps=4",
        "train.eval_every=2",
        "train.save_every=0",
        f"train.output_dir={folder}/runs",
    ]
    train(load(str(write_recipe(folder)), [*settings, *overrides]), "dpo train tiny.yaml")
    (path,) = folder.glob(f"runs/*/{FILE_NAME}")
    return {name for line in path.read_text().splitlines() for name in json.loads(line)} - OWN


def test_every_name_that_a_run_logs_is_explained(tmp_path: Path) -> None:
    names = logged(tmp_path)

    assert {"train/rewards/margins", "eval/axis/p_chosen", "perf/tokens_per_sec"} <= names
    assert [name for name in sorted(names) if explain(name) is None] == []


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in methods.names() if name != "dpo"])
def test_every_name_of_every_method_is_explained(method: str, tmp_path: Path) -> None:
    assert [name for name in sorted(logged(tmp_path, f"method.name={method}")) if explain(name) is None] == []


@pytest.mark.parametrize("method", methods.names())
def test_every_name_that_a_loss_reports_is_explained(method: str) -> None:
    declared = methods.get(method)
    policy, reference = random_pairs(4)
    labelled = dataclasses.replace(policy, labels=torch.arange(8) % 2 == 0)
    scored, drift = (labelled, [torch.tensor(0.1)]) if declared.prepare else (policy, [])
    out = declared.loss(scored, reference, declared.config(), *drift)

    assert {*out.metrics, *out.ranked} and {*out.metrics, *out.ranked} <= set(metrics())


def test_each_name_has_a_paragraph_a_unit_a_range_and_what_is_good() -> None:
    for name, metric in metrics().items():
        assert all(vars(metric).values()), name
        assert metric.text.endswith("."), name
    assert facts("train/loss") is not None and facts("no/such") is None and explain("no/such") is None
