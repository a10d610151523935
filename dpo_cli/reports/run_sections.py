"""What lies in a run's folder, as its page shows it: answers, data, cost, recipe, files, and the commands that come next."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from dpo_cli.data.row_report import SourceReport
from dpo_cli.evaluate.pairs.results import EVAL
from dpo_cli.metrics.progress import duration
from dpo_cli.metrics.sinks.jsonl import FILE_NAME as METRICS
from dpo_cli.recipe.describe import changed
from dpo_cli.recipe.load import Loaded
from dpo_cli.runs.folder import CHECKPOINTS, CHOICES, DATA, RECIPE
from dpo_cli.runs.list import cost_of
from dpo_cli.runs.status import FILE_NAME as STATUS
from dpo_cli.runs.status import Status
from dpo_cli.runs.target import has_reward_head

SAMPLES = "samples.json"
MOST_SAMPLES = 12
MOST_LETTERS = 4_000
"""Of one text of a sample."""


def json_of(path: Path) -> Any:
    """Return what a file holds; None where it is not there, or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def text_of(path: Path) -> str:
    """Return a file's text; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def samples_of(found: Any) -> list[dict[str, Any]]:
    """Return what the page shows of `samples.json`: prompt, the answers of each model, and the data's."""
    shown = []
    for sample in (
        [each for each in found if isinstance(each, dict)][:MOST_SAMPLES] if isinstance(found, list) else []
    ):
        named = (("before training", "before"), ("after training", "after"), ("chosen in the data", "chosen"))
        said = [(who, _said(sample[key])) for who, key in named if key in sample]
        shown.append({"prompt": _said(sample.get("prompt", "")), "said": said})
    return shown


def _said(text: Any) -> str:
    """Return a text or chat messages as one text, cut where it is very long."""
    if isinstance(text, list):
        turns = [turn for turn in text if isinstance(turn, dict)]
        lone = len(turns) == 1
        text = "\n\n".join(
            str(turn.get("content", "")) if lone else f"{turn.get('role', '')}: {turn.get('content', '')}"
            for turn in turns
        )
    text = str(text)
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}… ({len(text):,} characters)"


def samples_note(found: Any) -> str:
    """Return how many samples the page leaves out."""
    more = len(found) - MOST_SAMPLES if isinstance(found, list) else 0
    return f"{more:,} more in {SAMPLES}" if more > 0 else ""


def data_of(run: Path, loaded: Loaded | None) -> dict[str, Any]:
    """Return the sources with what became of their rows, as the run counted them; of an old run, what its recipe says."""
    found = json_of(run / DATA)
    try:
        sources = [SourceReport(**each) for each in found["sources"]]
        parts = ", ".join(f"{name} {n:,}" for name, n in found["parts"].items())
        lines = [f"Rows: {parts}.", *found["warnings"]]
    except (TypeError, KeyError, AttributeError):
        sources, lines = [], []
    if sources:
        lines = [each.lines() for each in sources]
        rows = [
            {
                "role": each.role,
                "path": each.path,
                "text": "; ".join([head.partition(": ")[2].partition(": ")[2] or head, *more]),
            }
            for each, (head, *more) in zip(sources, lines, strict=True)
        ]
        return {"rows": rows, "lines": lines}
    if loaded is None:
        return {"rows": [], "lines": []}
    data = loaded.recipe.data
    rows = [
        {
            "role": role,
            "path": source.path,
            "text": f"{source.weight:g} passes an epoch" if source.weight != 1 else "",
        }
        for role, several in (("train", data.train), ("eval", data.eval))
        for source in several
    ]
    return {
        "rows": rows,
        "lines": [f"Held out of the training rows: {data.split.eval:.0%}."] if data.split.eval else [],
    }


def cost_rows(run: Path, status: Status | None) -> list[tuple[str, str]]:
    """Return what the run took, as names and texts."""
    if status is None:
        return []
    cost = cost_of(run)
    facts = [
        ("training", duration(status.train_seconds) if status.train_seconds else None),
        ("steps", f"{status.step:,}" + (f", started {status.attempt + 1} times" if status.attempt else "")),
        ("a step", None if cost.ms_per_step is None else f"{cost.ms_per_step:,.0f} ms"),
        ("speed", None if cost.pairs_per_s is None else f"{cost.pairs_per_s:.3g} pairs/s"),
        (
            "tokens",
            None
            if cost.tokens_per_s is None
            else f"{cost.tokens_per_s:,.0f} per second (median of the logs)",
        ),
        ("peak memory", None if cost.peak_memory_gib is None else f"{cost.peak_memory_gib:.2f} GiB"),
    ]
    return [(name, value) for name, value in facts if value]


def changed_keys(loaded: Loaded | None) -> list[dict[str, Any]]:
    """Return the keys that are not at their defaults."""
    if loaded is None:
        return []
    return [
        {
            "key": each.key,
            "value": _short(each.value),
            "default": "required" if each.default is None else _short(each.default),
        }
        for each in changed(loaded)
    ]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 300 else f"{text[:300]}…"


def files_of(run: Path) -> list[tuple[str, str]]:
    """Return the files that are there, and what each is for."""
    known = {
        "model": "the trained model: weights, tokenizer, template, README.md",
        RECIPE: "the resolved recipe; running it repeats the run",
        METRICS: "every logged value",
        STATUS: "state, exit code, figures",
        DATA: "what became of the rows",
        SAMPLES: "answers before and after",
        CHOICES: "what the run chose by looking at the machine",
        EVAL: "pair by pair, from dpo eval",
        CHECKPOINTS: "to go on from",
    }
    return [(name, what) for name, what in known.items() if (run / name).exists()]


def try_it(run: Path) -> str:
    """Return the command that shows what a finished run's model does."""
    name, model = shlex.quote(str(run)), run / "model"
    if has_reward_head(model):
        return f"dpo score {name} FILE"
    has_template = (model / "chat_template.jinja").is_file()
    return f"dpo chat {name} --against reference" if has_template else f"dpo sample {name}"


def next_commands(run: Path, status: Status | None) -> list[str]:
    """Return what to type next: how to go on with an unfinished run, what to do with a finished one."""
    name = shlex.quote(str(run))
    if status is None or status.state != "finished":
        return [status.resume] if status and status.resume else [f"dpo runs {shlex.quote(str(run.parent))}"]
    tried = [try_it(run), f"dpo eval {name}", f"dpo compare {name} ANOTHER_RUN"]
    return [*tried, f"dpo export {name} --to merged --out FOLDER", f"dpo report {name}    # this page again"]
