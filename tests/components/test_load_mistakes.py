"""What is wrong with what is to be loaded is said: which component, where from, which file, and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

import loopwright
from loopwright.bridge import from_diffusers
from loopwright.errors import ComponentLoadError, InvalidInputError, LoopwrightError, UnknownComponentError
from tests.bridge.families import flux

MODULAR, CLASSIC = "modular_model_index.json", "model_index.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pipeline, in which nothing is wrong; its index is a classic one."""
    made = flux.components()
    made.pop("image_processor")
    folder: Path = tmp_path_factory.mktemp("whole") / "flux"
    diffusers.FluxPipeline(**made).save_pretrained(folder)
    return folder


@dataclass
class Mistake:
    """A mistake that is made in a copy of the folder, and what is said of it; `{folder}` stands for the copy."""

    name: str
    message: str
    make: Callable[[Path], Any] = lambda folder: None
    load: Callable[[Path], Any] = lambda folder: pipeline(folder).load_components()
    error: type[LoopwrightError] = ComponentLoadError

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def pipeline(folder: Path | str, **options: Any) -> Any:
    return loopwright.ModularPipeline.from_pretrained(folder, **options)


def only(*names: str, **options: Any) -> Callable[[Path], Any]:
    """Loads some components alone."""
    return lambda folder: pipeline(folder).load_components(list(names), **options)


def write(name: str, content: str | bytes) -> Callable[[Path], Any]:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def remove(name: str) -> Callable[[Path], Any]:
    return lambda folder: shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()


def index(**changes: Any) -> Callable[[Path], Any]:
    """Changes entries of the index."""
    return edit(CLASSIC, **changes)


def edit(name: str, **changes: Any) -> Callable[[Path], Any]:
    """Changes values of a JSON file."""

    def change(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**values, **changes}))

    return change


def weights(name: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], Any]:
    """Changes the tensors of a file."""

    def rewrite(folder: Path) -> None:
        tensors = dict(load_file(folder / name))
        change(tensors)
        save_file(tensors, folder / name, metadata={"format": "pt"})

    return rewrite


def modular(**values: Any) -> Callable[[Path], Any]:
    """Puts a modular index in the place of the classic one."""

    def replace(folder: Path) -> None:
        (folder / CLASSIC).unlink()
        (folder / MODULAR).write_text(json.dumps({"_class_name": "ModularPipeline", **values}))

    return replace


def half(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-1000])


def code(text: str, **config: Any) -> Callable[[Path], Any]:
    """Gives the folder blocks of its own."""

    def bring(folder: Path) -> None:
        (folder / "my_blocks_code.py").write_text(text)
        auto_map = {"auto_map": {"ModularPipelineBlocks": "my_blocks_code.Mine"}}
        (folder / "modular_config.json").write_text(json.dumps({**auto_map, **config}))

    return bring


def shards(folder: Path) -> None:
    diffusers.FluxTransformer2DModel.from_pretrained(folder / "transformer").save_pretrained(
        folder / "transformer", max_shard_size="20KB"
    )
    (folder / "transformer" / WEIGHTS).unlink()
    sorted((folder / "transformer").glob("*-of-*"))[1].unlink()


def spec(*args: Any, **kwargs: Any) -> loopwright.ComponentSpec:
    return loopwright.ComponentSpec(*args, **kwargs)


def blank() -> Any:
    return from_diffusers(diffusers.FluxAutoBlocks()).init_pipeline()


def replaced() -> Any:
    """A pipeline whose transformer is another one than the blocks name."""
    pipe = blank()
    pipe.update_components(transformer=torch.nn.Linear(1, 1))
    return pipe


VAE = "component `vae` (AutoencoderKL) could not be loaded from {folder}/vae: "
TRANSFORMER = "component `transformer` (FluxTransformer2DModel) could not be loaded from {folder}/transformer: "
ENCODER = "component `text_encoder` (CLIPTextModel) could not be loaded from {folder}/text_encoder: "

MISTAKES = [
    Mistake(
        "a folder that is not there",
        "there is no folder {folder}/absent, and it is not the name of a repository either, which looks like "
        "`owner/name`",
        load=lambda folder: pipeline(folder / "absent"),
    ),
    Mistake(
        "a name that is none",
        "there is no folder flux, and it is not the name of a repository either, which looks like `owner/name`",
        load=lambda folder: pipeline("flux"),
    ),
    Mistake(
        "a path with spaces",
        "there is no folder my models/flux, and it is not the name of a repository either, which looks like "
        "`owner/name`",
        load=lambda folder: pipeline("my models/flux"),
    ),
    Mistake(
        "a folder without an index",
        "{folder} holds no pipeline: it has neither modular_model_index.json nor model_index.json nor "
        "modular_config.json",
        remove(CLASSIC),
    ),
    Mistake(
        "an index that is cut off",
        "model_index.json of {folder} is not JSON: Expecting value: line 1 column 10 (char 9)",
        write(CLASSIC, '{"vae": ['),
    ),
    Mistake(
        "an index that is a list",
        "model_index.json of {folder} holds [1]; it must be a JSON object",
        write(CLASSIC, "[1]"),
    ),
    Mistake(
        "a class of pipelines that is a number",
        "model_index.json of {folder} has 3 as `_class_name`; it must be a name",
        index(_class_name=3),
    ),
    Mistake(
        "a class of pipelines that there is not",
        "model_index.json of {folder} names the pipeline `FluxPipelin`, which diffusers 0.42.1 does not have, did "
        "you mean `FluxPipeline`?",
        index(_class_name="FluxPipelin"),
    ),
    Mistake(
        "a class of pipelines without blocks",
        "the pipeline of model_index.json of {folder} has no blocks: `AudioLDM2Pipeline` has no blocks in "
        "diffusers 0.42.1, so it cannot be run here; ...",
        index(_class_name="AudioLDM2Pipeline"),
    ),
    Mistake(
        "a class of a component that there is not",
        "model_index.json of {folder} says that component `vae` is an `AutoencoderKLL`, which diffusers 0.42.1 "
        "does not have, did you mean `AutoencoderKL`?",
        index(vae=["diffusers", "AutoencoderKLL"]),
    ),
    Mistake(
        "an index of a later version",
        "model_index.json of {folder} says that component `vae` is an `AutoencoderFuture`, which diffusers 0.42.1 "
        "does not have, did you mean `AutoencoderKLFlux2`?; the index was written by diffusers 0.99.0",
        index(_diffusers_version="0.99.0", vae=["diffusers", "AutoencoderFuture"]),
    ),
    Mistake(
        "a library that is not known",
        "model_index.json of {folder} takes component `vae` from `no_such.library`, and an index does not choose what "
        "is imported; if you trust it, `import no_such.library` before",
        index(vae=["no_such.library", "Model"]),
    ),
    Mistake(
        "a class that is a function",
        "model_index.json of {folder} says that component `vae` is a `join`, which posixpath does not have",
        index(vae=["posixpath", "join"]),
    ),
    Mistake(
        "a component of another kind in the index",
        "model_index.json of {folder} has for component `vae` a `DDIMScheduler`, which is a scheduler, where the "
        "blocks expect a model, `AutoencoderKL`; correct the file, or use blocks that work with it",
        index(vae=["diffusers", "DDIMScheduler"]),
    ),
    Mistake(
        "an entry of an index that cannot be read",
        "model_index.json of {folder} has 'AutoencoderKL' for component `vae`, where [library, class] belongs; "
        "the index was written by diffusers 0.2.0; save the pipeline anew, or correct the file",
        index(vae="AutoencoderKL", _diffusers_version="0.2.0"),
    ),
    Mistake(
        "an index that does not name its blocks",
        "modular_model_index.json of {folder} does not name the class of its blocks; make the pipeline with "
        "blocks of your own: `blocks.init_pipeline('{folder}')`",
        modular(),
    ),
    Mistake(
        "blocks that there are not",
        "modular_model_index.json of {folder} names the blocks `FluxAutoBlock`, which neither loopwright nor "
        "diffusers 0.42.1 has, did you mean `FluxAutoBlocks`?; make the pipeline with your own blocks: "
        "`FluxAutoBlock().init_pipeline(...)`",
        modular(_blocks_class_name="FluxAutoBlock"),
    ),
    Mistake(
        "blocks without a class",
        "modular_model_index.json of {folder} does not say what its blocks are: they were put together without a "
        "class of their own. Make them again, and call `blocks.init_pipeline('{folder}')`",
        modular(_blocks_class_name="SequentialPipelineBlocks"),
    ),
    Mistake(
        "half a file of weights",
        "component `vae` (AutoencoderKL) could not be loaded from {folder}/vae: "
        "diffusion_pytorch_model.safetensors is damaged, as it has 58,076 of 59,076 bytes: it was not copied or "
        "downloaded whole; get the file again",
        half(f"vae/{WEIGHTS}"),
    ),
    Mistake(
        "half a file of weights of a text encoder",
        "component `text_encoder` (CLIPTextModel) could not be loaded from {folder}/text_encoder: "
        "model.safetensors is damaged, as it has 141,200 of 142,200 bytes: it was not copied or downloaded whole; "
        "get the file again",
        half("text_encoder/model.safetensors"),
    ),
    Mistake(
        "an empty file of weights",
        "component `vae` (AutoencoderKL) could not be loaded from {folder}/vae: "
        "diffusion_pytorch_model.safetensors is damaged, as it has 0 bytes: it was not copied or downloaded "
        "whole; get the file again",
        write(f"vae/{WEIGHTS}", b""),
    ),
    Mistake(
        "a file of weights that is something else",
        "component `vae` (AutoencoderKL) could not be loaded from {folder}/vae: "
        "diffusion_pytorch_model.safetensors is damaged, as it ends within its header: it was not copied or "
        "downloaded whole; get the file again",
        write(f"vae/{WEIGHTS}", b"<html>not found</html>"),
    ),
    Mistake(
        "a pointer in place of the weights",
        "component `vae` (AutoencoderKL) could not be loaded from {folder}/vae: "
        "diffusion_pytorch_model.safetensors is a pointer of Git LFS, not the weights: run `git lfs pull` in the "
        "repository's folder",
        write(f"vae/{WEIGHTS}", "version https://git-lfs.github.com/spec/v1\n"),
    ),
    Mistake(
        "shapes that do not fit",
        "component `vae` (AutoencoderKL) could not be loaded from {folder}/vae: "
        "diffusion_pytorch_model.safetensors does not fit config.json: `decoder.conv_in.weight` is 8×4×3×3 in the "
        "file, and 8×6×3×3 by the configuration; the two files are of different models",
        edit("vae/config.json", latent_channels=6),
    ),
    Mistake(
        "shapes of a text encoder that do not fit",
        "component `text_encoder` (CLIPTextModel) could not be loaded from {folder}/text_encoder: "
        "model.safetensors does not fit config.json: `encoder.layers.0.mlp.fc1.bias` is 32 in the file, and 48 by "
        "the configuration; the two files are of different models",
        edit("text_encoder/config.json", intermediate_size=48),
    ),
    Mistake(
        "no weights",
        "component `vae` (AutoencoderKL) could not be loaded from {folder}/vae: there is no file of weights, such "
        "as a .safetensors file; the folder has config.json",
        remove(f"vae/{WEIGHTS}"),
    ),
    Mistake(
        "no weights of a text encoder",
        "component `text_encoder` (CLIPTextModel) could not be loaded from {folder}/text_encoder: there is no "
        "file of weights, such as a .safetensors file; the folder has config.json",
        remove("text_encoder/model.safetensors"),
    ),
    Mistake(
        "a variant that there is not",
        "component `vae` (AutoencoderKL) could not be loaded from {folder}/vae: there are no weights of the "
        "variant `fp16`; leave `variant` out for diffusion_pytorch_model.safetensors",
        load=only("vae", variant="fp16"),
    ),
    Mistake(
        "a variant that is misspelt",
        "component `vae` (AutoencoderKL) could not be loaded from {folder}/vae: there are no weights of the "
        "variant `fp61`, did you mean `fp16`?; its variants are fp16",
        lambda folder: (folder / "vae" / WEIGHTS).rename(folder / "vae" / "diffusion_pytorch_model.fp16.safetensors"),
        only("vae", variant="fp61"),
    ),
    Mistake(
        "a variant that must be given",
        "component `vae` (AutoencoderKL) could not be loaded from {folder}/vae: there are no weights but those of "
        "a variant: give `variant='fp16'`",
        lambda folder: (folder / "vae" / WEIGHTS).rename(folder / "vae" / "diffusion_pytorch_model.fp16.safetensors"),
    ),
    Mistake(
        "weights that lack a part",
        "component `vae` (AutoencoderKL) could not be loaded from {folder}/vae: its weights lack "
        "`decoder.conv_out.bias`: they are of another model, or only a part of one; give "
        "`ignore_mismatched_sizes=True, low_cpu_mem_usage=False` if the rest is to be random",
        weights(f"vae/{WEIGHTS}", lambda tensors: tensors.pop("decoder.conv_out.bias")),
    ),
    Mistake(
        "weights that lack a part of a model whose class the configuration names",
        "component `vae` (AutoModel) could not be loaded from {folder}/vae: its weights lack `decoder.conv_out.bias`: "
        "they are of another model, or only a part of one; give `ignore_mismatched_sizes=True, "
        "low_cpu_mem_usage=False` if the rest is to be random",
        weights(f"vae/{WEIGHTS}", lambda tensors: tensors.pop("decoder.conv_out.bias")),
        lambda folder: spec("vae", repo=str(folder), subfolder="vae").load(),
    ),
    Mistake(
        "weights of a text encoder that lack a part",
        "component `text_encoder` (CLIPTextModel) could not be loaded from {folder}/text_encoder: its weights "
        "lack `encoder.layers.1.layer_norm1.bias`, `encoder.layers.1.layer_norm1.weight`, "
        "`encoder.layers.1.layer_norm2.bias` and 13 more: they are of another model, or only a part of one; give "
        "`ignore_mismatched_sizes=True, low_cpu_mem_usage=False` if the rest is to be random",
        weights(
            "text_encoder/model.safetensors",
            lambda tensors: [tensors.pop(name) for name in list(tensors) if "layers.1" in name],
        ),
    ),
    Mistake(
        "a file of several that is missing",
        "component `transformer` (FluxTransformer2DModel) could not be loaded from {folder}/transformer: "
        "diffusion_pytorch_model.safetensors.index.json names diffusion_pytorch_model-00002-of-00017.safetensors, "
        "which the folder does not have: get the files again",
        shards,
    ),
    Mistake(
        "a subfolder that is missing",
        "component `vae` (AutoencoderKL) could not be loaded from {folder}/vae: {folder} has no folder `vae`; its "
        "folders are scheduler, text_encoder, text_encoder_2, tokenizer, tokenizer_2, transformer",
        remove("vae"),
    ),
    Mistake(
        "a configuration that is missing",
        "component `vae` (AutoencoderKL) could not be loaded from {folder}/vae: there is no config.json; the "
        "folder has diffusion_pytorch_model.safetensors",
        remove("vae/config.json"),
    ),
    Mistake(
        "a configuration that is cut off",
        "component `vae` (AutoencoderKL) could not be loaded from {folder}/vae: its config.json is not JSON "
        "(Expecting value: line 1 column 12 (char 11)); get the file again",
        write("vae/config.json", '{"act_fn": '),
    ),
    Mistake(
        "a configuration that is a list",
        VAE + "its config.json holds [1], where a JSON object belongs; get the file again",
        write("vae/config.json", "[1]"),
    ),
    Mistake(
        "a configuration of a scheduler that is a list",
        "component `scheduler` (FlowMatchEulerDiscreteScheduler) could not be loaded from {folder}/scheduler: its "
        "scheduler_config.json holds [1], where a JSON object belongs; get the file again",
        write("scheduler/scheduler_config.json", "[1]"),
    ),
    Mistake(
        "an index of weights that names none",
        "component `transformer` (FluxTransformer2DModel) could not be loaded from {folder}/transformer: its "
        "diffusion_pytorch_model.safetensors.index.json does not say which files the weights are in; get the file "
        "again",
        lambda folder: (shards(folder), write(f"transformer/{WEIGHTS}.index.json", '{"weight_map": [1]}')(folder)),
    ),
    Mistake(
        "a link to weights that leads nowhere",
        VAE + "there is no file of weights, such as a .safetensors file; the folder has config.json",
        lambda folder: ((folder / "vae" / WEIGHTS).unlink(), (folder / "vae" / WEIGHTS).symlink_to("nowhere")),
    ),
    Mistake(
        "a place that is a number",
        "modular_model_index.json of {folder} has [None, None, {'subfolder': 4}] for component `vae`, where [library, "
        "class, {...}] belongs; save the pipeline anew, or correct the file",
        modular(_blocks_class_name="FluxAutoBlocks", vae=[None, None, {"subfolder": 4}]),
    ),
    Mistake(
        "a component to be made of nothing",
        "modular_model_index.json of {folder} has ['diffusers'] for component `image_processor` in "
        "`_created_components`, where [library, class, {...}] belongs; save the pipeline anew, or correct the file",
        modular(_blocks_class_name="FluxAutoBlocks", _created_components={"image_processor": ["diffusers"]}),
    ),
    Mistake(
        "a configuration of a scheduler that is missing",
        "component `scheduler` (FlowMatchEulerDiscreteScheduler) could not be loaded from {folder}/scheduler: "
        "there is no scheduler_config.json; the folder has no files",
        remove("scheduler/scheduler_config.json"),
    ),
    Mistake(
        "a configuration of another class",
        "component `vae` (AutoencoderKL) could not be loaded from {folder}/vae: its configuration is that of a "
        "`UNet2DModel`; take the folder of an `AutoencoderKL`, or change the class",
        edit("vae/config.json", _class_name="UNet2DModel", latent_channels=6),
    ),
    Mistake(
        "files of a tokenizer that are missing",
        "component `tokenizer` (CLIPTokenizer) could not be loaded from {folder}/tokenizer: {folder} has no "
        "folder `tokenizer`, did you mean `tokenizer_2`?; its folders are scheduler, text_encoder, "
        "text_encoder_2, tokenizer_2, transformer, vae",
        remove("tokenizer"),
    ),
    Mistake(
        "a file of a tokenizer that is missing",
        "component `tokenizer` (CLIPTokenizer) could not be loaded from {folder}/tokenizer: it has no vocabulary, "
        "which is in merges.txt or tokenizer.json or vocab.json; get these files",
        remove("tokenizer/tokenizer.json"),
        only("tokenizer"),
    ),
    Mistake(
        "a file of a tokenizer that is cut off",
        "component `tokenizer` (CLIPTokenizer) could not be loaded from {folder}/tokenizer: its tokenizer.json is "
        "not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); get the file "
        "again",
        write("tokenizer/tokenizer.json", "{"),
        only("tokenizer"),
    ),
    Mistake(
        "a package that is not installed",
        "component `vae` of model_index.json of {folder} needs a package that is not installed: OnnxRuntimeModel "
        "requires the onnxruntime library but it was not found in your environment. You can install it with pip: "
        "`pip install onnxruntime`",
        index(vae=["diffusers", "OnnxRuntimeModel"]),
    ),
    Mistake(
        "code that is not trusted",
        "{folder} brings code of its own: `Mine` in my_blocks_code.py. Read the file, and if you trust it, give "
        "`trust_remote_code=True`",
        code(""),
    ),
    Mistake(
        "code that needs a package",
        "the code of {folder} needs packages that are not installed: no-such-package>=1.0, torch<1.0 (not "
        "2.13.0+cpu); install them with `pip install`",
        code("", requirements={"no-such-package": ">=1.0", "torch": "<1.0"}),
        lambda folder: pipeline(folder, trust_remote_code=True),
    ),
    Mistake(
        "code that fails",
        "the blocks `Mine` of {folder} could not be made of my_blocks_code.py: ModuleNotFoundError: No module named "
        "'no_such_module'",
        code("import no_such_module"),
        lambda folder: pipeline(folder, trust_remote_code=True),
    ),
    Mistake(
        "code without the class",
        "the blocks `Mine` of {folder} could not be made of my_blocks_code.py: NameError: it has no class `Mine`, did "
        "you mean `Miner`?",
        code("class Miner: pass"),
        lambda folder: pipeline(folder, trust_remote_code=True),
    ),
    Mistake(
        "code that is missing",
        "modular_config.json of {folder}, which has no my_blocks_code.py, names the blocks `Mine`, which neither "
        "loopwright nor diffusers 0.42.1 has; make the pipeline with your own blocks: `Mine().init_pipeline(...)`",
        lambda folder: (code("")(folder), (folder / "my_blocks_code.py").unlink()),
        lambda folder: pipeline(folder, trust_remote_code=True),
    ),
    Mistake(
        "blocks where there are none",
        "{folder} brings no blocks: modular_config.json is not there, or names no class; a pipeline of blocks "
        "that are installed is loaded with `ModularPipeline.from_pretrained`",
        load=lambda folder: loopwright.ModularPipelineBlocks.from_pretrained(folder, trust_remote_code=True),
    ),
    Mistake(
        "a dtype that is none",
        "the `dtype` of component `vae` is 'flaot16', which is no dtype, did you mean `float16`?; give a "
        "`torch.dtype`, such as `torch.bfloat16`",
        load=only("vae", dtype="flaot16"),
        error=InvalidInputError,
    ),
    Mistake(
        "a dtype that is a number",
        "the `dtype` of component `vae` is 16, which is no dtype; give a `torch.dtype`, such as `torch.bfloat16`",
        load=only("vae", dtype=16),
        error=InvalidInputError,
    ),
    Mistake(
        "a device that there is not",
        "component `vae` (AutoencoderKL) could not be loaded from {folder}/vae: When passing device_map as a "
        "string, the value needs to be a device name (e.g. cpu, cuda:0) or 'auto', 'balanced', 'balanced_low_0', "
        "'sequential' but found gpu.",
        load=only("vae", device_map="gpu"),
    ),
    Mistake(
        "a component that there is not",
        "there is no component `vea` to load, did you mean `vae`?; the blocks expect `text_encoder`, `tokenizer`, "
        "`text_encoder_2`, `tokenizer_2`, `image_processor`, `vae`, `scheduler`, `transformer`",
        load=only("vea"),
        error=UnknownComponentError,
    ),
    Mistake(
        "a value for a component that there is not",
        "`dtype` has a value for `vea`, which is not a component, did you mean `vae`?",
        load=only("vae", dtype={"vea": torch.float16}),
        error=UnknownComponentError,
    ),
    Mistake(
        "no place",
        "component `vae` cannot be loaded, as its `ComponentSpec` does not say from where: name a repository or a "
        "folder, as in `ComponentSpec('vae', AutoencoderKL, repo='owner/model')`",
        load=lambda folder: blank().load_components("vae"),
    ),
    Mistake(
        "a single file without a class",
        "component `vae` is loaded from a single file: its spec needs a `type_hint`",
        load=lambda folder: spec("vae", repo=f"{folder}/vae/{WEIGHTS}").load(),
    ),
    Mistake(
        "a class that cannot be loaded",
        "component `net` (Linear) cannot be loaded: the class has no `from_pretrained`; make the component "
        "yourself, and give it to `pipe.update_components(net=...)`",
        load=lambda folder: spec("net", torch.nn.Linear, repo=str(folder)).load(),
    ),
    Mistake(
        "a file in place of a folder",
        "component `vae` (AutoencoderKL) could not be loaded from {folder}/vae/config.json: config.json is no "
        "file of weights; name the folder, or the repository, that it is in",
        load=lambda folder: spec("vae", diffusers.AutoencoderKL, repo=f"{folder}/vae/config.json").load(),
    ),
    Mistake(
        "a component of another kind",
        "component `vae` cannot be a `DDIMScheduler`, which is a scheduler, where the blocks expect a model, "
        "`AutoencoderKL`: give one of that kind",
        load=lambda folder: blank().update_components(vae=diffusers.DDIMScheduler()),
    ),
    Mistake(
        "a model in place of a scheduler",
        "component `scheduler` cannot be a `Linear`, which is a model, where the blocks expect a scheduler, "
        "`FlowMatchEulerDiscreteScheduler`: give one of that kind",
        load=lambda folder: blank().update_components(scheduler=torch.nn.Linear(1, 1)),
    ),
    Mistake(
        "an autoencoder in place of a transformer",
        "component `transformer` cannot be an `AutoencoderKL`, which is an autoencoder, where the blocks expect a "
        "denoiser, `FluxTransformer2DModel`: give one of that kind",
        load=lambda folder: blank().update_components(transformer=flux.components()["vae"]),
    ),
    Mistake(
        "a scheduler in place of a transformer that was replaced",
        "component `transformer` cannot be a `DDIMScheduler`, which is a scheduler, where the blocks expect a model, "
        "`FluxTransformer2DModel`: give one of that kind",
        load=lambda folder: replaced().update_components(transformer=diffusers.DDIMScheduler()),
    ),
    Mistake(
        "a folder in place of a component",
        "component `vae` cannot be the PosixPath '{folder}/vae': to load it from a repository or a folder, write "
        "`pipe.update_components(vae=ComponentSpec('vae', AutoencoderKL, repo='{folder}/vae'))`",
        load=lambda folder: blank().update_components(vae=folder / "vae"),
    ),
    Mistake(
        "a class in place of a component",
        "component `vae` cannot be the class `AutoencoderKL`: give an instance of it, or `ComponentSpec('vae', "
        "AutoencoderKL, ...)`, which makes one",
        load=lambda folder: blank().update_components(vae=diffusers.AutoencoderKL),
    ),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_a_mistake_is_named(mistake: Mistake, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    mistake.make(folder)
    with pytest.raises(mistake.error) as caught:
        mistake.load(folder)
    said = str(caught.value).replace(str(folder), "{folder}")
    expected, cut, _ = mistake.message.partition("...")
    assert said == expected if not cut else said.startswith(expected)
    assert type(caught.value) is mistake.error


@pytest.mark.parametrize("wrap", [lambda model: model, torch.nn.Sequential])
def test_another_class_of_the_same_kind_and_a_wrapped_one_are_taken(wrap: Callable[[Any], Any]) -> None:
    pipe = blank()
    other = wrap(
        diffusers.UNet2DModel(
            block_out_channels=(8,), down_block_types=["DownBlock2D"], norm_num_groups=2, up_block_types=["UpBlock2D"]
        )
    )
    pipe.update_components(transformer=other, vae=wrap(diffusers.AutoencoderTiny()))
    assert pipe.transformer is other
