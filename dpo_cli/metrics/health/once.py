"""What is seen once, not on a curve: completions that repeat in the data, answers that loop, rounding that would lose the update."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

from dpo_cli.metrics.health.note import Note

OFTEN = 3
"""A completion that stands behind so many prompts is a set phrase."""
REPEATED = 0.1
"""Share of the pairs with a set phrase on one side that is two."""
WINDOW, SHORT = 400, 40
"""Bytes of an answer's end that are looked at; fewer than the second cannot loop much."""
LOOPING = 0.4
"""An answer that deflates to less of itself loops."""
LOST = 0.5
"""Share of the margin that rounding may take before it has lost the update."""


def repeated(pairs: Iterable[tuple[str, tuple[Hashable, ...]]]) -> Note | None:
    """Say that one answer stands behind many prompts: the policy can learn it by name, and a margin past 1 says little.

    Args:
        pairs: of each training row its prompt and its completions, best first, in any form that equal ones share.
    """
    # A prompt counts once: pairs of a ranking share answers, and a source of weight 2 has each row twice.
    two = {(prompt, texts) for prompt, texts in pairs if len(texts) == 2}
    found = []
    for name, side in (("chosen", 0), ("rejected", 1)):
        asked = {(prompt, texts[side]) for prompt, texts in two}
        often = [n for n in Counter(text for _, text in asked).values() if n >= OFTEN]
        if asked and sum(often) >= REPEATED * len(asked):
            share = sum(often) / len(asked)
            phrases = f"{len(often):,} phrases, each behind {OFTEN} or more prompts"
            found.append(f"{share:.0%} of the {name} answers are one of {phrases}")
    if not found:
        return None
    action = "keep a few rows of each phrase, or the margin grows by naming them"
    return Note("completions repeat", ", ".join(found), action)


def degenerate(before: Sequence[str], after: Sequence[str]) -> Note | None:
    """Say that half of the answers after training are empty or loop."""
    bad, earlier = sum(map(_is_degenerate, after)), sum(map(_is_degenerate, before))
    if not bad or bad < len(after) / 2:
        return None
    evidence = f"{bad} of {len(after)} sampled answers are empty or loop, {earlier} before training"
    if earlier >= bad:
        return Note(
            "degenerate answers", evidence, "they were before: look at the model and its chat template"
        )
    return Note(
        "degenerate answers",
        evidence,
        "lower optim.lr, raise method.beta or train fewer steps; see samples.json",
    )


def rounding(trained: float | None, bf16: float | None) -> Note | None:
    """Say that the update is too small for bf16: the margin of the rounded weights is not that of the trained ones."""
    if trained is None or bf16 is None or abs(bf16 - trained) <= LOST * abs(trained):
        return None
    evidence = f"mean margin {trained:+.3g} as trained, {bf16:+.3g} with the weights rounded to bf16"
    return Note(
        "rounding loses the update",
        evidence,
        "serve it in fp32, or train with a higher optim.lr or more steps",
    )


def _is_degenerate(text: str) -> bool:
    """Tell an empty answer, or one whose end is mostly a repetition: deflate takes English of that length to 0.6, a loop to 0.2."""
    end = text.strip().encode()[-WINDOW:]
    if len(end) < SHORT:
        return not end
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return len(packer.compress(end) + packer.flush()) < LOOPING * len(end)
