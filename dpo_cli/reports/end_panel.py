"""The last screen of a run: what came out, what it is worth, where it lies and what to type next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpo_cli.metrics import terminal
from dpo_cli.metrics.progress import duration

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Summary:
    """A finished run in figures; None where nothing was held out."""

    name: str
    run_dir: Path
    model_dir: Path
    steps: int
    train_seconds: float
    pairs_per_second: float
    peak_memory_gib: float
    next_command: str
    accuracy: float | None = None
    """Share of held-out pairs whose chosen completion has the higher implicit reward, ties half."""
    ci: tuple[float, float] | None = None
    """95% interval of the accuracy over prompts."""
    n: int | None = None
    """Held-out rows."""
    what: str = "reward accuracy"
    """Name of the figure in `accuracy`."""
    loss: float | None = None
    longer_wins: float | None = None
    """Share of held-out pairs whose chosen completion is the longer one, ties half."""
    margin_trained: float | None = None
    """Mean margin of the held-out pairs, reward units, with the weights in memory."""
    margin_saved: float | None = None
    """The same with the saved folder, reloaded."""
    margin_bf16: float | None = None
    """The same with the saved weights rounded to bf16, as a server loads them."""
    weights: str = ""
    """Which weights these are, where the run chose."""
    notes: tuple[str, ...] = ()
    wandb_dir: str | None = None
    """Folder of an offline W&B run."""


def panel_lines(summary: Summary) -> list[str]:
    """Return the lines of the panel, each a name and its text."""
    pace = f"{summary.pairs_per_second:.3g} pairs/s"
    rows = [
        *_result(summary),
        *([("weights", summary.weights)] if summary.weights else []),
        ("speed", f"{summary.steps:,} steps   {pace}   peak memory {summary.peak_memory_gib:.2f} GiB"),
        ("model", f"{summary.model_dir}"),
        ("files", f"{summary.run_dir}: report.html  recipe.yaml  metrics.jsonl  checkpoints/"),
    ]
    if summary.wandb_dir:
        rows.append(("wandb", f"offline: wandb sync {summary.wandb_dir}"))
    rows += [("note", note) for note in summary.notes]
    rows.append(("next", summary.next_command))
    return [f"{name:<7} {text}" for name, text in rows]


def show(summary: Summary, console: Console | None = None) -> None:
    """Print the panel on stderr: framed on a terminal, plain lines elsewhere."""
    console = console or terminal.console()
    title, lines = f"{summary.name} · done in {duration(summary.train_seconds)}", panel_lines(summary)
    if not terminal.is_live(console):
        for line in [f"done in {duration(summary.train_seconds)}: {summary.name}", *lines]:
            terminal.say(console, line)
        return
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    for line in lines:
        name, text = line.split(maxsplit=1)
        grid.add_row(Text(name, style="bold"), Text(text, overflow="fold"))
    console.print(Panel(grid, title=Text(title)))


def _result(summary: Summary) -> list[tuple[str, str]]:
    if summary.n is None:
        return [("result", "nothing held out, so no figure: set data.split.eval or data.eval")]
    if summary.accuracy is None:
        return [("result", f"held-out loss {summary.loss:.4f}   n={summary.n:,}")]
    interval = f" [{summary.ci[0]:.3f}, {summary.ci[1]:.3f}]" if summary.ci else ""
    loss = "" if summary.loss is None else f"   loss {summary.loss:.4f}"
    rows = [("result", f"held-out {summary.what} {summary.accuracy:.3f}{interval}   n={summary.n:,}{loss}")]
    if summary.longer_wins is not None:
        rows.append(
            (
                "beside",
                f'"longer wins" {summary.longer_wins:.3f}   "shorter wins" {1 - summary.longer_wins:.3f}',
            )
        )
    margins = [
        f"{name} {margin:+#.3g}"
        for name, margin in (
            ("as trained", summary.margin_trained),
            ("as saved", summary.margin_saved),
            ("as served in bf16", summary.margin_bf16),
        )
        if margin is not None
    ]
    return [*rows, ("margin", "   ".join(margins))] if margins else rows
