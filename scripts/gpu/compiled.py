"""`dpo train` with compiled, checkpointed blocks, whole, killed and resumed: compiling again gives the same weights, or by how much they differ."""

from __future__ import annotations

from scripts.gpu.context import Context
from scripts.gpu.training import train_and_resume


def run(here: Context) -> None:
    """Train as the part `training` does."""
    here.need_cuda()
    train_and_resume(here, "train.compile=blocks", "train.checkpoint_activations=full")
