"""Which methods suit rows and memory, and why: what `dpo check` says beside the recipe's own choice. No torch.

What a method says of its own settings on the rows is its `advice`; here methods are held against each other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dpo_cli.methods._memory import Need, gib
from dpo_cli.methods.ipo import IPOConfig, target

MOST_LINES = 5

# The numbers of rows are rules of thumb from the literature on these methods, not measured here.
VERY_FEW = 100
"""Rows below which no method has much to learn from; the shipped quickstart learns from 300."""
FEW = 1_000
"""Pairs below which a bounded margin is worth more than DPO's, which grows on what the policy knows by heart."""
MANY = 10_000
"""Pairs from which on the two hardly differ."""
LOPSIDED = 4
"""Labelled answers of one kind for each of the other, from which on the rarer kind is named: weights balance the loss, not the evidence."""

REACHED_GAP = 0.5
"""A margin in nats for each token of an answer that DPO reaches: 0.01 (smollm2_hh) and 0.6 (smollm2_polite_dpo, quickstart) on held-out
rows, 1.0 on the quickstart's own."""
FURTHEST_GAP = 2.0
"""Twice the most that was seen. At 5 each token of one answer is 12 times as likely as before, each of the other a twelfth."""


@dataclass(frozen=True)
class Rows:
    """The distinct training rows, by what the data say of them, whatever the recipe's method makes of them."""

    pairs: int = 0
    wanted: int = 0
    """Labelled true."""
    unwanted: int = 0
    targets: int = 0
    prompts_with_both: int = 0
    """Prompts that have a wanted and an unwanted answer."""
    tokens: float = 1.0
    """Scored tokens of the median answer."""

    @property
    def labelled(self) -> int:
        """Labelled answers of both kinds."""
        return self.wanted + self.unwanted


@dataclass(frozen=True)
class Advice:
    """A line: which methods (or `rows`, `memory`), whether they fit, and why."""

    about: str
    fits: bool
    why: str

    def __str__(self) -> str:
        return f"{self.about}: {self.why}"


def advise(rows: Rows, config: Any, need: Need | None = None, free: int = 0) -> list[Advice]:
    """Return which methods fit, the first the best, in at most `MOST_LINES` lines.

    Args:
        rows: what there is to train on.
        config: the recipe's method config; IPO's target is judged with its knobs where it is IPO's, else with the defaults.
        need: what training holds in memory; None where the model's size is not known.
        free: bytes of memory at hand.
    """
    text = _very_few(rows) + _methods(rows, config if isinstance(config, IPOConfig) else IPOConfig())
    last = [] if need is None else _memory(need, free)
    return [*text[: MOST_LINES - len(last)], *last]


def _very_few(rows: Rows) -> list[Advice]:
    n = rows.pairs + rows.labelled + rows.targets
    if n >= VERY_FEW:
        return []
    why = f"{n} are very few: any method learns them by heart before it learns what they have in common; the quickstart has 300"
    return [Advice("rows", False, why)]


def _methods(rows: Rows, ipo: IPOConfig) -> list[Advice]:
    if rows.pairs and rows.labelled:
        return _pairs_and_labels(rows)
    if rows.labelled:
        return _labels(rows)
    if rows.pairs and rows.targets:
        return _pairs_and_targets(rows)
    return _pairs(rows, ipo) if rows.pairs else _targets(rows)


def _pairs(rows: Rows, ipo: IPOConfig) -> list[Advice]:
    n = f"{rows.pairs:,} pairs"
    is_near, goal = _target(rows, ipo)
    free = (
        "no reference to score: one forward less, no memory less, and nothing holds the policy near its start"
    )
    less = "KTO forgets which answers belong together, SFT drops the rejected ones (a first stage for a base model)"
    rest = [Advice("simpo, orpo", True, free), Advice("kto, sft", False, f"take less from {n}: {less}")]
    if rows.pairs < FEW:
        bounded = Advice("ipo", is_near, f"{n} are few, and its margin stops at a target: {goal}")
        usual = Advice(
            "dpo", True, f"the usual start; below {FEW:,} pairs go by the held-out loss, not the margin"
        )
        return [*((bounded, usual) if is_near else (usual, bounded)), *rest]
    usual = Advice("dpo", True, f"the usual start, and {n} carry it")
    if rows.pairs >= MANY and is_near:
        return [usual, *rest]
    return [usual, Advice("ipo", is_near, f"for when DPO's held-out loss turns up again: {goal}"), *rest]


def _target(rows: Rows, ipo: IPOConfig) -> tuple[bool, str]:
    """Return whether a policy that still writes text can reach IPO's target, and what the target is."""
    tokens = 1.0 if ipo.length_normalize else rows.tokens
    gap = target(ipo) / tokens
    nats = f"{target(ipo):.3g} nats (1 / (2 beta), beta {ipo.beta:g})"
    text = f"{nats} per token" if ipo.length_normalize else f"{nats}, {gap:.2g} per token of these answers"
    if gap <= FURTHEST_GAP:
        return True, f"{text}, within reach"
    better = f"method.beta={1 / (2 * REACHED_GAP * tokens):.2g}"
    return False, f"{text}, out of reach; {better} asks for {REACHED_GAP:g}, which runs do reach"


def _labels(rows: Rows) -> list[Advice]:
    if not rows.unwanted:
        return [Advice("sft", True, f"all {rows.wanted:,} answers are wanted: imitation is what they allow")]
    if not rows.wanted:
        return [
            Advice("kto", False, f"all {rows.unwanted:,} answers are unwanted: nothing says what to write")
        ]
    why = (
        f"{rows.wanted:,} wanted and {rows.unwanted:,} unwanted answers; it is the one that learns from both"
    )
    many, few = max(rows.wanted, rows.unwanted), min(rows.wanted, rows.unwanted)
    if many >= LOPSIDED * few:
        rare = "wanted" if rows.wanted < rows.unwanted else "unwanted"
        why += f". {many / few:.0f} to 1: class weights balance the loss, but {few:,} answers are all it knows of {rare} ones"
    both = rows.prompts_with_both
    paired = f"; {both:,} prompts have an answer of each kind and would make pairs" if both else ""
    return [Advice("kto", True, why), Advice("dpo, ipo, simpo, orpo", False, f"there are no pairs{paired}")]


def _pairs_and_labels(rows: Rows) -> list[Advice]:
    counts = f"{rows.pairs:,} pairs and {rows.labelled:,} labelled answers"
    stages = "DPO on the pairs, then KTO on the rest from its model, as smollm2_polite_dpo_then_kto does"
    if rows.pairs >= rows.labelled:
        return [
            Advice("dpo", True, f"{counts}: a comparison says more than a label. {stages}"),
            Advice("kto", True, "trains on both at once and forgets which answers of a pair belong together"),
        ]
    return [
        Advice("kto", True, f"{counts}: most of what is known is in labels, and it trains on both"),
        Advice("dpo", True, f"in two stages: {stages}"),
    ]


def _pairs_and_targets(rows: Rows) -> list[Advice]:
    return [
        Advice(
            "sft", True, f"{rows.targets:,} answers to imitate, and the chosen ones of {rows.pairs:,} pairs"
        ),
        Advice("dpo", True, "on the pairs after it, from the model that it writes"),
    ]


def _targets(rows: Rows) -> list[Advice]:
    return [
        Advice(
            "sft",
            True,
            f"{rows.targets:,} answers with nothing to compare them with: imitation is what they allow",
        ),
        Advice("all others", False, "they need a rejected answer or a label"),
    ]


def _memory(need: Need, free: int) -> list[Advice]:
    if free >= need.with_room:
        return []
    fits = free >= need.n_bytes
    text = f"{'tight' if fits else 'too little'}: {gib(need.n_bytes)} before activations, {gib(free)} free"
    if need.is_reference_live:
        return [
            Advice("memory", fits, f"{text}. reference.source=cache takes {gib(need.reference_bytes)} less")
        ]
    if need.adapter_rank is not None:
        return [Advice("memory", fits, f"{text}. A smaller model would help, a smaller rank hardly")]
    lora = gib(replace(need, adapter_rank=16).n_bytes)
    why = f"model.adapter={{rank: 16}} takes {lora}; SimPO and ORPO save nothing: with the reference in the store DPO holds one model too"
    return [Advice("memory", fits, f"{text}. {why}")]
