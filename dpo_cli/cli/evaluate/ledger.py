"""`dpo ledger`: the training pairs that a run found hard, mislabelled or forgotten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpo_cli.cli.arguments import JsonOption

if TYPE_CHECKING:
    from dpo_cli.evaluate.pairs.pair_history import Ledger


def ledger(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a run that was trained with train.ledger=true.")
    ],
    show: Annotated[int, typer.Option(metavar="N", min=0, help="Pairs to print of each kind.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Show the training pairs whose labels look turned over, the hardest ones, and those that were right and are wrong now."""
    from dpo_cli.cli.data.columns import table, width
    from dpo_cli.evaluate.pairs.pair_history import FOLDER, SUSPECTS, read_ledger

    found = read_ledger(run / FOLDER)
    lists = found.lists(show)
    if as_json:
        print(json.dumps({"run": str(run), **found.figures(), **lists}))
        return
    lines = _head(found)
    for name, what in (
        ("suspects", "look mislabelled"),
        ("hardest", "the hardest of the others"),
        ("forgotten", "were right, are wrong now"),
    ):
        if lists[name]:
            cells = [
                [
                    each["source"],
                    *(_said(each[key], "+.3g") for key in ("standing", "margin", "best")),
                    _said(each["weight"], ".2g"),
                    str(each["visits"]),
                ]
                for each in lists[name]
            ]
            heads = ["pair", "margin on the way", "at the end", "best", "weight", "visits"]
            lines += [
                "",
                what,
                *(line for line in table(heads, cells, [""] * len(cells), width()) if line.strip()),
            ]
    print("\n".join(lines))
    if found.flips.rate is not None:
        from dpo_cli.metrics import terminal

        path = run / FOLDER / SUSPECTS
        terminal.say(
            terminal.console(),
            f"read {path} (texts, the lowest first); train without them: data.drop={path}",
        )


def _said(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def _head(found: Ledger) -> list[str]:
    facts = found.figures()
    lines = [
        f"{'pairs':<18} {facts['pairs']:,}   right at the end {facts['right']:.3f}   right and now wrong {facts['forgotten']:,}"
    ]
    if facts["flip_rate"] is None:
        return [
            *lines,
            f"{'labels':<18} none looks turned over: the pairs that are wrong are those that the model is unsure of",
        ]
    return [
        *lines,
        f"{'labels':<18} about {facts['flip_rate']:.1%} turned over; {facts['suspected']:,} suspected",
    ]
