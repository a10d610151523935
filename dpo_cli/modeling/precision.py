"""Which arithmetic a device is good at, and how many tokens fit in its memory at once."""

from __future__ import annotations

import os

import torch
from transformers import PreTrainedModel

from dpo_cli.errors import Problem
from dpo_cli.modeling.memory import free_ram
from dpo_cli.recipe.schema import Recipe

_CPU_TOKENS = 2048
"""On 2 CPU cores a 135M model ran 4% slower with 1,024 tokens at once, 12% slower with 512, for 0.5 and 0.8 GiB less."""
_MAX_TOKENS = 32_768
_BUSY_TOKENS = 4096
"""Tokens at once below which a GPU's matrix products are too small to keep it busy."""


def choose_precision(wanted: str, device: torch.device) -> str:
    """Give `fp32` or `bf16`; `auto` takes bf16 where the hardware multiplies it: CUDA from Ampere on, CPUs with avx512_bf16 or amx."""
    if wanted != "auto":
        return wanted
    return "bf16" if has_bf16(device) else "fp32"


def bf16_problems(recipe: Recipe) -> list[Problem]:
    """List the keys that ask for bf16 on a machine that would only emulate it, slower than fp32; `auto` asks for nothing."""
    asked = {"train.precision": recipe.train.precision, "reference.precision": recipe.reference.precision}
    device = _device_here()
    if device.type not in ("cpu", "cuda") or has_bf16(device):
        return []
    what = "is bf16, which this machine's {} does not multiply".format(
        {"cpu": "CPU", "cuda": "GPU"}[device.type]
    )
    return [
        Problem(key, f"'{key}' {what}", f"{key}: auto") for key, value in asked.items() if value == "bf16"
    ]


def compile_problems(recipe: Recipe) -> list[Problem]:
    """Return the problem of a recipe that asks for compiled blocks where there is no CUDA GPU."""
    if recipe.train.compile != "blocks" or _device_here().type == "cuda":
        return []
    what = "'train.compile' is 'blocks', which needs a CUDA GPU, and there is none"
    return [Problem("train.compile", what, "train.compile: auto")]


def _device_here() -> torch.device:
    """Give the device that a run takes here: the accelerator, unless accelerate is told to stay on the CPU."""
    cpu = torch.device("cpu")
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "t", "yes", "y", "on"):
        return cpu
    return torch.accelerator.current_accelerator(check_available=True) or cpu


def has_bf16(device: torch.device) -> bool:
    """Say whether the device multiplies bf16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def token_budget(
    model: PreTrainedModel, device: torch.device, precision: str, *, is_checkpointed: bool = False
) -> int:
    """Estimate how many tokens to compute at once, from the model's sizes and the memory that is free.

    A layer keeps about 10 hidden-sized and 4 MLP-sized values a token for backward (counted in Llama's layer; a 1B shape on an H200
    kept 15% less), with activation checkpointing its fp32 input alone and one layer's all; weights, gradients and two fp32 moments
    are paid before.
    """
    fitting = _fitting_tokens(model, device, precision, is_checkpointed)
    return max(256, min(fitting, _CPU_TOKENS if device.type == "cpu" else _MAX_TOKENS))


def choose_checkpointing(
    wanted: str, model: PreTrainedModel, device: torch.device, precision: str, budget: str | int
) -> tuple[bool, str]:
    """Choose whether blocks are computed again in backward, and say why, or nothing where it is the usual.

    Args:
        wanted: as `train.checkpoint_activations`.
        model: on its device.
        device: of the run.
        precision: `fp32` or `bf16`.
        budget: as `train.max_tokens_per_micro_batch`.
    """
    if wanted != "auto":
        return wanted == "full", "activations checkpointed, as asked" if wanted == "full" else ""
    fitting = _fitting_tokens(model, device, precision, is_checkpointed=False)
    needed = _BUSY_TOKENS if budget == "auto" else int(budget)
    if device.type != "cuda" or fitting >= needed:
        return False, ""
    return True, f"activations checkpointed, because {max(0, fitting):,} tokens would fit at once without"


def _fitting_tokens(
    model: PreTrainedModel, device: torch.device, precision: str, is_checkpointed: bool
) -> int:
    config = model.config.get_text_config()
    hidden, layers = config.hidden_size, config.num_hidden_layers
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    of_layer = (10 * hidden + 4 * inner) * (4 if precision == "fp32" else 3)
    bytes_per_token = layers * 4 * hidden + of_layer if is_checkpointed else layers * of_layer
    n_trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    free = free_bytes(device) - n_trained * 12
    return int(0.6 * free / bytes_per_token)


def free_bytes(device: torch.device) -> int:
    """Give the bytes of memory that are free where the device computes: its own, or the machine's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_ram()
