"""Cached = live: the same run, the reference on disk or beside the policy."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from dpo_cli.modeling.scorer import Scorer
from dpo_cli.reference.live import LiveReference
from dpo_cli.train.fit import fit
from tests.fakes import tiny_llama
from tests.train.small import small_run


@pytest.mark.parametrize("path", ["packed", "padded"])
def test_a_live_reference_logs_the_same_losses(tmp_path: Path, path: str) -> None:
    cached, cached_log = small_run(tmp_path / "cached", path=path)
    live, live_log = small_run(tmp_path / "live", path=path)
    live.reference = LiveReference(
        Scorer(tiny_llama(), "packed" if path == "packed" else "padded"), nullcontext
    )
    for run in (cached, live):
        fit(run)

    assert len(cached_log.losses) == 12
    assert live_log.losses == pytest.approx(cached_log.losses, abs=1e-6)
    assert min(cached_log.losses) < 0.6
