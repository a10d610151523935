"""Running means and ranks that stay on the device until they are asked for: no host sync between two log steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dpo_cli.metrics.rank import auc

if TYPE_CHECKING:
    from torch import Tensor, device, dtype


class Meter:
    """Open sums and counts of named values since the last `reduce`, and what is ranked as it came."""

    def __init__(self) -> None:
        """Start with nothing counted."""
        self._open: dict[str, Tensor] = {}
        """Name -> (2,) float64 on the device: sum, count."""
        self._ranked: dict[str, list[Tensor]] = {}
        """Name -> (2, B) on the device: values, and 1 where they are wanted. As many as the window's examples: a rank has no sum."""

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

    def add_ranked(self, values: Mapping[str, tuple[Tensor, Tensor]], weight: float = 1.0) -> None:
        """Keep values, (B,), and which are wanted, (B,) bool; a filler (weight 0) keeps its name and counts nothing."""
        import torch

        for name, (value, wanted) in values.items():
            value = value.detach()
            kept = torch.stack([value, wanted.to(value)])
            self._ranked.setdefault(name, []).append(kept if weight else kept[:, :0])

    def reduce(
        self,
        all_reduce: Callable[[Tensor], Tensor] | None = None,
        gather: Callable[[list[Any]], list[Any]] | None = None,
    ) -> dict[str, float]:
        """Return each name's mean, or AUC, over all that was added on all ranks and start anew.

        One collective and sync for all means, and one more where something is ranked.

        Args:
            all_reduce: sums an (M, 2) tensor over ranks, which all hold the same M names; None: one process.
            gather: joins the lists of all ranks; None: one process.

        Returns:
            Name -> mean or AUC; a mean that counted nothing and an AUC of one kind alone are left out.
        """
        ranked, self._ranked = self._tables(), {}
        tables = gather([ranked]) if gather and ranked else [ranked]
        return self._means(all_reduce) | {
            name: value
            for name in ranked
            if (value := _auc(np.concatenate([table[name] for table in tables], axis=1))) is not None
        }

    def _means(self, all_reduce: Callable[[Tensor], Tensor] | None) -> dict[str, float]:
        import torch

        if not self._open:
            return {}
        names = sorted(self._open)
        sums = torch.stack([self._open[name] for name in names])
        self._open = {}
        rows = (all_reduce(sums) if all_reduce else sums).tolist()
        return {name: total / count for name, (total, count) in zip(names, rows, strict=True) if count}

    def _tables(self) -> dict[str, np.ndarray]:
        """Return what this process holds to be ranked: name -> (2, n)."""
        import torch

        return {name: torch.cat(parts, dim=1).cpu().numpy() for name, parts in self._ranked.items()}

    def state(self) -> dict[str, dict[str, Any]]:
        """Return this process's open window for a checkpoint, exact in JSON: `sums` (name -> [sum, count]) and `ranked`."""
        import torch

        if not self._open and not self._ranked:
            return {}
        sums = torch.stack(list(self._open.values())).tolist() if self._open else []
        ranked = {name: table.tolist() for name, table in self._tables().items()}
        return {"sums": dict(zip(self._open, sums, strict=True)), "ranked": ranked}

    def load_state(self, state: Mapping[str, Mapping[str, Any]], device: device | str = "cpu") -> None:
        """Go on from what `state` gave."""
        import torch

        target = torch.device(device)
        self._open = {
            name: torch.tensor(pair, dtype=_sum_dtype(target), device=target)
            for name, pair in state.get("sums", {}).items()
        }
        self._ranked = {
            name: [torch.tensor(table, dtype=torch.float32, device=target)]
            for name, table in state.get("ranked", {}).items()
        }

    def _add(self, name: str, pair: Tensor) -> None:
        self._open[name] = self._open[name] + pair if name in self._open else pair


def _auc(table: np.ndarray) -> float | None:
    """Return the AUC of (2, n) values and labels, without values that are nan; None where one kind is missing."""
    values, wanted = table[:, ~np.isnan(table[0])]
    up, down = values[wanted == 1], values[wanted == 0]
    return auc(up, down) if len(up) and len(down) else None


def _sum_dtype(device: device) -> dtype:
    import torch

    return torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64
