"""A finished folder to a hub repository: only when asked, private unless said otherwise, with the user's own log-in."""

from __future__ import annotations

from pathlib import Path

from dpo_cli.errors import ModelError

_KEY = "--push"
_LOG_IN = "`hf auth login`, or HF_TOKEN in the environment"


def check_token(repository: str) -> None:
    """Check, before any work, that there is a log-in and that the name can be one; sends nothing.

    Raises:
        ModelError: there is none, or the name is no `org/name`.
    """
    from huggingface_hub import get_token

    if repository.count("/") != 1 or not all(repository.split("/")):
        raise ModelError.of(_KEY, f"'{repository}' is no repository name", "ORG/NAME")
    if get_token() is None:
        raise ModelError.of(_KEY, f"no log-in to push '{repository}' with", _LOG_IN)


def push(folder: Path, repository: str, public: bool) -> str:
    """Upload a folder's files in one commit, into a repository that is made where there is none; return the commit's address.

    Args:
        folder: what `dpo export` wrote.
        repository: `org/name`.
        public: make a new repository public, and accept one that is.

    Raises:
        ModelError: the hub refuses or is out of reach; the repository is public and that was not asked for.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

    api = HfApi(endpoint=constants.ENDPOINT)
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        if not public and not api.repo_info(repository).private:
            what = f"'{repository}' is public, and so would be what is pushed to it"
            raise ModelError.of(_KEY, what, "another name, or --public")
        done = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Model exported by dpo-cli"
        )
    except HFValidationError:
        raise ModelError.of(_KEY, f"'{repository}' is no repository name", "ORG/NAME") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        fix = f"a repository that you may write to; {_LOG_IN}" if status in (401, 403) else "try again"
        raise ModelError.of(_KEY, f"the hub refused '{repository}': {status}", fix) from None
    except (HTTPError, OSError) as error:
        what = f"'{repository}' was not pushed: {' '.join(str(error).split())}"
        raise ModelError.of(_KEY, what, f"push {folder} again, for instance by `hf upload`") from None
    return str(done.commit_url)
