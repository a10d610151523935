"""One training step seen from the host: nothing waits for the device, and where the time goes."""

from __future__ import annotations

import torch
from torch.profiler import ProfilerActivity, profile

from dpo_cli.modeling.blocks import set_blocks
from dpo_cli.modeling.scorer import Scorer
from dpo_cli.train.loop import optimizer_step
from dpo_cli.train.state import Run
from scripts.gpu.context import Context
from scripts.gpu.runs import a_run
from scripts.gpu.shapes import random_llama, random_pairs

STEPS = 3
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")


def run(here: Context) -> None:
    """Run steps of a 135M shape with every synchronising call an error, then profile some."""
    model = random_llama("135M", here.tiny, here.device)
    groups = random_pairs(
        8 if here.tiny else 64, 64 if here.tiny else 512, 0.5, model.config.vocab_size, jitter=0.5
    )
    a = a_run(
        here.folder,
        Scorer(model),
        groups,
        batch_size=4 if here.tiny else 16,
        token_budget=128 if here.tiny else 32_768,
    )
    here.figure("precision", a.runtime.precision)
    for name, is_compiled in (("plain", False), ("compiled", True)) if here.is_cuda else (("plain", False),):
        set_blocks(model, is_compiled=is_compiled)
        _look(here, a, name)


def _look(here: Context, a: Run, name: str) -> None:
    _steps(a, 3)  # allocator, autotuning and compilation settle
    if here.is_cuda:
        check_waits(here, a, name)
    seconds = here.seconds_of(lambda: _steps(a, STEPS)) / STEPS
    here.figure(f"{name}: ms a step", round(1000 * seconds, 2))
    here.figure(f"{name}: micro-batches a step", len(a.traces[-1].bins))
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if here.is_cuda else [])]
    with profile(activities=activities) as seen:
        _steps(a, STEPS)
        here.synchronize()
    events = seen.key_averages()
    if not here.is_cuda:
        here.figure("sync check and kernels", "needs CUDA")
        top = sorted(events, key=lambda event: -event.self_cpu_time_total)[:10]
        here.figure(
            "longest operators, ms a step",
            {e.key: round(e.self_cpu_time_total / 1000 / STEPS, 3) for e in top},
        )
        return
    kernels = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    launches = sum(event.count for event in events if event.key in LAUNCHES)
    here.figure(f"{name}: kernel launches a step", round(launches / STEPS))
    busy = sum(event.self_device_time_total for event in kernels) / 1000 / STEPS
    here.figure(f"{name}: device busy, ms a step", round(busy, 2))
    host = sum(event.self_cpu_time_total for event in events) / 1000 / STEPS
    here.figure(f"{name}: host time, ms a step (profiled)", round(host, 2))
    top = sorted(kernels, key=lambda event: -event.self_device_time_total)[:10]
    here.figure(
        f"{name}: longest kernels, ms a step",
        {e.key[:90]: round(e.self_device_time_total / 1000 / STEPS, 3) for e in top},
    )


def _steps(a: Run, n: int) -> None:
    for _ in range(n):
        optimizer_step(a)
        a.step += 1


def check_waits(here: Context, a: Run, name: str) -> None:
    """Fail on the first call that waits for the device; the traceback names it."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        _steps(a, 2)
        here.check(f"{name}: steps that wait for the device", 0.0, 0.0)
    except RuntimeError as error:
        here.check(f"{name}: steps that wait for the device", 1.0, 0.0)
        import traceback

        here.figure(f"{name}: where it waits", "".join(traceback.format_exception(error)[-6:])[-1500:])
    finally:
        torch.cuda.set_sync_debug_mode("default")
