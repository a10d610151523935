"""Which arithmetic a device is good at, and how many tokens fit in its memory at once."""

from __future__ import annotations

import os

import torch
from transformers import PreTrainedModel

from dpo_cli.errors import Problem
from dpo_cli.methods._memory import moment_bytes_of
from dpo_cli.modeling.head import chunk_logits
from dpo_cli.modeling.sizes.footprint import (
    CPU_TOKENS,
    MAX_TOKENS,
    Setup,
    fitting_tokens,
    needs_checkpointing,
    terms,
)
from dpo_cli.modeling.sizes.memory import free_ram
from dpo_cli.modeling.sizes.shape import shape_by
from dpo_cli.recipe.schema import Recipe, Train

_CPU_ROOM = 0.6
"""Of a CPU's free memory that a step may take beside weights and moments: the system's allocator keeps much of what was freed."""


def choose_precision(wanted: str, device: torch.device) -> str:
    """Return `fp32` or `bf16`; `auto` takes bf16 where the hardware multiplies it: CUDA from Ampere on, CPUs with avx512_bf16 or amx."""
    if wanted != "auto":
        return wanted
    return "bf16" if has_bf16(device) else "fp32"


def bf16_problems(recipe: Recipe) -> list[Problem]:
    """List the keys that ask for bf16 on a machine that would only emulate it, slower than fp32; `auto` asks for nothing."""
    asked = {
        "train.precision": (recipe.train.precision, "auto"),
        "train.weights": (recipe.train.weights, "fp32"),
        "reference.precision": (recipe.reference.precision, "auto"),
    }
    device = _device_here()
    if device.type not in ("cpu", "cuda") or has_bf16(device):
        return []
    what = "is bf16, which this machine's {} does not multiply".format(
        {"cpu": "CPU", "cuda": "GPU"}[device.type]
    )
    return [
        Problem(key, f"'{key}' {what}", f"{key}: {instead}")
        for key, (value, instead) in asked.items()
        if value == "bf16"
    ]


def cuda_problems(recipe: Recipe) -> list[Problem]:
    """Return the problems of a recipe that asks for compiled blocks, or inputs kept on the host, where there is no CUDA GPU."""
    if _device_here().type == "cuda":
        return []
    asked = [
        ("train.compile", recipe.train.compile, "blocks"),
        ("train.checkpoint_activations", recipe.train.checkpoint_activations, "offload"),
    ]
    return [
        Problem(key, f"'{key}' is '{value}', which needs a CUDA GPU, and there is none", f"{key}: auto")
        for key, value, needing in asked
        if value == needing
    ]


def _device_here() -> torch.device:
    """Return the device that a run takes here: the accelerator, unless ACCELERATE_USE_CPU says to stay on the CPU."""
    cpu = torch.device("cpu")
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "t", "yes", "y", "on"):
        return cpu
    return torch.accelerator.current_accelerator(check_available=True) or cpu


def has_bf16(device: torch.device) -> bool:
    """Return whether the device multiplies bf16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def token_budget(
    model: PreTrainedModel,
    device: torch.device,
    precision: str,
    *,
    optimizer: str = "adamw",
    is_compiled: bool = False,
    is_checkpointed: bool = False,
    is_offloaded: bool = False,
) -> int:
    """Estimate how many tokens to compute at once, from the model's sizes and the memory that is free (`footprint`).

    Args:
        model: on its device.
        device: of the run.
        precision: `fp32` or `bf16`.
        optimizer: as `optim.name`.
        is_compiled: whether blocks are.
        is_checkpointed: whether their activations are.
        is_offloaded: whether their inputs are in host memory.
    """
    kind = {"is_compiled": is_compiled, "is_checkpointed": is_checkpointed, "is_offloaded": is_offloaded}
    fitting = _fitting_tokens(model, device, precision, optimizer, **kind)
    return max(256, min(fitting, CPU_TOKENS if device.type == "cpu" else MAX_TOKENS))


def choose_checkpointing(
    train: Train,
    model: PreTrainedModel,
    device: torch.device,
    precision: str,
    *,
    optimizer: str = "adamw",
    is_compiled: bool = False,
) -> tuple[bool, str]:
    """Choose whether blocks are computed again in backward, and say why, or nothing where it is the usual.

    Args:
        train: the recipe's `checkpoint_activations` and `max_tokens_per_micro_batch`.
        model: on its device.
        device: of the run.
        precision: `fp32` or `bf16`.
        optimizer: as `optim.name`.
        is_compiled: whether the blocks are.
    """
    wanted = train.checkpoint_activations
    if wanted != "auto":
        said = {
            "full": "activations checkpointed, as asked",
            "offload": "activations checkpointed, the blocks' inputs in host memory, as asked",
        }
        return wanted in said, said.get(wanted, "")
    if device.type != "cuda":
        return False, ""
    fitting = _fitting_tokens(model, device, precision, optimizer, is_compiled=is_compiled)
    if not needs_checkpointing(fitting, train.max_tokens_per_micro_batch):
        return False, ""
    return True, f"activations checkpointed, because {fitting:,} tokens would fit at once without"


def _fitting_tokens(
    model: PreTrainedModel, device: torch.device, precision: str, optimizer: str, **blocks: bool
) -> int:
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    weight_bytes = 2 if any(weight.dtype == torch.bfloat16 for weight in trained) else 4
    ranks = [min(weight.shape) for name, weight in model.named_parameters() if "lora_A" in name]
    setup = Setup(
        precision,
        weight_bytes=weight_bytes,
        moment_bytes=moment_bytes_of(optimizer, weight_bytes),
        adapter_rank=max(ranks, default=None),
        is_quantized=model.config.to_dict().get("quantization_config") is not None,
        chunk_logits=chunk_logits(device),
        **blocks,
    )
    shape = shape_by(model.config.get_text_config().to_dict(), model.num_parameters())
    n_trained = sum(weight.numel() for weight in trained)
    room = free_bytes(device) - int((weight_bytes + setup.moment_bytes) * n_trained)
    if device.type == "cpu":
        room = int(_CPU_ROOM * room)
    # The weights are loaded, and what an adapter trains is counted, not computed: the rest is for the other terms.
    return fitting_tokens(shape, setup, room + terms(shape, setup, 0).state, with_overhead=False)


def free_bytes(device: torch.device) -> int:
    """Return the bytes of memory that are free where the device computes: its own, or the machine's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_ram()
