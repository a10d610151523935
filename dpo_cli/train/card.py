"""The model card: README.md of the saved folder, what it takes to judge the model and to make it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo_cli import methods
from dpo_cli.evaluate.pairs import Evaluation
from dpo_cli.metrics.scrub import scrub
from dpo_cli.packages import version_of
from dpo_cli.recipe.describe import to_yaml
from dpo_cli.train.panel import Summary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from dpo_cli.train.build import Parts

_WHOLE = """\
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder)
"""
_ADAPTER = """\
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=1, pad_token_id=tokenizer.pad_token_id)
"""
"""The base says neither that there is one score nor which token pads. peft's class finds the trained head in every transformers that we take."""
_SCORES = {
    (True, True): """\
rows = tokenizer.apply_chat_template(chats, padding=True, return_dict=True, return_tensors="pt")
scores = model(**rows).logits[:, 0]  # one a chat, higher is better
""",
    (True, False): """\
rows = [tokenizer.apply_chat_template(chat, return_dict=True, return_tensors="pt") for chat in chats]
scores = [model(**row).logits.item() for row in rows]  # one by one: every control token ends chats, so none can pad
""",
    (False, True): """\
rows = tokenizer([text + tokenizer.eos_token for text in texts], padding=True, return_tensors="pt")
scores = model(**rows).logits[:, 0]  # one a text, higher is better
""",
    (False, False): """\
rows = [tokenizer(text + tokenizer.eos_token, return_tensors="pt") for text in texts]
scores = [model(**row).logits.item() for row in rows]  # one by one: every control token ends texts, so none can pad
""",
}
"""(it has a chat template, it has a token to pad with) -> how its scores are had."""
_ANSWERS = {
    True: """\
from transformers import pipeline

answer = pipeline("text-generation", folder)
chat = [{"role": "user", "content": question}]
print(answer(chat, max_new_tokens=200)[0]["generated_text"][-1]["content"])
""",
    False: """\
from transformers import pipeline

answer = pipeline("text-generation", folder)
print(answer(text, max_new_tokens=200)[0]["generated_text"])
""",
}
"""It has a chat template -> how its answers are had."""

_LOADED_BY = {
    "library_name": {True: "peft", False: "transformers"},
    "base_model_relation": {True: "adapter", False: "finetune"},
}
"""Keys of the front matter -> their values for an adapter and for a whole model."""
_PACKAGES = ("dpo-cli", "torch", "transformers", "accelerate", "datasets", "safetensors")


def card_of(parts: Parts, summary: Summary, trained: Evaluation | None, command: str) -> str:
    """Return the card of a run that ended, with the versions of the packages that made it."""
    recipe = parts.recipe
    method = methods.get(recipe.method.name)
    is_adapter = recipe.model.adapter is not None or parts.start.adapter is not None
    return model_card(
        summary,
        base_model=recipe.model.name,
        datasets=[source.path for source in recipe.data.train],
        method=recipe.method.name,
        paper=method.paper,
        recipe_yaml=to_yaml(recipe),
        command=command,
        versions={name: version_of(name) for name in (*_PACKAGES, *(["peft"] if is_adapter else []))},
        reference_wins=trained.baselines.reference_total if trained and trained.baselines else None,
        is_reward=method.trains_head,
        is_adapter=is_adapter,
        usage=usage(parts.tokenizer, is_reward=method.trains_head, is_adapter=is_adapter),
    )


def usage(tokenizer: PreTrainedTokenizerBase, *, is_reward: bool, is_adapter: bool) -> str:
    """Return the code that has a saved folder's scores (`chats` or `texts` -> `scores`) or its answer (to `question` or `text`), as Markdown.

    Args:
        tokenizer: the folder's; one without a pad token scores row by row, one without a chat template takes texts.
        is_reward: the folder scores answers in place of writing some.
        is_adapter: it holds an adapter, not a whole model.
    """
    is_chat, pads = bool(tokenizer.chat_template), tokenizer.pad_token is not None
    scoring = (_ADAPTER if is_adapter else _WHOLE) + _SCORES[is_chat, pads]
    return f"```python\n{scoring if is_reward else _ANSWERS[is_chat]}```\n"


def as_whole(card: str, tokenizer: PreTrainedTokenizerBase, *, is_reward: bool) -> str:
    """Return an adapter's card for the folder that holds it merged into its base."""
    of_adapter, of_whole = (
        usage(tokenizer, is_reward=is_reward, is_adapter=is_adapter) for is_adapter in (True, False)
    )
    for name, values in _LOADED_BY.items():
        card = card.replace(f"{name}: {values[True]}\n", f"{name}: {values[False]}\n")
    return card.replace(of_adapter, of_whole)


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
        "library_name": _LOADED_BY["library_name"][is_adapter],
        "pipeline_tag": "text-classification" if is_reward else "text-generation",
        "tags": list(dict.fromkeys(["dpo", method, "preference-optimization", "generated_from_trainer"])),
    }
    if _is_hub_id(base_model):
        relation = _LOADED_BY["base_model_relation"][is_adapter]
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
