"""Where pipelines and components are kept: a folder on this machine, or a repository on the hub."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopwright.errors import ComponentLoadError, brief

__all__ = ["HUB_OPTIONS", "Place", "Repository", "downloaded"]

# the name of a repository on the hub, and not a path that begins like ./x or ../x
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
# what users may say about a repository on the hub
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "token")


@dataclass(frozen=True)
class Place:
    """Where one component comes from.

    Attributes:
        source: a folder, the name of a repository, or a file of weights.
        subfolder: the folder in it.
        variant: the variant of the weights.
        revision: the revision of the repository.
    """

    source: str
    subfolder: str | None = None
    variant: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.source}/{self.subfolder}" if self.subfolder else self.source

    def file(self, name: str) -> str:
        """The name of a file of the component in the repository."""
        return f"{self.subfolder}/{name}" if self.subfolder else name


class Repository:
    """A folder, or a repository on the hub at one revision.

    Args:
        source: the folder, or the name of the repository (`owner/name`).
        **options: `HUB_OPTIONS`; they mean nothing for a folder.

    Attributes:
        revision: the commit that the first file was found at, so that all others come from the same; None for a folder.
        is_reached: False once the hub could not be reached: then only what was downloaded before is known of.
    """

    def __init__(self, source: Any, **options: Any) -> None:
        self.source = str(source)
        self.options = options
        self.revision: str | None = options.pop("revision", None)
        self.is_reached = True
        self.folder = Path(source) if Path(source).is_dir() else None
        if self.folder is None and not _REPOSITORY.fullmatch(self.source):
            raise ComponentLoadError(
                f"there is no folder {self.source}, and it is not the name of a repository either, which looks like "
                f"`owner/name`"
            )

    def __str__(self) -> str:
        return self.source

    def file(self, name: str) -> Path | None:
        """A file of the repository on this machine; None if the repository has none of that name.

        Raises:
            ComponentLoadError: the repository cannot be reached, does not exist, or is closed to this user.
        """
        if self.folder is not None:
            path = self.folder / name
            return path if path.is_file() else None

        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            GatedRepoError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        try:
            # once the hub could not be reached, it is not waited for again
            options = self.options if self.is_reached else {**self.options, "local_files_only": True}
            path = Path(hf_hub_download(self.source, name, revision=self.revision, **options))
        except GatedRepoError as error:
            raise ComponentLoadError(
                f"the repository {self} is gated: accept its terms on its page on the hub, and log in with `hf auth "
                f"login`, or give `token=...`"
            ) from error
        except RepositoryNotFoundError as error:
            raise ComponentLoadError(
                f"there is no repository {self} on the hub, or it is private: check its name, and for a private one "
                f"log in with `hf auth login`, or give `token=...`"
            ) from error
        except RevisionNotFoundError as error:
            raise ComponentLoadError(f"the repository {self} has no revision `{self.revision}`") from error
        except LocalEntryNotFoundError as error:
            if downloaded(self.source, self.revision, self.options.get("cache_dir")) is not None:
                self.is_reached = False
                return None  # as far as can be known
            raise ComponentLoadError(
                f"there is no folder {self}, {name} of a repository of that name is not on this machine, and the hub "
                f"cannot be reached: connect to the network, or give a folder that holds the pipeline"
            ) from error
        except EntryNotFoundError:
            return None
        except (HfHubHTTPError, OSError) as error:
            raise ComponentLoadError(f"{name} of the repository {self} could not be downloaded: {error}") from error
        self.revision = _commit_of(path) or self.revision
        return path

    def json(self, name: str) -> dict[str, Any] | None:
        """The object in a JSON file; None if the repository has no such file.

        Raises:
            ComponentLoadError: the file holds something else, or cannot be had.
        """
        path = self.file(name)
        if path is None:
            return None
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ComponentLoadError(f"{name} of {self} is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise ComponentLoadError(f"{name} of {self} holds {brief(value)}; it must be a JSON object")
        return value


def downloaded(source: str, revision: str | None, cache: Any = None) -> Path | None:
    """The folder of what was downloaded before of a repository, at a revision; None if nothing was."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        # asks for no file, so that the folder need not have all of them
        found = snapshot_download(source, revision=revision, cache_dir=cache, local_files_only=True, allow_patterns=[])
    except LocalEntryNotFoundError:
        return None
    return Path(found)


def _commit_of(path: Path) -> str | None:
    """The commit in the path of a downloaded file: .../snapshots/<commit>/<name>."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts else None
