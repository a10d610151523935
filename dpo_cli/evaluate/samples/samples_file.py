"""Answers of a policy and its reference to the same prompts: the file they are kept in, and what can be said of them.

A line of the file is one draw: prompt, temperature, `k`, and what `policy` and `reference` said with the same noise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dpo_cli.data.sources import jsonl
from dpo_cli.data.sources.placed_rows import Problems
from dpo_cli.errors import DataError, StorageError
from dpo_cli.evaluate.intervals import Interval, mean_interval
from dpo_cli.files import commit

Row = dict[str, Any]
ROLES = ("policy", "reference")
NGRAM = 4
"""Tokens of the pieces whose repetition is counted."""
_KEYS = {"prompt", "prompt_key", "temperature", "k", "seed", "max_new_tokens", "engine", *ROLES}
_SAID = {"text", "tokens", "model", "digest"}
"""What an answer states, whoever made the file."""


def read_samples(path: Path) -> list[Row]:
    """Return the rows of a file of samples; none where there is no file.

    Raises:
        DataError: lines that are no samples: all of them.
    """
    if not path.exists():
        return []
    problems, rows = Problems(), list[Row]()
    for row in jsonl.read(path, problems):
        if missing := sorted(_KEYS - row.values.keys()):
            problems.add(row.place, f"no sample of `dpo sample`: {', '.join(missing)} missing")
        elif wrong := [role for role in ROLES if not _is_said(row.values[role])]:
            what = f"{' and '.join(wrong)} no answer: null, or {', '.join(sorted(_SAID))}"
            problems.add(row.place, f"no sample of `dpo sample`: {what}")
        rows.append(dict(row.values))
    problems.raise_any()
    return rows


def _is_said(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and value.keys() >= _SAID)


def samples_of(path: Path) -> list[Row]:
    """Return the rows of a file that has to be there.

    Raises:
        DataError: no such file, no rows, or lines that are no samples.
    """
    rows = read_samples(path)
    if not rows:
        raise DataError.of("SAMPLES", f"no samples in '{path}'", "dpo sample RUN --out FILE")
    return rows


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows as JSON lines, whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        commit(path.parent, path.name, text.encode())
    except OSError as error:
        raise StorageError.of(str(path), f"cannot be written: {error.strerror}", "--out FILE") from None


def repetition(ids: Sequence[int]) -> float:
    """Return the share of an answer's 4-grams of tokens that stand in it before; 0 for one of fewer than 4 tokens."""
    grams = [tuple(ids[i : i + NGRAM]) for i in range(len(ids) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def figures(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return what can be said of each model at each temperature, as plain values for JSON; intervals are 95%, over prompts."""
    found = []
    for temperature in sorted({row["temperature"] for row in rows}):
        for role in ROLES:
            here = [row for row in rows if row["temperature"] == temperature and row[role] is not None]
            if here:
                found.append({"role": role, "temperature": temperature, **_figures(here, role)})
    return found


def _figures(rows: Sequence[Row], role: str) -> dict[str, Any]:
    said, prompts = [row[role] for row in rows], [row["prompt_key"] for row in rows]
    tokens = np.array([answer["tokens"] for answer in said], dtype=np.float64)
    scored = [i for i, answer in enumerate(said) if answer.get("ref_logp") is not None]
    ratio = np.array([said[i]["logp"] - said[i]["ref_logp"] for i in scored])
    return {
        "model": said[0]["model"],
        "n": len(rows),
        "prompts": len(set(prompts)),
        "tokens": float(tokens.mean()),
        "tokens_ci": mean_interval(tokens, prompts),
        "ended": float(np.mean([answer["ended"] for answer in said])),
        "repetition": float(np.mean([answer["repetition"] for answer in said])),
        "log_ratio": log_ratio(ratio, tokens[scored], [prompts[i] for i in scored]) if scored else None,
        "is_kl": bool(scored) and rows[0]["temperature"] == 1,
    }


def log_ratio(ratio: np.ndarray, tokens: np.ndarray, prompts: Sequence[str]) -> dict[str, Any]:
    """Return the mean log pi(y|x)/pi_ref(y|x) of the policy's own answers, nats: per answer, and per token of them all.

    Of answers drawn at temperature 1 it is the plain (k1) estimate of KL(pi || pi_ref) over the first `max_new_tokens` tokens: unbiased, and below
    0 by chance where both are nearly alike. At other temperatures another distribution was drawn from, and it estimates no KL.

    Args:
        ratio: of each answer, summed, (n,).
        tokens: its tokens, (n,).
        prompts: its prompt, (n,).
    """
    interval: Interval | None = mean_interval(ratio / tokens, prompts, tokens)
    return {
        "mean": float(ratio.mean()),
        "ci": mean_interval(ratio, prompts),
        "per_token": float(ratio.sum() / tokens.sum()),
        "per_token_ci": interval,
    }
