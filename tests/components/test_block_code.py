"""Blocks are saved with the code of their class, and loaded again, here and in diffusers."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import diffusers
import pytest

import loopwright
from loopwright import ModularPipelineBlocks
from loopwright.bridge import from_diffusers
from loopwright.errors import ComponentLoadError, ComponentSaveError, UnknownInputError
from tests.components.hub import TOKEN, Hub

CODE = """
from {library}.modular_pipelines import InputParam, ModularPipelineBlocks, OutputParam, SequentialPipelineBlocks

from .{helper} import double


class Double(ModularPipelineBlocks):
    _requirements = {{"torch": ">=2.0"}}

    def __init__(self, times=1):
        self.times = times
        super().__init__()

    @property
    def inputs(self):
        return [InputParam("x", required=True)]

    @property
    def intermediate_outputs(self):
        return [OutputParam("x")]

    def __call__(self, components, state):
        block_state = self.get_block_state(state)
        for _ in range(self.times):
            block_state.x = double(block_state.x)
        self.set_block_state(state, block_state)
        return components, state


class Twice(SequentialPipelineBlocks):
    block_names = ["first", "second"]
    block_classes = [Double, Double]
"""


def blocks(folder: Path, name: str, library: str = "loopwright") -> Any:
    """The module of a file of blocks, in a package with a file that it imports."""
    package = folder / f"{name}_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / f"{name}_helper.py").write_text("def double(x):\n    return 2 * x\n")
    (package / f"{name}.py").write_text(CODE.format(library=library, helper=f"{name}_helper"))
    for module in (package.name, f"{package.name}.{name}_helper", f"{package.name}.{name}"):
        file = package / f"{module.rpartition('.')[2] if '.' in module else '__init__'}.py"
        found = importlib.util.spec_from_file_location(module, file, submodule_search_locations=[str(package)])
        assert found is not None
        assert found.loader is not None
        sys.modules[module] = importlib.util.module_from_spec(found)
        found.loader.exec_module(sys.modules[module])
    return sys.modules[f"{package.name}.{name}"]


def load(folder: Any, **options: Any) -> Any:
    return ModularPipelineBlocks.from_pretrained(folder, trust_remote_code=True, **options)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_blocks_are_saved_with_their_code_and_what_it_imports(tmp_path: Path) -> None:
    module = blocks(tmp_path, "saved_blocks")
    module.Double().save_pretrained(tmp_path / "saved")
    assert files(tmp_path / "saved") == ["modular_config.json", "saved_blocks.py", "saved_blocks_helper.py"]
    assert json.loads((tmp_path / "saved" / "modular_config.json").read_text()) == {
        "_class_name": "Double",
        "_diffusers_version": diffusers.__version__,
        "auto_map": {"ModularPipelineBlocks": "saved_blocks.Double"},
        "requirements": {"torch": ">=2.0"},
    }
    assert load(tmp_path / "saved").init_pipeline()(x=3, output="x") == 6
    # what is not said in the file is said again
    assert load(tmp_path / "saved", times=3).init_pipeline()(x=3, output="x") == 24


def test_a_pipeline_is_made_of_the_code_in_its_folder(tmp_path: Path) -> None:
    module = blocks(tmp_path, "pipeline_blocks")
    made = module.Twice()
    made.save_pretrained(tmp_path / "saved")
    made.init_pipeline().save_pretrained(tmp_path / "saved")
    pipe = loopwright.ModularPipeline.from_pretrained(tmp_path / "saved", trust_remote_code=True)
    assert pipe(x=3, output="x") == 12
    with pytest.raises(ComponentLoadError, match=r"brings code of its own: `Twice` in pipeline_blocks.py"):
        loopwright.ModularPipeline.from_pretrained(tmp_path / "saved")


def test_what_is_written_for_diffusers_is_loaded_by_both(tmp_path: Path) -> None:
    module = blocks(tmp_path, "their_blocks", library="diffusers")
    from_diffusers(module.Twice()).save_pretrained(tmp_path / "ours")
    module.Twice().save_pretrained(tmp_path / "theirs")
    config = [json.loads((tmp_path / name / "modular_config.json").read_text()) for name in ("ours", "theirs")]
    assert config[0] == config[1]
    assert load(tmp_path / "ours").init_pipeline()(x=3, output="x") == 12
    theirs = diffusers.ModularPipelineBlocks.from_pretrained(str(tmp_path / "ours"), trust_remote_code=True)
    assert theirs.init_pipeline()(x=3, output="x") == 12


def test_blocks_that_are_installed_need_no_code(tmp_path: Path) -> None:
    from_diffusers(diffusers.FluxAutoBlocks()).save_pretrained(tmp_path)
    assert files(tmp_path) == ["modular_config.json"]
    assert isinstance(load(tmp_path), diffusers.FluxAutoBlocks)
    # nor trust, as nothing of theirs would run
    assert isinstance(ModularPipelineBlocks.from_pretrained(tmp_path), diffusers.FluxAutoBlocks)


def test_blocks_go_to_the_hub_and_come_from_there(tmp_path: Path, hub: Hub) -> None:
    module = blocks(tmp_path, "pushed_blocks")
    assert module.Double().push_to_hub("me/blocks", token=TOKEN) == "me/blocks"
    repo = hub.repos["me/blocks"]
    assert repo.messages[1:] == ["Upload Double"]
    first = repo.names["main"]
    assert load("me/blocks").init_pipeline()(x=3, output="x") == 6
    repo.commit({"modular_config.json": b"{}"})
    assert load("me/blocks", revision=first).init_pipeline()(x=3, output="x") == 6
    assert ModularPipelineBlocks.load_config("me/blocks", revision=first)["_class_name"] == "Double"


def test_blocks_of_a_script_are_saved_under_its_name(tmp_path: Path) -> None:
    script = tmp_path / "my_script.py"
    script.write_text(
        "import loopwright\n"
        "class Mine(loopwright.ModularPipelineBlocks):\n"
        "    def __call__(self, components, state):\n"
        "        return components, state\n"
        "if __name__ == '__main__':\n"
        f"    Mine().save_pretrained({str(tmp_path / 'saved')!r})\n"
    )
    subprocess.run([sys.executable, str(script)], check=True, capture_output=True)
    assert files(tmp_path / "saved") == ["modular_config.json", "my_script.py"]
    assert type(load(tmp_path / "saved")).__name__ == "Mine"


def test_files_of_the_same_name_in_two_folders_are_two(tmp_path: Path) -> None:
    code = CODE.format(library="diffusers", helper="helper")
    for name, factor in (("two", 2), ("three", 3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "block.py").write_text(code)
        (tmp_path / name / "helper.py").write_text(f"def double(x):\n    return {factor} * x\n")
        config = {"auto_map": {"ModularPipelineBlocks": "block.Double"}}
        (tmp_path / name / "modular_config.json").write_text(json.dumps(config))
    two, three = (load(tmp_path / name).init_pipeline() for name in ("two", "three"))
    assert (two(x=1, output="x"), three(x=1, output="x")) == (2, 3)
    # what has changed since is read again
    (tmp_path / "two" / "helper.py").write_text("def double(x):\n    return 20 * x\n")
    assert load(tmp_path / "two").init_pipeline()(x=1, output="x") == 20
    assert two(x=1, output="x") == 2
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == [
        "block.py",
        "helper.py",
        "modular_config.json",
    ]


def test_code_does_not_run_where_that_is_forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = blocks(tmp_path, "forbidden_blocks")
    module.Double().save_pretrained(tmp_path / "saved")
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.DIFFUSERS_DISABLE_REMOTE_CODE", True)
    with pytest.raises(ComponentLoadError) as caught:
        load(tmp_path / "saved")
    assert str(caught.value) == (
        f"{tmp_path / 'saved'} brings code of its own, `Double` in forbidden_blocks.py, and the environment variable "
        "DIFFUSERS_DISABLE_REMOTE_CODE forbids that it runs"
    )


class Local(ModularPipelineBlocks):
    pass


def test_what_has_no_code_to_save_is_an_error(tmp_path: Path) -> None:
    parts = loopwright.SequentialPipelineBlocks.from_blocks_dict({"first": Local})
    with pytest.raises(ComponentSaveError) as caught:
        parts.save_pretrained(tmp_path / "saved")
    assert str(caught.value) == (
        "these blocks were put together without a class of their own, so there is no code to save: write a subclass of "
        "`SequentialPipelineBlocks` with `block_names` and `block_classes`, in a file"
    )
    typed = type("Typed", (ModularPipelineBlocks,), {"__module__": "typed_by_hand"})
    with pytest.raises(ComponentSaveError) as caught:
        typed().save_pretrained(tmp_path / "saved")
    assert str(caught.value) == (
        "`Typed` is not defined in a file, so its code cannot be saved: move it to one, such as typed.py, and import "
        "it from there"
    )
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    ("imported", "others"),
    [
        ("from . import helper\ndouble = helper.double", {"helper.py": "def double(x): return 2 * x"}),
        (
            "from .helper import (\n    double,\n)",
            {"helper.py": "from .more import double", "more.py": "double = 1"},
        ),
        ("from .part import double", {"part/__init__.py": "from .deep import double", "part/deep.py": "double = str"}),
        (
            "from .part.deep import double",
            {"part/__init__.py": "", "part/deep.py": "from ..base import double", "base.py": "double = str"},
        ),
    ],
)
def test_all_that_the_code_imports_with_a_dot_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, imported: str, others: dict[str, str]
) -> None:
    name = f"package_{tmp_path.name}"
    code = CODE.format(library="loopwright", helper="helper").replace("from .helper import double", imported)
    for file, text in {"__init__.py": "", "mine.py": code, **others}.items():
        (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name / file).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module(f"{name}.mine").Double().save_pretrained(tmp_path / "saved")
    assert files(tmp_path / "saved") == sorted(["mine.py", "modular_config.json", *others])
    assert load(tmp_path / "saved").times == 1


def test_a_class_inside_a_function_is_not_saved(tmp_path: Path) -> None:
    class Inside(ModularPipelineBlocks):
        pass

    with pytest.raises(ComponentSaveError, match=r"`Inside` is defined inside `test_a_class_.*` in test_block_code.py"):
        Inside().save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_code_on_the_hub_is_that_of_its_commit_and_needs_no_network_twice(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.dumps({"auto_map": {"ModularPipelineBlocks": "block.Double"}}).encode()
    code = CODE.format(library="diffusers", helper="helper").encode()

    def helper(factor: int) -> bytes:
        return f"def double(x):\n    return {factor} * x\n".encode()

    repo = hub.add("me/code")
    for folder, factor in (("", 2), ("a/", 5), ("b/", 7)):
        changes = {"modular_config.json": config, "block.py": code, "helper.py": helper(factor)}
        repo.commit({f"{folder}{name}": content for name, content in changes.items()})
    first = load("me/code").init_pipeline()
    repo.commit({"helper.py": helper(3)})
    second = load("me/code").init_pipeline()
    assert (first(x=1, output="x"), second(x=1, output="x")) == (2, 3)
    assert [load("me/code", subfolder=name).init_pipeline()(x=1, output="x") for name in ("a", "b")] == [5, 7]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load("me/code").init_pipeline()(x=1, output="x") == 3


def test_blocks_and_index_come_from_one_commit(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from loopwright.bridge import repositories

    repo = hub.add("me/moving")
    index = {"_class_name": "FluxModularPipeline", "_blocks_class_name": "FluxAutoBlocks"}
    repo.commit({"modular_model_index.json": json.dumps(index).encode()})
    named = repositories.blocks_by_name

    def moving(*arguments: Any) -> Any:
        repo.commit({"modular_model_index.json": b"{"})
        return named(*arguments)

    monkeypatch.setattr(repositories, "blocks_by_name", moving)
    assert isinstance(loopwright.ModularPipeline.from_pretrained("me/moving"), diffusers.FluxModularPipeline)


def test_the_index_names_the_class_of_the_pipeline_for_code_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "modular_config.json").write_text(json.dumps({"auto_map": {"ModularPipelineBlocks": "block.Scale"}}))
    (tmp_path / "modular_model_index.json").write_text(json.dumps({"_class_name": "FluxModularPipeline"}))
    code = """
    from diffusers.modular_pipelines import ModularPipelineBlocks, OutputParam

    class Scale(ModularPipelineBlocks):
        @property
        def intermediate_outputs(self):
            return [OutputParam("scale")]

        def __call__(self, components, state):
            state.set("scale", components.vae_scale_factor)
            return components, state
    """
    (tmp_path / "block.py").write_text(textwrap.dedent(code))
    pipe = loopwright.ModularPipeline.from_pretrained(tmp_path, trust_remote_code=True)
    assert isinstance(pipe, diffusers.FluxModularPipeline)
    assert pipe(output="scale") == 8


def test_a_class_of_pipelines_of_ones_own_is_the_one_that_is_made(tmp_path: Path) -> None:
    class Mine(loopwright.ModularPipeline):
        pass

    index = {"_class_name": "ModularPipeline", "_blocks_class_name": "TextToImageBlocks"}
    (tmp_path / "modular_model_index.json").write_text(json.dumps(index))
    assert type(Mine.from_pretrained(tmp_path)) is Mine


@pytest.mark.parametrize(
    "auto_map", [["block.Mine"], "block.Mine", {"ModularPipelineBlocks": ["a"]}, {"ModularPipelineBlocks": "M"}]
)
def test_a_configuration_that_names_no_class_is_an_error(tmp_path: Path, auto_map: Any) -> None:
    (tmp_path / "modular_config.json").write_text(json.dumps({"auto_map": auto_map}))
    with pytest.raises(ComponentLoadError) as caught:
        load(tmp_path)
    assert str(caught.value) == (
        f"modular_config.json of {tmp_path} has {auto_map!r} as `auto_map`; it must be "
        '{"ModularPipelineBlocks": "file.Class"}'
    )


def test_an_argument_that_the_class_does_not_take_is_an_error(tmp_path: Path) -> None:
    blocks(tmp_path, "argument_blocks").Double().save_pretrained(tmp_path / "saved")
    with pytest.raises(UnknownInputError) as caught:
        load(tmp_path / "saved", tiems=3)
    assert str(caught.value) == f"`Double` of {tmp_path / 'saved'} takes no `tiems`, did you mean `times`?"


def test_code_may_load_blocks_of_another_folder_while_it_is_imported(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    code = "from loopwright import ModularPipelineBlocks\n\nclass {}(ModularPipelineBlocks):\n    pass\n"
    (tmp_path / "inner" / "block.py").write_text(code.format("Inner"))
    loads = f"Other = ModularPipelineBlocks.from_pretrained({str(tmp_path / 'inner')!r}, trust_remote_code=True)\n"
    (tmp_path / "block.py").write_text(code.format("Outer") + loads)
    for folder, name in ((tmp_path, "Outer"), (tmp_path / "inner", "Inner")):
        config = {"auto_map": {"ModularPipelineBlocks": f"block.{name}"}}
        (folder / "modular_config.json").write_text(json.dumps(config))
    assert type(load(tmp_path)).__name__ == "Outer"
