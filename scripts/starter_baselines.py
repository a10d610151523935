"""Print what needs no language model on the starter preference set, to set beside any accuracy measured on it.

Two length rules ("the longer answer wins", "the shorter answer wins") and two logistic regressions on the word and
word-pair counts of chosen minus rejected, fitted on train.jsonl and read on heldout.jsonl. They see the answers and
never the prompt. Does not load a model.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import expit

DEFAULT_DIR = Path(__file__).resolve().parents[1] / "recipes" / "starter"
L2_STRENGTH = 1.0
"""Weight of the squared norm beside the summed log loss, in pairs; 1.0 is scikit-learn's default as well."""
MIN_PAIRS = 2
"""A word or word pair is a feature when at least this many training pairs hold it."""

Row = dict[str, str]


def read_rows(path: Path) -> list[Row]:
    """Give the rows of a JSON lines file, in order."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def words(text: str) -> list[str]:
    """Give the lower-case words and numbers of a text, apostrophes kept."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower())


def words_and_pairs(text: str) -> list[str]:
    """Give the words and the neighbouring word pairs of a text, its two ends marked."""
    found = words(text)
    ends = ["<start>", *found, "<end>"]
    return found + [f"{left} {right}" for left, right in pairwise(ends)]


def length_shares(rows: Sequence[Row], length: Callable[[str], int]) -> tuple[float, float]:
    """Give the shares of rows in which the chosen answer is longer, and shorter; ties are in neither."""
    differences = [length(row["chosen"]) - length(row["rejected"]) for row in rows]
    return sum(d > 0 for d in differences) / len(rows), sum(d < 0 for d in differences) / len(rows)


def vocabulary(rows: Sequence[Row], split: Callable[[str], list[str]]) -> dict[str, int]:
    """Give the column of each feature found in enough training pairs."""
    n_pairs = Counter(feature for row in rows for feature in {*split(row["chosen"]), *split(row["rejected"])})
    return {feature: i for i, feature in enumerate(sorted(f for f, n in n_pairs.items() if n >= MIN_PAIRS))}


def differences_matrix(
    rows: Sequence[Row], split: Callable[[str], list[str]], columns: dict[str, int]
) -> sparse.csr_matrix:
    """Give the counts of chosen minus rejected, (rows, features)."""
    matrix = sparse.lil_matrix((len(rows), len(columns)))
    for i, row in enumerate(rows):
        counts = Counter(split(row["chosen"]))
        counts.subtract(split(row["rejected"]))
        for feature, count in counts.items():
            if feature in columns and count:
                matrix[i, columns[feature]] = count
    return matrix.tocsr()


def fit_weights(features: sparse.csr_matrix) -> np.ndarray:
    """Give the weights that minimise sum(log(1 + exp(-x.w))) + L2/2 |w|^2, each row being chosen minus rejected.

    There is no intercept: swapping the two answers of a pair must swap the prediction.
    """

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margins = features @ weights
        loss = np.logaddexp(0.0, -margins).sum() + 0.5 * L2_STRENGTH * weights @ weights
        return float(loss), -(features.T @ expit(-margins)) + L2_STRENGTH * weights

    start = np.zeros(features.shape[1])
    return np.asarray(minimize(objective, start, jac=True, method="L-BFGS-B").x)


def accuracy(features: sparse.csr_matrix, weights: np.ndarray) -> float:
    """Give the share of rows with a positive margin, a margin of zero counting half."""
    margins = features @ weights
    return float(np.mean((margins > 0) + 0.5 * (margins == 0)))


def classifier_line(
    name: str, train: Sequence[Row], heldout: Sequence[Row], split: Callable[[str], list[str]]
) -> str:
    """Give one line with the accuracies of the classifier on words split by `split`."""
    columns = vocabulary(train, split)
    train_features = differences_matrix(train, split, columns)
    weights = fit_weights(train_features)
    heldout_accuracy = accuracy(differences_matrix(heldout, split, columns), weights)
    error = math.sqrt(heldout_accuracy * (1 - heldout_accuracy) / len(heldout))
    return (
        f"{name:<18} heldout {heldout_accuracy:.3f} +- {error:.3f} (n {len(heldout)})   "
        f"train {accuracy(train_features, weights):.3f} (n {len(train)})   features {len(columns)}"
    )


def length_line(name: str, rows: Sequence[Row], unit: str, length: Callable[[str], int]) -> str:
    """Give one line with the two length shares of a split."""
    longer, shorter = length_shares(rows, length)
    return f"{name:<18} longer wins {longer:.3f}   shorter wins {shorter:.3f}   by {unit} (n {len(rows)})"


def main() -> int:
    """Run the command line and give the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "train", type=Path, nargs="?", default=DEFAULT_DIR / "train.jsonl", help="training pairs"
    )
    parser.add_argument(
        "heldout", type=Path, nargs="?", default=DEFAULT_DIR / "heldout.jsonl", help="held-out pairs"
    )
    arguments = parser.parse_args()
    for path in (arguments.train, arguments.heldout):
        if not path.is_file():
            print(f"error: no such file: {path}", file=sys.stderr)
            return 1
    train, heldout = read_rows(arguments.train), read_rows(arguments.heldout)
    for name, rows in (("train", train), ("heldout", heldout)):
        print(length_line(name, rows, "characters", len))
        print(length_line(name, rows, "words", lambda text: len(words(text))))
    print(classifier_line("words", train, heldout, words))
    print(classifier_line("words and bigrams", train, heldout, words_and_pairs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
