"""Running means that stay on the device until they are asked for: no host sync between two log steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, device, dtype


class Meter:
    """Open sums and counts of named values since the last `reduce`."""

    def __init__(self) -> None:
        """Start with nothing counted."""
        self._open: dict[str, Tensor] = {}
        """Name -> (2,) float64 on the device: sum, count."""

    def add(self, values: Mapping[str, Tensor], weight: float = 1.0) -> None:
        """Count every value of each (B,) tensor `weight` times; 0 (a filler) counts nothing, and a nan says that there is no value."""
        import torch

        if not values:
            return
        table = torch.stack(
            [value.detach() for value in values.values()]
        )  # (M, B): a few kernels, not a few per name
        table = table.to(_sum_dtype(table.device))
        if not weight:
            table = torch.full_like(table, torch.nan)  # 0 * inf is nan
        counts = (~table.isnan()).sum(1)
        sums = torch.stack([table.nansum(1), counts.to(table)], dim=1) * weight
        for name, pair in zip(values, sums.unbind(), strict=True):
            self._add(name, pair)

    def add_sum(self, name: str, total: Tensor, count: Tensor | float) -> None:
        """Count a sum, 0-d, over `count` units."""
        import torch

        total = total.detach().to(_sum_dtype(total.device))
        units = count.detach().to(total) if isinstance(count, torch.Tensor) else torch.full_like(total, count)
        self._add(name, torch.stack([total, units]))

    def reduce(self, all_reduce: Callable[[Tensor], Tensor] | None = None) -> dict[str, float]:
        """Give each name's mean over all that was added on all ranks and start anew: one collective and sync.

        Args:
            all_reduce: sums an (M, 2) tensor over ranks, which all hold the same M names; None: one process.

        Returns:
            Name -> mean; a name that counted nothing is left out.
        """
        import torch

        if not self._open:
            return {}
        names = sorted(self._open)
        sums = torch.stack([self._open[name] for name in names])
        self._open = {}
        rows = (all_reduce(sums) if all_reduce else sums).tolist()
        return {name: total / count for name, (total, count) in zip(names, rows, strict=True) if count}

    def state(self) -> dict[str, list[float]]:
        """Give this process's open sums for a checkpoint: name -> [sum, count], exact in JSON; one sync."""
        import torch

        if not self._open:
            return {}
        return dict(zip(self._open, torch.stack(list(self._open.values())).tolist(), strict=True))

    def load_state(self, state: Mapping[str, list[float]], device: device | str = "cpu") -> None:
        """Go on from what `state` gave."""
        import torch

        target = torch.device(device)
        self._open = {
            name: torch.tensor(pair, dtype=_sum_dtype(target), device=target) for name, pair in state.items()
        }

    def _add(self, name: str, pair: Tensor) -> None:
        self._open[name] = self._open[name] + pair if name in self._open else pair


def _sum_dtype(device: device) -> dtype:
    import torch

    return torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64
