"""What a model's folder says it cannot take: ids beyond its embedding, rows beyond its positions. No weight is loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dpo_cli.errors import ModelError, Problem
from dpo_cli.types import TokenGroup

_LEARNED = ("wpe.weight", "embed_positions.weight", "position_embeddings.weight")
"""Ends of the names of learned position embeddings: GPT-2's, OPT's and GPT-Neo's, others'."""
_POSITIONS = ("n_positions", "max_position_embeddings")


def check_limits(folder: Path, n_ids: int, groups: Sequence[TokenGroup]) -> list[str]:
    """Check that a model can take the tokenizer's ids and the rows; return warnings.

    Args:
        folder: of the model.
        n_ids: ids of the tokenizer.
        groups: encoded rows.

    Raises:
        ModelError: the tokenizer has more ids than `vocab_size`, or rows are longer than the positions that the model has learned.
    """
    config = _config(folder)
    problems = []
    rows = config.get("vocab_size")
    if isinstance(rows, int) and n_ids > rows:
        problems.append(too_many_ids(str(folder), n_ids, rows))
    most = next((config[name] for name in _POSITIONS if isinstance(config.get(name), int)), None)
    long = [] if most is None else [group for group in groups if _length(group) > most]
    if most is None or not long:
        return _raised(problems)
    longest = max(long, key=_length)
    what = f"{len(long):,} of {len(groups):,} rows are longer than the model's {most:,} positions, the longest {_length(longest):,} tokens"
    if _is_learned(folder):
        problems.append(Problem(longest.source, what, f"data.max_length={most}, or another model"))
        return _raised(problems)
    return [
        *_raised(problems),
        f"{longest.source}: {what}; it was not trained beyond them: data.max_length={most}",
    ]


def too_many_ids(where: str, n_ids: int, rows: int) -> Problem:
    """Return the problem of a tokenizer with more ids than the embedding has rows."""
    what = f"the tokenizer has {n_ids} ids, the embedding {rows} rows"
    fix = "resize the embedding where tokens were added (`resize_token_embeddings`), or take the model's own tokenizer (model.tokenizer)"
    return Problem(where, what, fix)


def _raised(problems: list[Problem]) -> list[str]:
    if problems:
        raise ModelError(problems)
    return []


def _length(group: TokenGroup) -> int:
    return len(group.prompt) + max(len(ids) for ids in group.completions)


def _config(folder: Path) -> dict[str, Any]:
    """Return what `config.json` says of the language model; nothing where it cannot be read: loading will say why."""
    with suppress(OSError, ValueError):
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if isinstance(found, dict):
            inner = found.get("text_config")
            return {**found, **inner} if isinstance(inner, dict) else found
    return {}


def _is_learned(folder: Path) -> bool:
    """Return whether the folder's weight files hold position embeddings, or, where they are not here, the model of its config does."""
    from safetensors import SafetensorError, safe_open

    names: list[str] = []
    for path in folder.glob("*.safetensors"):
        with suppress(OSError, SafetensorError), safe_open(path, framework="np") as file:
            names += file.keys()
    if not names:
        from dpo_cli.modeling.sizes.size import weight_names

        with suppress(ModelError):
            names = weight_names(folder)
    return any(name.endswith(_LEARNED) for name in names)
