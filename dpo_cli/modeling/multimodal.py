"""Checkpoints with other towers beside the language model: text alone is trained, the rest stays bit for bit and is saved again."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel

from dpo_cli.modeling.model_folder import has_other_towers

_PROCESSOR = ("*processor*.json", "chat_template.json")
"""Files beside the weights that say how images become inputs."""


def text_tower(model: PreTrainedModel) -> nn.Module:
    """Return the part of a model that turns token ids into hidden states: its backbone, without what reads images."""
    tower: nn.Module = model.get_decoder() if has_other_towers(model.config) else model.base_model
    return tower


def freeze_towers(model: PreTrainedModel) -> None:
    """Freeze everything but the language model and its head; nothing in a model that has only those."""
    if not has_other_towers(model.config):
        return
    kept = [text_tower(model), model.get_output_embeddings()]
    trained = {id(weight) for part in kept if isinstance(part, nn.Module) for weight in part.parameters()}
    for weight in model.parameters():
        weight.requires_grad_(id(weight) in trained)


def tower_linears(model: PreTrainedModel, targets: str | list[str]) -> str | list[str]:
    """Return an adapter's targets; in a model with other towers the full names of those in the language model, so that no other layer fits."""
    if not has_other_towers(model.config):
        return targets
    tower = text_tower(model)
    (prefix,) = (name for name, module in model.named_modules() if module is tower)
    names = [f"{prefix}.{name}" for name, module in tower.named_modules() if isinstance(module, nn.Linear)]
    return [name for name in names if targets == "all-linear" or name.rpartition(".")[2] in targets]


def copy_processor(source: Path, target: Path) -> None:
    """Copy the files by which images become inputs beside saved weights; none where there are none."""
    for pattern in _PROCESSOR:
        for file in source.glob(pattern):
            shutil.copyfile(file, target / file.name)
