"""Putting what was saved into a repository on the hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loopwright.components.saving import STAGING
from loopwright.errors import ComponentSaveError

__all__ = ["create_repository", "upload"]


def create_repository(options: Mapping[str, Any]) -> str:
    """The repository that is pushed to, made if it is not there; its full name.

    Args:
        options: what `push_options` gave.

    Raises:
        ComponentSaveError: the hub cannot be reached, or does not let this user write there.
    """
    from huggingface_hub import create_repo

    with _pushing(options["repo_id"]):
        made = create_repo(options["repo_id"], exist_ok=True, private=options["private"], token=options["token"])
    return str(made.repo_id)


def upload(folder: Path, repo_id: str, options: Mapping[str, Any], what: str, subfolder: str | None = None) -> Any:
    """Put the files of a folder into a repository, as one commit.

    Args:
        folder: the folder.
        repo_id: the name of the repository.
        options: what `push_options` gave.
        what: what is pushed, for the message of the commit.
        subfolder: the folder of the repository that the files go to.

    Returns:
        What the hub says about the commit.

    Raises:
        ComponentSaveError: as for `create_repository`.
    """
    from huggingface_hub import upload_folder

    with _pushing(repo_id):
        return upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            path_in_repo=subfolder,
            token=options["token"],
            commit_message=options["commit_message"] or f"Upload {what}",
            create_pr=bool(options["create_pr"]),
            ignore_patterns=[f"{STAGING}*"],  # what a process that was killed left behind
        )


@contextmanager
def _pushing(repo_id: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise ComponentSaveError(
            f"nothing can be pushed to {repo_id} offline: take `HF_HUB_OFFLINE` out of the environment, or save to a "
            f"folder"
        ) from error
    except HfHubHTTPError as error:
        refused = getattr(error.response, "status_code", None) in (401, 403)
        raise ComponentSaveError(
            f"you may not write to the repository {repo_id}: log in with `hf auth login`, or give `token=...`"
            if refused
            else f"nothing could be pushed to {repo_id}: {error}"
        ) from error
    except Exception as error:
        raise ComponentSaveError(f"nothing could be pushed to {repo_id}: {error}") from error
