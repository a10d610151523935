"""`dpo report`: the page of a run, written again from the files in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, finished or not.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Write `report.html` of runs: result, health, curves, answers, data, cost, recipe. It opens without a network."""
    from dpo_cli.train.report import write_report

    written = [write_report(run) for run in runs]
    if as_json:
        print(json.dumps({"reports": [str(path) for path in written]}))
        return
    print("\n".join(map(str, written)))
