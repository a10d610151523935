"""What a server will read beside the weights: the generation config and the tokens that end an answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpo_cli.data.row_notes import Note
from dpo_cli.data.tokenize.tokenizer import Vocabulary
from dpo_cli.types import TokenGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from dpo_cli.data.dataset import DataRow
    from dpo_cli.data.tokenize.encode import Encoder

LAST_TOKENS = 8
"""Tokens at the end of two prompts that are shown where they differ."""


@dataclass(frozen=True)
class Serving:
    """The tokens at which generation stops, and whether training agrees with them."""

    stops: list[str]
    """Tokens of the generation config's `eos_token_id`, or the tokenizer's end token where there is no such file."""
    answer_end: str
    """Token that ends most answers in the data, as the model sees them."""
    bos: str | None
    pad: str | None
    warnings: list[str]


@dataclass(frozen=True)
class Served:
    """The prompt of a row as a server sends it: with the generation prompt and the run's `chat_template_kwargs`, not truncated."""

    text: str
    ids: list[int]
    warning: str | None
    """How it differs from the one that is trained on; None where it does not."""

    def lines(self, whose: str = "") -> list[str]:
        """Say it, one fact a line."""
        lines = [f"serving prompt{whose and f' {whose}'}, {len(self.ids)} tokens: {self.text}"]
        return lines + ([f"warning: {self.warning}"] if self.warning else [])


def check_serving(folder: Path, tokenizer: PreTrainedTokenizerBase, groups: Sequence[TokenGroup]) -> Serving:
    """Return what decides where answers stop.

    Args:
        folder: the model's, its generation config already checked.
        tokenizer: from `load_tokenizer`.
        groups: training groups; their last tokens should stop generation.
    """
    ids = _stop_ids(folder, tokenizer.eos_token_id)
    stops = [str(token) for token in tokenizer.convert_ids_to_tokens(ids)]
    special = Vocabulary(tokenizer).special
    # An answer that was truncated ends anywhere; only control tokens tell.
    ends = [int(tokens[-1]) for group in groups for tokens in group.completions if int(tokens[-1]) in special]
    end = max(set(ends), key=ends.count) if ends else tokenizer.eos_token_id
    warnings = []
    if end not in ids:
        warnings.append(
            f"answers end with {special.get(end, end)!r} in training, but generation stops at {stops}; "
            "a server would run on. Correct eos_token_id in generation_config.json"
        )
    return Serving(stops, special.get(end, str(end)), tokenizer.bos_token, tokenizer.pad_token, warnings)


def served(row: DataRow, encoder: Encoder) -> Served:
    """Return what a server sends the model for a kept row's prompt, and how the prompt it is trained behind differs.

    Raises:
        ModelError: the template fails.
    """
    text, ids = encoder.serving_prompt(row.example)
    trained = row.group.prompt.tolist()
    if Note.BOUNDARY not in row.notes:
        return Served(text, ids, None)
    said = [repr(str(encoder.tokenizer.decode(end[-LAST_TOKENS:]))) for end in (ids, trained)]
    warning = (
        f"the model is trained behind another prompt than the server's, which ends with {said[0]}, training's with {said[1]}: "
        "answers follow the template's opening only if they start as it does (data.chat_template_kwargs, data.thinking, model.chat_template)"
    )
    return Served(text, ids, warning)


def _stop_ids(folder: Path, default: int) -> list[int]:
    path = folder / "generation_config.json"
    eos = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.is_file() else None
    return [default] if eos is None else [eos] if isinstance(eos, int) else list(eos)
