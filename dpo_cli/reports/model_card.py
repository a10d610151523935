"""The model card: README.md of the saved folder, what it takes to judge the model and to make it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo_cli.export.usage import LOADED_BY
from dpo_cli.metrics.scrub import scrub
from dpo_cli.reports.end_panel import Summary

if TYPE_CHECKING:
    pass


def model_card(
    summary: Summary,
    *,
    base_model: str,
    datasets: Sequence[str],
    method: str,
    paper: str,
    recipe_yaml: str,
    command: str,
    versions: Mapping[str, str],
    usage: str,
    reference_digest: str | None = None,
    reference_wins: float | None = None,
    is_reward: bool = False,
    is_adapter: bool = False,
) -> str:
    """Return the card's text, front matter first, credentials taken out.

    Args:
        summary: the run's figures.
        base_model: hub id or path of the first policy; only a hub id goes into the front matter.
        datasets: hub ids or paths of the preference data; likewise.
        method: name of the method.
        paper: its title and arXiv number.
        recipe_yaml: the resolved recipe.
        command: what was typed.
        versions: package -> version.
        usage: what the function of that name gives.
        reference_digest: digest of the reference weights.
        reference_wins: share of held-out pairs whose chosen completion the reference finds likelier.
        is_reward: it scores answers instead of giving some.
        is_adapter: it is an adapter, to be loaded beside its base.
    """
    made = (
        f"A reward model on `{base_model}` ({paper}), trained by `dpo-cli`.\n"
        if is_reward
        else f"`{base_model}` aligned with {method.upper()} ({paper}) by `dpo-cli`.\n"
    )
    parts = [
        _front_matter(base_model, datasets, method, is_reward=is_reward, is_adapter=is_adapter),
        f"# {summary.name}\n",
        made,
        usage,
        "## Held-out result\n",
        _figures(summary, reference_wins),
        *([f"These weights are {summary.weights}.\n"] if summary.weights else []),
        "## How it was made\n",
        f"```\n{command}\n```\n",
        f"{summary.steps:,} steps, {summary.pairs_per_second:.3g} pairs/s,"
        f" peak memory {summary.peak_memory_gib:.2f} GiB.\n",
        *([f"Digest of the reference weights: `{reference_digest}`\n"] if reference_digest else []),
        f"```yaml\n{recipe_yaml.rstrip()}\n```\n",
        "## Versions\n",
        "".join(f"- {name} {version}\n" for name, version in versions.items()),
    ]
    return scrub("\n".join(parts))


def _front_matter(
    base_model: str, datasets: Sequence[str], method: str, *, is_reward: bool, is_adapter: bool
) -> str:
    from huggingface_hub import ModelCardData

    hub_datasets = [name for name in datasets if _is_hub_id(name)]
    facts: dict[str, Any] = {
        "library_name": LOADED_BY["library_name"][is_adapter],
        "pipeline_tag": "text-classification" if is_reward else "text-generation",
        "tags": list(dict.fromkeys(["dpo", method, "preference-optimization", "generated_from_trainer"])),
    }
    if _is_hub_id(base_model):
        relation = LOADED_BY["base_model_relation"][is_adapter]
        facts |= {"base_model": base_model, "base_model_relation": relation}
    if hub_datasets:
        facts["datasets"] = hub_datasets
    return f"---\n{ModelCardData(**facts).to_yaml()}\n---\n"


def _figures(summary: Summary, reference_wins: float | None) -> str:
    if summary.n is None:
        return "Nothing was held out, so nothing was measured.\n"
    if summary.accuracy is None:
        return f"Loss on {summary.n:,} held-out rows: {summary.loss:.4f}\n"
    interval = f" [{summary.ci[0]:.3f}, {summary.ci[1]:.3f}]" if summary.ci else ""
    over = " (95% interval over prompts)" if summary.ci else ""
    rows = [
        (f"{summary.what}{over}", f"{summary.accuracy:.3f}{interval}"),
        ("held-out rows", f"{summary.n:,}"),
        *_row('"longer wins" on the same pairs', summary.longer_wins, ".3f"),
        *_row("reference likelihood on the same pairs", reference_wins, ".3f"),
        *_row("loss", summary.loss, ".4f"),
        *_row("mean margin as trained", summary.margin_trained, "+#.3g"),
        *_row("mean margin as saved", summary.margin_saved, "+#.3g"),
        *_row("mean margin loaded in bf16", summary.margin_bf16, "+#.3g"),
    ]
    return "| figure | value |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)


def _row(name: str, value: float | None, spec: str) -> list[tuple[str, str]]:
    return [] if value is None else [(name, format(value, spec))]


def _is_hub_id(name: str) -> bool:
    """Tell `owner/name` from a path; a path would make the hub reject the front matter."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1 and not Path(name).exists()
