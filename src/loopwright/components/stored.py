"""Saving a pipeline, to a folder and to the hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from diffusers.configuration_utils import ConfigMixin, FrozenDict
from diffusers.utils import PushToHubMixin

from loopwright.blocks.base import ModularPipelineBlocks
from loopwright.components.index import CREATED, MODULAR_INDEX, index_entry, library_and_class
from loopwright.components.model_card import write_model_card
from loopwright.components.pushing import create_repository, upload
from loopwright.components.saving import configuration, is_as_made, push_options, save_component, staged
from loopwright.errors import InvalidInputError
from loopwright.specs import ComponentSpec

__all__ = ["StoredComponents"]


class StoredComponents(ConfigMixin, PushToHubMixin):  # type: ignore[misc]
    """What has components to be saved: a pipeline. Its `config` is what the index says."""

    config_name = MODULAR_INDEX
    _blocks: ModularPipelineBlocks
    _component_specs: dict[str, ComponentSpec]

    @property
    def components(self) -> dict[str, Any]:
        """The components by name; None for those that are not loaded."""
        return {name: getattr(self, name) for name in self._component_specs}

    def save_pretrained(
        self,
        save_directory: Any,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save the components, each in a folder of its name, and the index, which `from_pretrained` reads.

        All that is there is saved, also what was never loaded from anywhere; but for what the blocks make themselves,
        unless it was replaced by something else. The index says of components that are not there where they would have
        been loaded from. If anything fails, the folder is as it was before.

        Args:
            save_directory: the folder. Other files in it stay as they are.
            safe_serialization: whether weights are safetensors, or pickled.
            variant: the variant of the weights, for the names of their files.
            max_shard_size: how large a file of weights may be, in bytes or as `"5GB"`.
            push_to_hub: whether the folder is put into a repository on the hub, with a page that describes it.
            **kwargs: `repo_id`, its name, that of the folder if it is not given; `commit_message`, `private`,
                `create_pr`, `token`; `update_model_card`, whether the text of its page is written anew;
                `overwrite_modular_index=False`, by which the index goes on naming the places that components were
                loaded from.

        Raises:
            ComponentSaveError: something cannot be saved, or not be pushed.
            UnknownInputError: there is no such option.
        """
        options = push_options(save_directory, kwargs, ("overwrite_modular_index",))
        files: dict[str, Any] = {"safe_serialization": safe_serialization, "variant": variant}
        if max_shard_size is not None:
            files["max_shard_size"] = max_shard_size
        repo_id = create_repository(options) if push_to_hub else None
        folder = Path(save_directory)
        with staged(folder) as staging:
            index = self._saved(
                staging, repo_id or str(save_directory), files, kwargs.get("overwrite_modular_index", True)
            )
            index.save_config(str(staging))
            if repo_id is not None:
                brings_code = (folder / "modular_config.json").is_file()
                update = bool(options["update_model_card"])
                write_model_card(self._blocks, staging, folder, repo_id, options["token"], update, brings_code)
        if repo_id is not None:
            upload(folder, repo_id, options, type(self).__name__)

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
        """Put the pipeline into a repository on the hub, as `save_pretrained` would save it.

        Args:
            repo_id: the name of the repository.
            commit_message, private, token, create_pr, safe_serialization, variant: as for `save_pretrained`.
            subfolder: None; a pipeline is at the top of its repository.

        Returns:
            The name of the repository.

        Raises:
            ComponentSaveError: something cannot be saved, or not be pushed.
            InvalidInputError: a subfolder was given.
        """
        if subfolder:
            raise InvalidInputError(
                f"`subfolder` is {subfolder!r}, and a pipeline is at the top of its repository; leave it out"
            )
        hub = {"commit_message": commit_message, "private": private, "token": token, "create_pr": create_pr}
        with TemporaryDirectory() as folder:
            place = Path(folder) / "pipeline"
            self.save_pretrained(place, safe_serialization, variant, push_to_hub=True, repo_id=repo_id, **hub)
        return repo_id

    def _saved(self, folder: Path, source: str, files: dict[str, Any], overwrite: bool) -> Self:
        """Save the components; a copy of the pipeline's configuration says where they are then.

        Args:
            folder: where they are saved.
            source: the name that the index has for this place.
            files: what `save_component` takes.
            overwrite: whether the index says so of components, too, that were loaded from elsewhere.
        """
        declared = {spec.name: spec for spec in self._blocks.expected_components}
        entries = {name: value for name, value in self.config.items() if name != CREATED}
        created = {}
        for name, component in self.components.items():
            spec = self._component_specs[name]
            made = spec.default_creation_method == "from_config"
            if component is None:
                continue
            if made and is_as_made(declared.get(name), component):
                entries.pop(name, None)
                continue
            if made and not hasattr(component, "from_pretrained"):
                entries.pop(name, None)
                created[name] = (*library_and_class(component), configuration(component))
                continue
            taken = save_component(name, component, folder / name, **files)
            if overwrite or made or getattr(component, "_diffusers_load_id", "null") == "null":
                spec = replace(
                    spec,
                    type_hint=type(getattr(component, "_orig_mod", component)),  # what `torch.compile` wraps
                    pretrained_model_name_or_path=source,
                    subfolder=name,
                    variant=files["variant"] if "variant" in taken else None,
                    revision=None,
                    repo=None,
                )
            entries[name] = index_entry(component, spec)
        if created:
            entries[CREATED] = created
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__, _internal_dict=FrozenDict(entries))
        return copy
