"""`dpo fetch`: everything of a recipe that lies on a hub, brought here before a job without network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dpo_cli.data.sources.files import find_files, is_dataset
from dpo_cli.errors import UserError
from dpo_cli.modeling.hub import commit_of, model_start
from dpo_cli.recipe.schema import Recipe, Source


@dataclass(frozen=True)
class Fetched:
    """One thing that a run reads, and where it lies now."""

    key: str
    """The recipe's key that names it."""
    name: str
    place: Path
    commit: str | None = None
    """Commit of a hub repository; None for what lies here anyway."""
    pin: str | None = None
    """The key that would pin that commit, where the recipe pins none."""

    def lines(self) -> list[str]:
        """Say it, and how to pin it."""
        at = f" at {self.commit[:12]}" if self.commit else ""
        lines = [f"{self.key:<16} {self.name}{at}: {self.place}"]
        return lines + ([f"{'':<16} not pinned; to pin it, {self.pin}: {self.commit}"] if self.pin else [])


def fetch(recipe: Recipe) -> list[Fetched]:
    """Bring a recipe's model, tokenizer, reference and data sets into the hub's own cache; what is local is only looked for.

    Raises:
        UserError: everything that is missing, gated or out of reach, at once; the exit code is that of the first.
    """
    model, reference = recipe.model, recipe.reference
    jobs = [lambda: _model("model.name", model.name, model.revision, "model.revision")]
    if model.tokenizer is not None:
        tokenizer = model.tokenizer
        jobs.append(lambda: [_tokenizer(tokenizer)])
    if reference.model is not None:
        name, revision = reference.model, reference.revision
        jobs.append(lambda: _model("reference.model", name, revision, "reference.revision"))
    sources = [(f"data.train[{i}]", source) for i, source in enumerate(recipe.data.train)]
    sources += [(f"data.eval[{i}]", source) for i, source in enumerate(recipe.data.eval)]
    jobs += [_data_job(key, source) for key, source in sources]
    found, errors = list[Fetched](), list[UserError]()
    for job in jobs:
        try:
            found += job()
        except UserError as error:
            errors.append(error)
    if errors:
        raise type(errors[0])([problem for error in errors for problem in error.problems])
    return found


def _model(key: str, name: str, revision: str | None, pin: str) -> list[Fetched]:
    """Fetch a model with its weights; of an adapter its base too, which the adapter's own settings pin."""
    start = model_start(name, revision, weights=True, key=key)
    found = [_fetched(key, name, start.folder, None if revision else pin)]
    if start.adapter is not None:
        found.append(_fetched(f"{key}, base", start.base_name, start.base, None))
    return found


def _tokenizer(name: str) -> Fetched:
    key = "model.tokenizer"
    return _fetched(key, name, model_start(name, None, weights=False, key=key).folder, None)


def _fetched(key: str, name: str, folder: Path, pin: str | None) -> Fetched:
    commit = commit_of(folder)
    return Fetched(key, name, folder, commit, pin if commit else None)


def _data_job(key: str, source: Source) -> Callable[[], list[Fetched]]:
    return lambda: _data(key, source)


def _data(key: str, source: Source) -> list[Fetched]:
    if not is_dataset(source.path):
        return [Fetched(f"{key}.path", source.path, file) for file in find_files(source.path, key)]
    from dpo_cli.data.sources.hub import fetch_dataset

    place, commit = fetch_dataset(source, key)
    pin = f"{key}.revision" if commit and source.revision is None else None
    return [Fetched(f"{key}.path", source.path, place, commit, pin)]
