"""Where a step's time on the device goes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from scripts.gpu.context import Context


def longest_kernels(here: Context, work: Callable[[], object], n: int = 12) -> dict[str, float]:
    """Return the milliseconds of the kernels that take longest in some work on a GPU, and of all together, by name."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        work()
        here.synchronize()
    events = [each for each in seen.key_averages() if each.device_type == torch.autograd.DeviceType.CUDA]
    events.sort(key=lambda event: -event.self_device_time_total)
    found = {event.key[:90]: round(event.self_device_time_total / 1000, 3) for event in events[:n]}
    return {"all": round(sum(each.self_device_time_total for each in events) / 1000, 1), **found}
