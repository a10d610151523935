"""`dpo report`: the page of a run, written again from the files in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dpo_cli.cli.arguments import JsonOption


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, finished or not.")],
    as_json: JsonOption = False,
) -> None:
    """Write report.html of runs again: result, health, curves, answers, data, cost and recipe in one file."""
    from dpo_cli.reports.run_page import write_report

    written = [write_report(run) for run in runs]
    if as_json:
        print(json.dumps({"reports": [str(path) for path in written]}))
        return
    print("\n".join(map(str, written)))
