"""`dpo runs`: the run folders and how they fare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpo_cli.cli.arguments import JsonOption

if TYPE_CHECKING:
    from dpo_cli.runs.list import RunState

SILENT_S = 1800
"""A run under way that has written nothing for so long may be dead."""


def runs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the run folders lie.")] = Path(
        "runs"
    ),
    as_json: JsonOption = False,
) -> None:
    """List run folders: state, step, time left, held-out accuracy with its interval, exit code; the latest first."""
    from dpo_cli.cli.data.columns import table, width
    from dpo_cli.errors import StorageError
    from dpo_cli.runs.list import runs_below

    if not folder.is_dir():
        raise StorageError.of(
            "FOLDER", f"no such folder: '{folder}'", "where train.output_dir points, `runs` by default"
        )
    found = runs_below(folder)
    if as_json:
        print(json.dumps({"folder": str(folder), "runs": [state.as_dict() for state in found]}))
        return
    if not found:
        print(f"no run in {folder}")
        return
    heads = ["run", "state", "step", "accuracy", "exit", "time left"]
    cells = [_cells(state) for state in found]
    print("\n".join(line for line in table(heads, cells, [_note(s) for s in found], width()) if line.strip()))


def _cells(state: RunState) -> list[str]:
    from dpo_cli.metrics.progress import duration

    status, result = state.status, state.status.eval or {}
    accuracy = "-"
    if result.get("accuracy") is not None:
        ci = result.get("ci")
        accuracy = f"{result['accuracy']:.3f}" + (f" [{ci[0]:.3f}, {ci[1]:.3f}]" if ci else "")
    left = "-" if state.eta_s is None else duration(state.eta_s)
    code = "-" if status.code is None else str(status.code)
    return [state.path.name, status.state, f"{status.step}/{status.steps or '?'}", accuracy, code, left]


def _note(state: RunState) -> str:
    """Return what needs a hand: why it failed, or that it is suspiciously quiet."""
    status = state.status
    if status.state in ("failed", "stopped", "unknown"):
        return " ".join(status.message.split())[:200]
    if status.state != "finished" and state.silent_s > SILENT_S:
        return f"silent for {state.silent_s / 3600:.1f} h: `dpo train {state.path}/recipe.yaml train.resume={state.path}` goes on if it died"
    return ""
