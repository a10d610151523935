"""How well values tell two kinds apart, by their order alone."""

from __future__ import annotations

import numpy as np


def auc(up: np.ndarray, down: np.ndarray) -> float:
    """Return the share of (wanted, unwanted) couples in which the wanted one has the higher value, ties half.

    Args:
        up: values of the wanted, (n,), n >= 1.
        down: values of the unwanted, (m,), m >= 1.
    """
    ordered = np.sort(down)
    below = np.searchsorted(ordered, up, side="left") + np.searchsorted(ordered, up, side="right")
    return float(below.mean() / (2 * len(down)))
