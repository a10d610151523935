"""The reference store on a real model and real pairs, killed ten times. Takes minutes: `make test-real`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.test_reference_store import assert_close, ended, kill_after_a_commit, start, stored

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "SmolLM2-135M-Instruct"
HH = ROOT.parent / "shared" / "data" / "hh_helpful_base_dev.jsonl"
PAIRS, KILLS = 520, 10
"""Rows asked for, of which some are dropped; processes killed."""


@pytest.mark.real
@pytest.mark.skipif(not MODEL.exists(), reason="needs `python scripts/quickstart_model.py`")
@pytest.mark.skipif(not HH.exists(), reason=f"needs {HH}")
def test_fault_028_ten_kills_cost_nothing_that_was_committed(tmp_path: Path) -> None:
    recipe = tmp_path / "hh.yaml"
    recipe.write_text(
        f"model: {{name: {MODEL}}}\n"
        f"data: {{train: [{{path: {HH}, limit: {PAIRS}}}], max_length: 192, long_prompt: cut_start, cache: {tmp_path}/tokens}}\n"
        "train: {precision: fp32}\n"
    )
    store = tmp_path / "store"
    rng = random.Random(0)
    committed: dict[str, tuple[float, int]] = {}
    for _ in range(KILLS):
        kill_after_a_commit(recipe, store, rng.uniform(0, 8))
        after = stored(store)
        assert committed.items() <= after.items(), "what was committed stays as it was"
        committed = after
    done, _ = ended(start(recipe, f"reference.store={store}"), n_starts=1000)
    truth, _ = ended(start(recipe, f"reference.store={tmp_path / 'truth'}"), n_starts=1000)

    values = stored(tmp_path / "truth")
    assert truth["computed"] == len(values)
    assert len(values) > 900
    assert 0 < len(committed) < len(values)
    assert (done["reused"], done["computed"]) == (len(committed), len(values) - len(committed))
    assert stored(store).keys() == values.keys()
    assert_close(stored(store), values)
