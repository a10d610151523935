"""What a set of preferences teaches by its shares alone: length, refusals, one opening, few prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from dpo_cli.data.audit.consistency import Keyed
from dpo_cli.data.audit.text_checks import contents, is_refusal, opening
from dpo_cli.types import Example

SHOWN_CHARS = 60
ENOUGH = 50
"""Fewer rows say nothing of shares."""
ENOUGH_PROMPTS = 5
"""Fewer rows may well share a prompt."""
LONGER_WINS = 0.65
REFUSALS = 0.25
SAME_OPENING = 0.3
FEW_PROMPTS = 0.1
SHARES = (
    "longer wins",
    "refusals among wanted completions",
    "refusals among unwanted ones",
    "wanted completions with the commonest opening",
    "different prompts",
)


def shares_of(examples: Sequence[Example], rows: Sequence[Keyed]) -> tuple[dict[str, float], list[str]]:
    """Return shares, 0 to 1, that say how a set may mislead, and a note on each that does."""
    pairs = [example for example in examples if len(example.completions) > 1]
    best = [example for example in examples if example.label is not False]
    worst = [e.completions[-1] for e in examples if len(e.completions) > 1 or e.label is False]
    openings = Counter(opening(text[0]) for e in best if (text := contents(e.completions[0])))
    values = (
        _share(map(_longer_wins, pairs)),
        _share(is_refusal(example.completions[0]) for example in best),
        _share(map(is_refusal, worst)),
        max(openings.values(), default=0) / max(len(best), 1),
        len({row.prompt for row in rows}) / max(len(rows), 1),
    )
    shares = dict(zip(SHARES, values, strict=True))
    if not pairs:
        del shares[SHARES[0]]
    notes = _one_prompt(examples, rows)
    if len(examples) >= ENOUGH:
        notes += _notes(shares, openings.most_common(1)[0][0] if openings else "", has_one_prompt=bool(notes))
    return shares, notes


def _one_prompt(examples: Sequence[Example], rows: Sequence[Keyed]) -> list[str]:
    """Say so where all rows have the same prompt: often a system prompt or an instruction, with the questions in another column."""
    if len(rows) < ENOUGH_PROMPTS or len({row.prompt for row in rows}) > 1:
        return []
    start = " ".join("\n".join(contents(examples[0].prompt)).split())[:SHOWN_CHARS]
    return [
        f"all {len(rows):,} rows have one and the same prompt ({start!r}): are the questions in another column?"
    ]


def _notes(shares: Mapping[str, float], commonest: str, has_one_prompt: bool) -> list[str]:
    longer, wanted, unwanted, same, prompts = (shares.get(name, 0.5) for name in SHARES)
    notes = []
    if not 1 - LONGER_WINS < longer < LONGER_WINS:
        way, share = ("longer", longer) if longer > 0.5 else ("shorter", 1 - longer)
        notes.append(
            f"the {way} completion wins in {share:.0%} of pairs: a model can learn length in place of what was meant"
        )
    if wanted > REFUSALS and wanted > unwanted:
        notes.append(
            f"{wanted:.0%} of the wanted completions refuse: the model will refuse more, also elsewhere"
        )
    if same > SAME_OPENING:
        notes.append(f"{same:.0%} of the wanted completions open with {commonest!r}: the model will, too")
    if prompts < FEW_PROMPTS and not has_one_prompt:
        notes.append(f"only {prompts:.0%} as many different prompts as rows: a narrow set, easy to overfit")
    return notes


def _share(flags: Iterable[float]) -> float:
    values = list(flags)
    return sum(values) / len(values) if values else 0.0


def _longer_wins(example: Example) -> float:
    best, worst = (sum(map(len, contents(example.completions[k]))) for k in (0, -1))
    return (best > worst) + 0.5 * (best == worst)
