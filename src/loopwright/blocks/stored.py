"""Blocks in a folder or a repository: the file that says where their code is, and saving and loading by it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loopwright.blocks.registry import provided

__all__ = ["StoredBlocks"]


class StoredBlocks:
    """What blocks have to be saved and loaded."""

    config_name = "modular_config.json"
    _internal_dict: Mapping[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        """What `register_to_config` was given."""
        return dict(self.__dict__.get("_internal_dict", {}))

    def register_to_config(self, **kwargs: Any) -> None:
        """Add values to what `save_config` writes."""
        self._internal_dict = {**self.config, **kwargs}

    def to_json_string(self) -> str:
        """What `save_config` writes."""
        from diffusers import __version__

        head = {"_class_name": type(self).__name__, "_diffusers_version": __version__}
        return json.dumps({**self.config, **head}, indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: Any) -> None:
        """Write `to_json_string()` to a file."""
        Path(json_file_path).write_text(self.to_json_string(), encoding="utf-8")

    def save_config(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Write modular_config.json into a folder, without the code; `save_pretrained` writes that too.

        Args:
            save_directory: the folder.
            push_to_hub, **kwargs: as for `save_pretrained`.
        """
        provided("saving blocks")(self, save_directory, push_to_hub, with_code=False, **kwargs)

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Save the blocks: modular_config.json, which names their class, and the files of its code.

        The code is the file that defines the class, with the files beside it that it imports with a dot
        (`from .layers import ...`). `from_pretrained` runs it, here and in diffusers.

        Args:
            save_directory: the folder. Other files in it stay as they are.
            push_to_hub: whether the folder is put into a repository on the hub.
            **kwargs: `repo_id`, its name, that of the folder if it is not given; `commit_message`, `private`,
                `create_pr`, `token`; and `subfolder`, the folder of the repository.

        Raises:
            ComponentSaveError: the blocks have no class, or no file, of their own; or they could not be pushed.
        """
        provided("saving blocks")(self, save_directory, push_to_hub, **kwargs)

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
        subfolder: str | None = None,
    ) -> str:
        """Put the blocks into a repository on the hub, as `save_pretrained` would save them.

        Args:
            repo_id: the name of the repository.
            commit_message, private, token, create_pr, subfolder: as for `save_pretrained`.
            safe_serialization, variant: mean nothing here; blocks have no weights.

        Returns:
            The name of the repository.

        Raises:
            ComponentSaveError: as for `save_pretrained`.
        """
        hub = {"commit_message": commit_message, "private": private, "token": token, "create_pr": create_pr}
        provided("saving blocks")(self, None, True, repo_id=repo_id, subfolder=subfolder, **hub)
        return repo_id

    @classmethod
    def load_config(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> dict[str, Any]:
        """What the modular_config.json of a folder or a repository says.

        Args:
            pretrained_model_name_or_path: the folder, or the name of the repository on the hub.
            **kwargs: `revision`, `subfolder`, `token`, `cache_dir`, `force_download`, `local_files_only`, `proxies`.

        Raises:
            ComponentLoadError: there is none, or it cannot be read.
        """
        config: dict[str, Any] = provided("config of blocks")(pretrained_model_name_or_path, **kwargs)
        return config

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, trust_remote_code: bool = False, **kwargs: Any) -> Any:
        """Blocks whose code is in a folder or a repository.

        Args:
            pretrained_model_name_or_path: the folder, or the name of the repository on the hub.
            trust_remote_code: whether the code may run. Read it first.
            **kwargs: as for `load_config`; others go to the class of the blocks.

        Raises:
            ComponentLoadError: there are no blocks; or their code is not trusted, or fails, or needs packages that are
                not installed.
        """
        return provided("loading blocks")(pretrained_model_name_or_path, trust_remote_code, **kwargs)
