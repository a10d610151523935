"""`report.html`: a run on one page, from nothing but the files in its folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dpo_cli import methods
from dpo_cli.errors import RecipeError, StorageError
from dpo_cli.files import commit
from dpo_cli.metrics import health
from dpo_cli.metrics.scrub import scrub_values
from dpo_cli.metrics.sinks.jsonl import FILE_NAME as METRICS
from dpo_cli.metrics.sinks.jsonl import read_metrics
from dpo_cli.recipe.load import Loaded, load
from dpo_cli.reports.html.render import MAX_BYTES, rendered
from dpo_cli.reports.run_curves import curves_of, window_of
from dpo_cli.reports.run_sections import (
    SAMPLES,
    changed_keys,
    cost_rows,
    data_of,
    files_of,
    json_of,
    next_commands,
    samples_note,
    samples_of,
    text_of,
)
from dpo_cli.reports.run_verdict import answer_of, beside_of, measured_charts, measured_of
from dpo_cli.runs.folder import RECIPE
from dpo_cli.runs.status import FILE_NAME as STATUS
from dpo_cli.runs.status import Status, read_status

log = logging.getLogger("dpo_cli")

FILE_NAME = "report.html"
MOST_RECIPE = 100_000
_TONES = {"finished": "good", "failed": "bad", "stopped": "warn"}


def write_report(run: Path) -> Path:
    """Write the page of a run, whatever became of it; return its path.

    Raises:
        StorageError: no run there, or the page cannot be written.
    """
    if not (run / STATUS).exists() and not (run / RECIPE).exists():
        what = f"'{run}' is no run: it holds neither {STATUS} nor {RECIPE}"
        raise StorageError.of("RUN", what, "a run folder; `dpo runs` lists them")
    try:
        return commit(run, FILE_NAME, page_of(run))
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}"
        raise StorageError.of(str(run / FILE_NAME), what, "free some space") from None


def report_at_end(run: Path) -> None:
    """Write the page of a run that has just ended; what goes wrong costs the page, not the run."""
    try:
        if run.is_dir():
            write_report(run)
    except Exception as error:  # a page is never worth a run's exit code
        log.warning("%s is not written (%s: %s)", run / FILE_NAME, type(error).__name__, error)


def page_of(run: Path) -> bytes:
    """Return the page, in less than `MAX_BYTES`: samples go first where it would be larger."""
    facts = scrub_values(facts_of(run))
    page = rendered("report.html", facts)
    if len(page) > MAX_BYTES:
        note = f"left out, they would make this page too large: {SAMPLES} and {RECIPE} have them"
        page = rendered("report.html", facts | {"samples": [], "samples_note": note, "recipe": ""})
    return page


def facts_of(run: Path) -> dict[str, Any]:
    """Return what the page says, by the names of its template."""
    status, loaded, rows = read_status(run), _recipe(run), _metrics(run)
    recipe = loaded.recipe if loaded else None
    curves, curves_note = curves_of(rows, recipe.optim.clip_norm if recipe else None)
    samples = json_of(run / SAMPLES)
    answer = answer_of(run, status, rows)
    return {
        "title": run.resolve().name,
        "what": _what(loaded, status),
        "state": _state(status),
        "began": _began(rows),
        "answer": answer,
        "no_answer": _no_answer(status),
        "beside": beside_of(answer),
        "notes": _notes(status, rows),
        "no_notes": _no_notes(rows),
        "curves": curves,
        "curves_note": "; ".join(filter(None, [_window(rows), curves_note])),
        "measured": measured_of(run),
        "measured_charts": measured_charts(run),
        "samples": samples_of(samples),
        "samples_note": samples_note(samples),
        "data": data_of(run, loaded),
        "cost": cost_rows(run, status),
        "changed": changed_keys(loaded),
        "recipe": text_of(run / RECIPE)[:MOST_RECIPE],
        "files": files_of(run),
        "next": next_commands(run, status),
    }


def _recipe(run: Path) -> Loaded | None:
    """Return the run's recipe; None where it is not there or names what this process may not load."""
    try:
        return load(str(run / RECIPE))
    except RecipeError:
        return None


def _metrics(run: Path) -> list[dict[str, Any]]:
    """Return the logged rows; what was not finite is left out, as if it had not been logged."""
    try:
        rows = read_metrics(run / METRICS)
    except (OSError, ValueError):
        return []
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def _what(loaded: Loaded | None, status: Status | None) -> str:
    if loaded is None:
        return "a run of dpo-cli"
    recipe = loaded.recipe
    form = methods.get(recipe.method.name).form(recipe.method)
    tuned = (
        "all weights" if recipe.model.adapter is None else f"an adapter of rank {recipe.model.adapter.rank}"
    )
    return f"{recipe.model.name}, {tuned}; {form}"


def _state(status: Status | None) -> dict[str, str]:
    if status is None:
        return {"name": "unknown", "tone": "warn", "text": f"no {STATUS} that can be read", "resume": ""}
    steps = f"step {status.step:,} of {status.steps:,}" if status.steps else "before its first step"
    text = steps if status.state == "finished" or not status.message else f"{steps}; {status.message}"
    code = "" if not status.code else f" (exit code {status.code})"
    tone = _TONES.get(status.state, "")
    return {"name": status.state + code, "tone": tone, "text": text[:2_000], "resume": status.resume}


def _began(rows: Sequence[Mapping[str, Any]]) -> str:
    times = [row["time"] for row in rows if isinstance(row.get("time"), int | float)]
    if not times:
        return ""
    first, last = (datetime.fromtimestamp(at, UTC) for at in (min(times), max(times)))
    return f"logged {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"


def _no_answer(status: Status | None) -> str:
    if status is not None and status.state not in ("finished", "finishing"):
        return "It ended before anything was measured on held-out rows."
    return "Nothing was held out, so nothing can be said: set data.split.eval or data.eval."


def _notes(status: Status | None, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the diagnoses of the whole run, then those that its status kept and that no longer hold at its end."""
    steps = (status.steps if status else 0) or (rows[-1]["step"] if rows else 0)
    found = health.notes(rows, steps) if rows else []
    notes = [{"what": each.what, "evidence": each.evidence, "action": each.action} for each in found]
    known = {each.what for each in found}
    for line in status.notes if status else []:
        what, _, rest = line.partition(": ")
        evidence, _, action = rest.rpartition("; ")
        if what not in known:
            known.add(what)
            notes.append(
                {
                    "what": f"{what} (on the way)",
                    "evidence": evidence or rest,
                    "action": action if evidence else "",
                }
            )
    return notes


def _no_notes(rows: Sequence[Mapping[str, Any]]) -> str:
    if not any("train/loss" in row for row in rows):
        return "Nothing was logged that could show it."
    return "Nothing to report: margin, log-probs, gradient norm, length and accuracy look as they should."


def _window(rows: Sequence[Mapping[str, Any]]) -> str:
    window = window_of(rows)
    return f"a training value is the mean over {window} steps" if window and window > 1 else ""
