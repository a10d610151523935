"""`dpo env`: what a bug report needs to say about this machine."""

from __future__ import annotations

import json
import os
import platform
from typing import Any

from dpo_cli import __version__
from dpo_cli.cli.arguments import JsonOption
from dpo_cli.packages import version_of

_PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "peft",
    "safetensors",
    "tokenizers",
    "omegaconf",
    "wandb",
)


def env(
    as_json: JsonOption = False,
) -> None:
    """Print versions, cores, memory, devices, the precision that `auto` takes and the cache folder, for a bug report."""
    facts = _facts()
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        print(f"{name:<16} {', '.join(map(str, value)) if isinstance(value, list) else value}")


def _facts() -> dict[str, Any]:
    import torch

    from dpo_cli.data.tokenize.token_cache import default_folder
    from dpo_cli.modeling.precision import choose_precision

    has_cuda = torch.cuda.is_available()
    device = torch.device("cuda" if has_cuda else "cpu")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if has_cuda else []
    return {
        "dpo-cli": __version__,
        "python": platform.python_version(),
        **{name: version_of(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "devices": names or ["cpu"],
        "precision": choose_precision("auto", device),
        "cache": str(default_folder()),
    }
