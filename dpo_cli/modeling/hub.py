"""From `model.name` to a folder on disk: a path, a run's result, or a hub repository fetched once."""

from __future__ import annotations

from pathlib import Path

from dpo_cli.errors import ModelError

_FILES = ["*.json", "*.jinja", "*.model", "*.txt"]


def model_folder(name: str, revision: str | None, *, weights: bool, key: str = "model.name") -> Path:
    """Give the folder of a model; a hub repository is fetched into the hub's own cache.

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
    """Give the folder of a model that lies here: itself, or `model/` in a finished run's folder. None for anything else."""
    path = Path(name).expanduser()
    if (path / "model" / "config.json").is_file():
        return path / "model"
    return path if path.is_dir() else None


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
