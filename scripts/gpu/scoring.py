"""Log-probs without gradient, as the reference pass and every evaluation compute them: pairs/s."""

from __future__ import annotations

from dpo_cli.engine.batching import score_groups
from dpo_cli.engine.runtime import Runtime
from dpo_cli.modeling.scorer import Scorer
from scripts.gpu.context import Context
from scripts.gpu.shapes import random_llama, random_pairs


def run(here: Context) -> None:
    """Score pairs with two shapes."""
    runtime = Runtime("auto")
    for name, n in (("135M", 256), ("1B", 64)):
        _score(here, runtime, name, n)


def _score(here: Context, runtime: Runtime, name: str, n: int) -> None:
    model = random_llama(name, here.tiny, here.device)
    scorer = Scorer(model)
    n_row, pairs = (64, 8) if here.tiny else (1024, n)
    groups = random_pairs(pairs, n_row, 0.5, model.config.vocab_size, jitter=0.5)
    score_groups(scorer, groups[: pairs // 4], 16_384, runtime.autocast)
    here.reset_peak()
    seconds = here.seconds_of(lambda: score_groups(scorer, groups, 16_384, runtime.autocast))
    here.figure(f"{name}: pairs/s", round(pairs / seconds, 1))
    if here.is_cuda:
        here.figure(f"{name}: peak GiB", here.peak_gib())
