"""`dpo explain`: what a recipe key or a logged name means, and what a loss looks like over the margin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpo_cli.cli.arguments import JsonOption
from dpo_cli.errors import RecipeError, StorageError

if TYPE_CHECKING:
    from dpo_cli.reports.loss_curves import Landscape

BETA = "method.beta="
EVERY = 5
"""Points between two lines of the table."""


def explain(
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY|METRIC|loss",
            help="A recipe key or group (optim.lr, data), a logged name (rewards/margins), `metrics` for all of these, or `loss`.",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE", help="With `loss`: method.name=ipo, 'method.beta=[0.1, 0.5]' and so on."
        ),
    ] = None,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="With `loss`: the curves as SVG.")] = None,
    png: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With `loss`: the curves as PNG; needs dpo-cli[plots]."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Return what a recipe key or a logged name means; `loss` shows a method's loss and gradient over the margin."""
    if key == "loss":
        _loss(overrides or [], svg, png, as_json)
        return
    if overrides or svg or png:
        given = (overrides or ["--svg" if svg else "--png"])[0]
        raise RecipeError.of(given, "belongs to a loss", "dpo explain loss [method.name=...] [--svg FILE]")
    from dpo_cli.metrics import glossary

    text, facts = glossary.explain(key), glossary.facts(key)
    if text is None:
        text, facts = _of_recipe(key), None
    print(json.dumps(facts or {"name": key, "text": text}) if as_json else text)


def _of_recipe(key: str) -> str:
    from dpo_cli.metrics import glossary
    from dpo_cli.recipe import describe

    try:
        return describe.explain(key)
    except RecipeError:
        if "/" not in key:
            raise
        fix = (
            f"did you mean '{near[0]}'?"
            if (near := glossary.near(key))
            else "`dpo explain metrics` lists all names"
        )
        raise RecipeError.of("METRIC", f"unknown name {key[:100]!r}", fix) from None


def _loss(overrides: list[str], svg: Path | None, png: Path | None, as_json: bool) -> None:
    from dpo_cli import methods
    from dpo_cli.reports.charts.png import has_matplotlib, write_png
    from dpo_cli.reports.charts.svg import document
    from dpo_cli.reports.loss_curves import charts, landscape, no_margin

    config, betas = _config(overrides)
    method = methods.get(config.name)
    if png and not has_matplotlib():
        raise RecipeError.of("--png", "PNG needs matplotlib", "pip install 'dpo-cli[plots]', or --svg FILE")
    if reason := no_margin(method, config):
        raise RecipeError.of("method", reason, "a method of pairs, such as method.name=dpo")
    found = landscape(method, config, betas)
    print(json.dumps(found.as_dict()) if as_json else "\n".join(lines(found)))
    try:
        if svg:
            svg.write_text(document(charts(found)), encoding="utf-8")
        if png:
            write_png(charts(found), png)
    except OSError as error:
        raise StorageError.of(
            str(svg or png), f"cannot be written: {error.strerror}", "another path"
        ) from None


def _config(overrides: list[str]) -> tuple[Any, list[float]]:
    """Return the method's config as overrides make it, and the betas that they list, if they list some.

    Raises:
        RecipeError: an override of something else, or what no recipe may hold.
    """
    from dpo_cli.recipe.load import load_values

    if other := [text for text in overrides if not text.removeprefix("~").startswith("method.")]:
        raise RecipeError.of(other[0], "does not belong to the method", "method.name=..., method.beta=...")
    betas: list[float] = []
    single = []
    for text in overrides:
        if not text.startswith(f"{BETA}["):
            single.append(text)
            continue
        try:
            betas = [float(part) for part in text.removeprefix(BETA).strip("[] ").split(",")]
        except ValueError:
            raise RecipeError.of(text, "is no list of numbers", "method.beta=[0.1, 0.5]") from None
        for beta in betas:  # each is held against the method's own bounds
            load_values(_values(), "explain", [*single, f"{BETA}{beta}"])
    return load_values(_values(), "explain", single).recipe.method, betas


def _values() -> dict[str, Any]:
    return {"model": {"name": "-"}, "data": {"train": [{"path": "/dev/null"}]}}


def lines(found: Landscape) -> list[str]:
    """Return the two tables, loss and gradient, a line a margin."""
    from dpo_cli.cli.data.columns import table, width

    lines = [found.form, f"margin: {found.unit}", *(f"note: {note}" for note in found.notes)]
    margins = found.curves[0].margin
    heads = ["margin", *(curve.name for curve in found.curves)]
    for title, name in (("loss", "loss"), ("gradient of the loss with respect to the margin", "gradient")):
        rows = [
            [f"{margins[k]:+.3g}", *(f"{getattr(curve, name)[k]:.4g}" for curve in found.curves)]
            for k in range(0, len(margins), EVERY)
        ]
        shown = table(heads, rows, ["" for _ in rows], width())
        lines += ["", title, *(line for line in shown if line.strip())]
    return lines
