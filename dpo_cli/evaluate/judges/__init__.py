"""Judges: which of two answers is better. One file each, opened by what `--judge` says."""

from __future__ import annotations

from typing import Literal

from dpo_cli.errors import RecipeError
from dpo_cli.evaluate.judges._base import Judge


def open_judge(spec: str, model: str | None = None, reads: Literal["chat", "pair"] | None = None) -> Judge:
    """Return the judge that a word, an address or a model's name stands for.

    Args:
        spec: `longer`, `lexicon`, `http(s)://HOST/v1` of an OpenAI-compatible server, or a reward model.
        model: what the server calls its model.
        reads: how a reward model reads; None: by its tokenizer.

    Raises:
        RecipeError: options that do not belong together.
        ModelError: a judge that cannot be loaded.
    """
    is_address = spec.startswith(("http://", "https://"))
    if is_address != (model is not None):
        what = "names a server's model, and goes with a server's address only"
        raise RecipeError.of("--judge-model", what, "--judge http://HOST/v1 --judge-model NAME")
    if is_address and model is not None:
        from dpo_cli.evaluate.judges.endpoint import Endpoint

        return Endpoint(spec, model)
    if spec == "longer":
        from dpo_cli.evaluate.judges.longer import Longer

        return Longer()
    if spec == "lexicon":
        from dpo_cli.evaluate.judges.lexicon import Lexicon

        return Lexicon()
    from dpo_cli.evaluate.judges.reward import open_reward

    return open_reward(spec, reads)
