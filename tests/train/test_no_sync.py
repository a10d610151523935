"""Between two log steps nothing waits for the device: shown on the meta device, whose values cannot be read, so without a GPU.

Does not see the fused optimizer, which has no meta kernel, nor what a CUDA library does inside; `scripts/gpu_check.py` does.
"""

from __future__ import annotations

import ast
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import dpo_cli
from dpo_cli.modeling.attention import Kernel
from dpo_cli.train.loop import optimizer_step
from tests.train.small import small_run

PACKAGE = Path(dpo_cli.__file__).parent
HOT = (
    "modeling",
    "methods",
    "train/loop.py",
    "train/nonfinite.py",
    "train/optim.py",
    "train/sliced_optimizer.py",
    "reference/cached.py",
)
"""Where the code of a step stands."""


class NoSync(TorchDispatchMode):
    """Refuses what makes the host wait for the device: reading a value, and a copy that blocks."""

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(func)
        assert "_local_scalar_dense" not in name and "nonzero" not in name, f"{name} reads a value"
        if name == "aten._to_copy.default" and "device" in kwargs and args[0].device != kwargs["device"]:
            assert kwargs.get("non_blocking"), f"a copy from {args[0].device} to {kwargs['device']} blocks"
        return func(*args, **kwargs)


@pytest.mark.parametrize("kernel", ["loop", "varlen"])
@pytest.mark.parametrize("method", ["dpo", "ipo", "kto", "orpo", "simpo", "plackett_luce", "sft"])
def test_a_step_reads_nothing_from_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, kernel: Kernel
) -> None:
    run, _ = small_run(tmp_path, f"method.name={method}", token_budget=300)
    run.scorer.to("meta")
    run.scorer.kernel = kernel
    run.runtime.device = torch.device("meta")
    monkeypatch.setattr(run.optimizer, "step", lambda: None)
    # Autocast does not know the meta device.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _kind: False)
    monkeypatch.setattr(torch, "autocast", lambda *_args, **_kwargs: nullcontext())

    with NoSync():
        optimizer_step(run)

    assert len(run.traces[0].bins) > 1


def test_no_tensor_is_made_from_python_values_on_a_device() -> None:
    """`torch.tensor(values, device=device)` waits for a GPU, and no dispatch mode sees it."""
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for hot in HOT
        for path in sorted((PACKAGE / hot).rglob("*.py") if not hot.endswith(".py") else [PACKAGE / hot])
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("tensor", "as_tensor")
        and any(keyword.arg == "device" for keyword in node.keywords)
    ]
    assert found == []
