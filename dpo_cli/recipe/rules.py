"""Rules between keys of a recipe, the run's name and the digest of what decides its result. Nothing here changes a recipe."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from typing import Any

from dpo_cli import methods
from dpo_cli.errors import Problem
from dpo_cli.metrics.scrub import holds_secret
from dpo_cli.recipe.schema import Recipe

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
"""What a run folder may be called: no separators, no leading dot or dash, nothing a terminal acts on."""

INERT = ("name", "data.cache", "data.fail_on_leak", "reference.store", "log")
INERT_TRAIN = (
    "output_dir",
    "resume",
    "eval_every",
    "save_every",
    "samples",
    "ledger",
    "keep_last",
    "max_tokens_per_micro_batch",
    "skip_nonfinite",
)
"""Keys that say where things go, what is reported and how it is cut, not what is computed: they do not enter the digest, so changing one finds
the same run. That is how a run goes on which ran out of memory or met a step that was not finite."""


def problems(recipe: Recipe) -> list[Problem]:
    """List contradictions between keys; each names the key to change."""
    method = methods.get(recipe.method.name).problems(recipe.method)
    return [
        *_data(recipe),
        *method,
        *_steps(recipe),
        *_weights(recipe),
        *_reference(recipe),
        *_saving(recipe),
        *_ledger(recipe),
        *_selection(recipe),
        *_name(recipe),
        *_secrets(recipe),
    ]


def _data(recipe: Recipe) -> list[Problem]:
    split = recipe.data.split
    if split.eval + split.test < 1:
        return []
    what = f"'data.split' holds out {split.eval:g} + {split.test:g} of the rows and leaves none to train on"
    return [Problem("data.split.eval", what, "data.split.eval + data.split.test below 1")]


def _steps(recipe: Recipe) -> list[Problem]:
    warmup, max_steps = recipe.optim.warmup, recipe.train.max_steps
    if warmup >= 1 and warmup != int(warmup):
        what = f"'optim.warmup' is {warmup:g}: from 1 on it counts steps"
        return [Problem("optim.warmup", what, "a whole number of steps, or a share below 1")]
    if max_steps is not None and warmup >= 1 and warmup > max_steps:
        what = f"'optim.warmup' is {warmup:g} steps, more than 'train.max_steps' ({max_steps})"
        return [Problem("optim.warmup", what, f"at most {max_steps}, or a share below 1")]
    return []


def _weights(recipe: Recipe) -> list[Problem]:
    if recipe.train.weights == "fp32":
        return []
    if recipe.model.adapter is not None:
        what = (
            "'train.weights' is bf16, but an adapter is trained in fp32; its frozen base is in bf16 already"
        )
        return [Problem("train.weights", what, "train.weights: fp32, or model.adapter: null")]
    if recipe.train.precision == "fp32":
        what = "'train.weights' is bf16, but 'train.precision' is fp32"
        return [Problem("train.weights", what, "train.precision: auto, or train.weights: fp32")]
    return []


def _reference(recipe: Recipe) -> list[Problem]:
    source, needed = recipe.reference.source, methods.get(recipe.method.name).needs_reference
    if source == "none" and needed:
        what = f"'reference.source' is none, but '{recipe.method.name}' compares with a reference"
        return [Problem("reference.source", what, "cache or live")]
    if source == "none" and recipe.reference.model is not None:
        what = "'reference.model' is set, but 'reference.source' is none"
        return [Problem("reference.model", what, "reference.model: null")]
    if recipe.reference.model is not None and not needed:
        what = f"'reference.model' is set, but '{recipe.method.name}' compares with no reference"
        return [Problem("reference.model", what, "reference.model: null, or another method.name")]
    if recipe.reference.model is None and recipe.reference.revision is not None:
        what = (
            "'reference.revision' is set, but 'reference.model' is null: the reference is the policy's start"
        )
        return [Problem("reference.revision", what, "model.revision, or reference.revision: null")]
    return []


def _saving(recipe: Recipe) -> list[Problem]:
    if recipe.model.save_dtype == "bf16" or not recipe.model.allow_rounding:
        return []
    what = "'model.allow_rounding' is true, but 'model.save_dtype' is fp32, which rounds nothing"
    return [Problem("model.allow_rounding", what, "model.save_dtype: bf16, or model.allow_rounding: false")]


def _selection(recipe: Recipe) -> list[Problem]:
    wanted = {
        "train.select": recipe.train.select == "best",
        "train.early_stop": recipe.train.early_stop is not None,
    }
    if recipe.train.eval_every:
        return []
    what = "is set, but 'train.eval_every' is 0: there is one evaluation, at the end"
    return [
        Problem(key, f"'{key}' {what}", "train.eval_every: 50") for key, is_set in wanted.items() if is_set
    ]


def _ledger(recipe: Recipe) -> list[Problem]:
    if not recipe.train.ledger or methods.get(recipe.method.name).data == "pairs":
        return []
    what = f"'train.ledger' is kept of pairs, and '{recipe.method.name}' trains on none"
    return [Problem("train.ledger", what, "train.ledger: false, or a method of pairs")]


def _name(recipe: Recipe) -> list[Problem]:
    if recipe.name is None:
        return []
    name, unknown = _filled(recipe)
    if unknown:
        what = f"'name' holds a field {unknown[0]!r}, which is no key of the recipe"
        return [Problem("name", what, "a dotted key, as in {method.beta}")]
    if NAME.fullmatch(name):
        return []
    fix = "letters, digits, '.', '_', '-', starting with a letter or digit, 80 at most"
    return [Problem("name", f"'name' gives {name[:100]!r}, which cannot be a folder's name", fix)]


def _secrets(recipe: Recipe) -> list[Problem]:
    """Refuse credentials: a recipe is copied into run folders, model cards and trackers."""
    fix = "take it out; tokens come from the environment (HF_TOKEN, WANDB_API_KEY) or a log-in"
    return [
        Problem(key, f"'{key}' holds what looks like an access token or a password", fix)
        for key, value in flat(dataclasses.asdict(recipe)).items()
        if isinstance(value, str) and holds_secret(value)
    ]


def run_name(recipe: Recipe, stem: str) -> str:
    """Return the run's name: `recipe.name` with its fields filled in, or the recipe file's `stem` and eight digits of the digest."""
    if recipe.name is not None:
        return _filled(recipe)[0]
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip(".-_")[:60] or "run"
    return f"{stem}-{digest(recipe)[:8]}"


def _filled(recipe: Recipe) -> tuple[str, list[str]]:
    """Return the name with its {dotted.key} fields filled in, and the fields that are no keys."""
    leaves, unknown = flat(dataclasses.asdict(recipe)), list[str]()

    def fill(match: re.Match[str]) -> str:
        if match[1] not in leaves or match[1] == "name":
            unknown.append(match[1])
            return match[0]
        return str(leaves[match[1]])

    assert recipe.name is not None, "only a given name has fields"
    return re.sub(r"\{([^{}]*)\}", fill, recipe.name), unknown


def flat(value: Any, key: str = "") -> dict[str, Any]:
    """Return the leaves of nested dicts and lists by dotted key (`data.train[0].path`); empty ones are leaves."""
    if isinstance(value, dict) and value:
        return {
            k: v
            for name, item in value.items()
            for k, v in flat(item, f"{key}.{name}" if key else str(name)).items()
        }
    if isinstance(value, list) and value:
        return {k: v for i, item in enumerate(value) for k, v in flat(item, f"{key}[{i}]").items()}
    return {key: value}


def digest(recipe: Recipe) -> str:
    """Return 64 hex digits that two recipes share exactly where every key that decides the result is equal."""
    values = dataclasses.asdict(recipe)
    for key in (*INERT, *(f"train.{name}" for name in INERT_TRAIN)):
        group, _, name = key.rpartition(".")
        (values[group] if group else values).pop(name)
    if plugin := methods.source_digest(recipe.method.name):
        values["plugin"] = plugin
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
