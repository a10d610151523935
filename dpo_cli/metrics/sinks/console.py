"""The run as a person sees it: a live table on a terminal, elsewhere a `key=value` line a logged step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from dpo_cli.metrics import health, terminal
from dpo_cli.metrics.progress import duration
from dpo_cli.metrics.sinks import RunInfo
from dpo_cli.metrics.sinks.jsonl import FILE_NAME, read_metrics

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType
    from rich.live import Live
    from rich.table import Table

ROWS = (
    "loss",
    "rewards/accuracies",
    "rewards/auc",
    "rewards/margins",
    "rewards/chosen",
    "rewards/rejected",
    "logps/chosen",
    "logps/rejected",
)
SHORT = (
    ("loss", "loss"),
    ("rewards/accuracies", "acc"),
    ("rewards/auc", "auc"),
    ("rewards/margins", "margin"),
    ("grad_norm", "gnorm"),
    ("learning_rate", "lr"),
)
"""What a plain line shows of `train/` and `eval/`, under which name."""
SPARKS = "▁▂▃▄▅▆▇█"
SPARK_LOGS = 16
FULL_WIDTH = 80
"""Narrower terminals lose the sparkline, then the interval."""
CI_WIDTH = 64
NOTES = 2
"""Notes that the view shows at once, the most pressing ones."""


class ConsoleSink:
    """Shows logged values on stderr; `advance` moves the bar between them."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Show on `console`; None: stderr."""
        self._console = console or terminal.console()
        self._clock = clock
        self._live: Live | None = None
        self._info: RunInfo | None = None
        self._facts = health.Facts()
        self._rows: list[dict[str, float]] = []
        self._latest: dict[str, float] = {}
        self._eval_step: float | None = None
        self._notes: list[health.Note] = []
        self.noted: list[str] = []
        """Every note of the run, as it was when it came up first; grows while the run goes on."""
        self._seen: set[str] = set()
        self._step = 0
        self._began_s = self._eta_at_s = clock()
        self._eta_s: float | None = None
        self._told: set[str] = set()

    def start(self, info: RunInfo) -> None:
        """Open the live view; a resumed run goes on with its curves."""
        self._info, self._step = info, info.first_step
        self._facts = health.facts_of(info.recipe, info.starts_at_zero)
        self._began_s = self._clock()
        if info.first_step and (info.run_dir / FILE_NAME).exists():
            for row in read_metrics(info.run_dir / FILE_NAME):
                if row["step"] <= info.first_step:  # null: was not finite
                    self._remember(
                        row["step"], {name: value for name, value in row.items() if value is not None}
                    )
        if not terminal.is_live(self._console):
            return
        from rich.live import Live

        self._live = Live(
            console=self._console, get_renderable=self.render, refresh_per_second=4, transient=False
        )
        self._live.start()

    def advance(self, step: int) -> None:
        """Move the bar to `step`; the view redraws itself, at most four times a second."""
        self._step = step

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Show the values of a step."""
        self._step = max(step, self._step)
        self._remember(step, values)
        if "perf/eta_s" in values:
            self._eta_s, self._eta_at_s = values["perf/eta_s"], self._clock()
        if self._live is None:
            self._print_lines(step, values)

    def note(self, notes: Sequence[health.Note]) -> None:
        """Print notes that are seen once, not on the curves, and keep them with the others."""
        for note in notes:
            self.noted.append(str(note))
            terminal.say(self._console, f"note: {note}")

    def close(self) -> None:
        """Leave the last state on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def render(self) -> RenderableType:
        """Return the panel as it stands."""
        from rich.panel import Panel
        from rich.text import Text

        assert self._info is not None, "start comes first"
        footer = Text(_footer(self._latest))
        return Panel(self._body(), title=Text(f"{self._info.name} · step {self._step}"), subtitle=footer)

    def _body(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        table = [self._table()] if self._rows else []
        return Group(self._bar(), *table, *(Text(f"note: {note}") for note in self._notes[:NOTES]))

    def _bar(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        assert self._info is not None
        steps, done = self._info.steps, min(self._step, self._info.steps)
        elapsed = duration(self._clock() - self._began_s)
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True)
        text = f"{done}/{steps}  {done / max(steps, 1):4.0%}  {elapsed} < {self._eta()}"
        grid.add_row(Text("train"), ProgressBar(total=max(steps, 1), completed=done), Text(text))
        return grid

    def _eta(self) -> str:
        if self._eta_s is None:
            return "-:--:--"
        return duration(max(0.0, self._eta_s - (self._clock() - self._eta_at_s)))

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        width = self._console.width
        has_ci, has_sparks = width >= CI_WIDTH, width >= FULL_WIDTH
        heads = ["metric", "train", "eval" if self._eval_step is None else f"eval@{self._eval_step:.0f}"]
        heads += ["95% CI"] * has_ci + [f"last {SPARK_LOGS} logs"] * has_sparks
        table = Table(box=None, expand=True, padding=(0, 1), header_style="bold")
        for i, head in enumerate(heads):
            table.add_column(Text(head), justify="left" if i in (0, 4) else "right", no_wrap=True)
        latest = self._latest
        for name in ROWS:
            if f"train/{name}" not in latest and f"eval/{name}" not in latest:
                continue
            cells = [
                name,
                _format(name, latest.get(f"train/{name}")),
                _format(name, latest.get(f"eval/{name}")),
            ]
            cells += [_interval(name, latest)] * has_ci
            recent = [row[f"train/{name}"] for row in self._rows[-2 * SPARK_LOGS :] if f"train/{name}" in row]
            cells += [sparkline(recent)] * has_sparks
            table.add_row(*(Text(cell) for cell in cells))
        return table

    def _remember(self, step: int, values: Mapping[str, float]) -> None:
        assert self._info is not None, "start comes first"
        if not self._rows or self._rows[-1]["step"] != step:
            self._rows.append({"step": step})
        self._rows[-1].update(values)
        self._latest.update(values)
        if any(name.startswith("eval/") for name in values):
            self._eval_step = step
        self._notes = health.notes(self._rows, self._info.steps, self._facts)
        for note in self._notes:
            if note.what not in self._seen:
                self._seen.add(note.what)
                self.noted.append(str(note))

    def _print_lines(self, step: int, values: Mapping[str, float]) -> None:
        assert self._info is not None, "start comes first"
        for line in plain_lines(step, self._info.steps, values):
            terminal.say(self._console, line)
        for note in self._notes:
            if note.what not in self._told:  # once a run: a log is read, not watched
                terminal.say(self._console, f"note: {note}")
            self._told.add(note.what)
        self._console.file.flush()


def plain_lines(step: int, steps: int, values: Mapping[str, float]) -> list[str]:
    """Return `step=10/100 loss=...` for training values and `eval step=...` for those of an evaluation."""
    lines = []
    for group, head in (("train", ""), ("eval", "eval ")):
        shown = [
            f"{short}={_compact(values[f'{group}/{name}'])}"
            for name, short in SHORT
            if f"{group}/{name}" in values
        ]
        for name, short in (("accuracies", "acc"), ("auc", "auc")):
            if group == "eval" and f"eval/rewards/{name}_ci_lo" in values:
                low, high = (values[f"eval/rewards/{name}_ci_{end}"] for end in ("lo", "hi"))
                shown.append(f"{short}_ci={low:.3f}..{high:.3f}")
        if group == "train" and "perf/tokens_per_sec" in values:
            shown.append(f"tok/s={values['perf/tokens_per_sec']:.0f}")
        if group == "train" and "perf/eta_s" in values:
            shown.append(f"eta={duration(values['perf/eta_s'])}")
        if shown:
            lines.append(f"{head}step={step}/{steps} {' '.join(shown)}")
    return lines


def sparkline(values: list[float]) -> str:
    """Return the last values as blocks between their lowest and highest; one level throughout is a low line."""
    recent = [value for value in values[-SPARK_LOGS:] if value == value]  # nan has no height
    if not recent:
        return ""
    low, span = min(recent), max(recent) - min(recent)
    return "".join(SPARKS[round((value - low) / span * (len(SPARKS) - 1)) if span else 0] for value in recent)


def _footer(latest: Mapping[str, float]) -> str:
    parts = []
    if "perf/tokens_per_sec" in latest:
        rate = latest["perf/tokens_per_sec"]
        parts.append(f"{rate / 1000:.1f}k tok/s" if rate >= 1000 else f"{rate:.0f} tok/s")
    if "perf/pad_frac" in latest:
        parts.append(f"pad {latest['perf/pad_frac']:.0%}")
    if "perf/peak_mem_gib" in latest:
        parts.append(f"peak {latest['perf/peak_mem_gib']:.1f} GiB")
    if "train/learning_rate" in latest:
        parts.append(f"lr {_compact(latest['train/learning_rate'])}")
    if "optim/clipped_frac" in latest:
        parts.append(f"clipped {latest['optim/clipped_frac']:.0%}")
    return " · ".join(parts)


def _format(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name in ("loss", "rewards/accuracies", "rewards/auc"):
        return f"{value:.4f}" if name == "loss" else f"{value:.3f}"
    return f"{value:+#.3g}" if name.startswith("rewards/") else f"{value:.1f}"


def _interval(name: str, latest: Mapping[str, float]) -> str:
    low, high = latest.get(f"eval/{name}_ci_lo"), latest.get(f"eval/{name}_ci_hi")
    return "" if low is None or high is None else f"{_format(name, low)} .. {_format(name, high)}"


def _compact(value: float) -> str:
    """Return three digits, `2.1e-7` rather than `2.1e-07`."""
    return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e+")
