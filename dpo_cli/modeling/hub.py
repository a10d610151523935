"""From `model.name` to a folder on disk: a path, a run's result, or a hub repository fetched once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from dpo_cli.errors import ModelError

ADAPTER_CONFIG = "adapter_config.json"
"""What makes a folder an adapter's: its settings, and the base model it belongs to."""
_FILES = ["*.json", "*.jinja", "*.model", "*.txt"]


@dataclass(frozen=True)
class Start:
    """The model that a run starts from."""

    base: Path
    """Folder of a whole model."""
    base_name: str
    """What to call it: a hub id, or an absolute path."""
    base_revision: str | None = None
    adapter: Path | None = None
    """Folder of an adapter on that base; None where the start is the base itself."""

    @property
    def folder(self) -> Path:
        """The folder that the recipe names."""
        return self.adapter or self.base

    @property
    def tokenizer(self) -> Path:
        """The folder of its tokenizer: an adapter may have been saved without one."""
        has_own = self.adapter is not None and any(self.adapter.glob("tokenizer*"))
        return self.folder if has_own else self.base


def model_start(name: str, revision: str | None, *, weights: bool, key: str = "model.name") -> Start:
    """Return the model behind a name; of an adapter also the base that it names.

    Raises:
        ModelError: as `model_folder`; an adapter that names no base.
    """
    folder = model_folder(name, revision, weights=weights, key=key)
    if not (folder / ADAPTER_CONFIG).is_file() or (folder / "config.json").is_file():
        return Start(folder, _called(name, folder), revision)
    path = folder / ADAPTER_CONFIG
    try:
        stated = json.loads(path.read_text())
        base, pinned = stated["base_model_name_or_path"], stated.get("revision")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        base, pinned = None, None
    if not isinstance(base, str) or not base:
        raise ModelError.of(
            str(path), "the adapter does not say which model it belongs to", "base_model_name_or_path there"
        )
    under = model_folder(base, pinned, weights=weights, key=f"{path}: base_model_name_or_path")
    if not (under / "config.json").is_file():
        raise ModelError.of(
            str(path), f"its base {under} is no whole model", "merge that adapter into its own base first"
        )
    return Start(under, _called(base, under), pinned, folder)


def _called(name: str, folder: Path) -> str:
    return str(folder.resolve()) if local_folder(name) else name


def model_folder(name: str, revision: str | None, *, weights: bool, key: str = "model.name") -> Path:
    """Return the folder of a model; a hub repository is fetched into the hub's own cache.

    Args:
        name: a folder, a finished run's folder (its `model/` is taken), or a hub id.
        revision: branch, tag or commit of a hub id.
        weights: fetch the weights too.
        key: the recipe's key, for messages.

    Raises:
        ModelError: no such folder; unknown, gated or unreachable on the hub; no such revision.
    """
    folder, path = local_folder(name), Path(name).expanduser()
    if folder is not None:
        return folder
    if path.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise ModelError.of(
            key, f"no such model folder: {path}", "check the path; `make demo` brings the quickstart's model"
        )
    return _fetch(name, revision, [*_FILES, "*.safetensors"] if weights else _FILES, key)


def local_folder(name: str) -> Path | None:
    """Return the folder of a model that lies here: itself, or `model/` in a finished run's folder. None for anything else."""
    path = Path(name).expanduser()
    if any((path / "model" / name).is_file() for name in ("config.json", ADAPTER_CONFIG)):
        return path / "model"
    return path if path.is_dir() else None


def commit_of(folder: Path) -> str | None:
    """Return the commit of a folder in the hub's cache; None for any other."""
    return folder.name if folder.parent.name == "snapshots" else None


def _fetch(name: str, revision: str | None, patterns: list[str], key: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except HFValidationError:
        raise ModelError.of(
            key, f"'{name}' is neither a folder nor a hub id", "a folder, or `org/name`"
        ) from None
    except GatedRepoError:
        raise ModelError.of(
            key, f"'{name}' is gated", "accept its terms on the hub, then `hf auth login`"
        ) from None
    except RevisionNotFoundError:
        raise ModelError.of(
            "model.revision", f"'{name}' has no revision '{revision}'", "a branch, tag or commit of it"
        ) from None
    except RepositoryNotFoundError:
        raise ModelError.of(
            key, f"the hub has no '{name}'", "check the name, or `hf auth login` if it is private"
        ) from None
    except LocalEntryNotFoundError:
        what = f"'{name}' is neither a folder here nor in the cache, and the hub is not reachable"
        raise ModelError.of(
            key, what, "name a local folder, or go online once so that it is cached"
        ) from None
    except HfHubHTTPError as error:
        raise ModelError.of(
            key,
            f"the hub refused '{name}': {error.response.status_code}",
            "try again, or name a local folder",
        ) from None
    except (HTTPError, OSError) as error:
        what = f"the download of '{name}' broke off: {' '.join(str(error).split())}"
        raise ModelError.of(key, what, "run the same command again: what has arrived is kept") from None
