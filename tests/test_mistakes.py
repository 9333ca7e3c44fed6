"""The mistakes that people make, each with the whole text of the error that they see.

The table reads like a specification: what somebody writes, the class of the error and the builtin by which it can be
caught, its text, and its notes. Mistakes on the command line are in `test_cli.py`, more of those in the inputs of the
diffusion blocks in `diffusion/test_inputs.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import diffusers.modular_pipelines as peer
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from PIL import Image

from loopwright import (
    AutoPipelineBlocks,
    BlockState,
    Checkpoint,
    ComponentSpec,
    ConditionalPipelineBlocks,
    ConfigSpec,
    InputParam,
    LoopSequentialPipelineBlocks,
    ModularPipeline,
    ModularPipelineBlocks,
    OutputParam,
    SequentialPipelineBlocks,
    check,
    describe,
)
from loopwright.diffusion import TextToImageBlocks, embedded_pipeline, load_components, save_image
from loopwright.errors import (
    BlockTypeError,
    CheckError,
    CheckpointError,
    CheckpointMismatchError,
    ComponentLoadError,
    DefinitionError,
    InvalidInputError,
    LoopVariableError,
    MissingComponentError,
    MissingInputError,
    NotDefinedError,
    OutputNotSetError,
    UnknownComponentError,
    UnknownInputError,
    UnknownNameError,
    UnknownValueError,
)
from tests.run.checkpoints.storages import Memory, saved_run

# What the mistakes are made with


def give_back(self: Any, components: Any, state: Any) -> tuple[Any, Any]:
    return components, state


def leaf(call: Callable[..., Any] = give_back, **attributes: Any) -> type[ModularPipelineBlocks]:
    """A class of blocks, `Mine`, with some attributes."""
    return type("Mine", (ModularPipelineBlocks,), {"__call__": call, **attributes})


def composite(base: type, **attributes: Any) -> Any:
    """A class of composites, `Mine`, with some attributes."""
    return type("Mine", (base,), attributes)


def sequence(**blocks: Any) -> SequentialPipelineBlocks:
    return SequentialPipelineBlocks.from_blocks_dict(blocks)


def pipeline(**blocks: Any) -> Any:
    return sequence(**blocks).init_pipeline()


def calling(use: Callable[[Any, Any, Any], Any]) -> Callable[..., tuple[Any, Any]]:
    """A `__call__` that does one thing with the block, `components` and the state."""

    def call(self: Any, components: Any, state: Any) -> tuple[Any, Any]:
        use(self, components, state)
        return components, state

    return call


class Work(ModularPipelineBlocks):
    inputs = [
        InputParam("prompt", required=True),
        InputParam("num_inference_steps", default=20),
        InputParam("guidance_scale", default=3.0),
    ]
    intermediate_outputs = [OutputParam("images")]
    expected_components = [
        ComponentSpec("unet", torch.nn.Linear),
        ComponentSpec("scheduler", EulerDiscreteScheduler, default_creation_method="from_config"),
    ]
    expected_configs = [ConfigSpec("patch_size", 2)]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state.images = [block_state.prompt]
        self.set_block_state(state, block_state)
        return components, state


class Add(ModularPipelineBlocks):
    """A block of a loop."""

    inputs = [InputParam("x", default=0)]
    intermediate_outputs = [OutputParam("x")]

    def __call__(self, components: Any, block_state: Any, i: int) -> tuple[Any, Any]:
        block_state.x += i
        return components, block_state


class Count(LoopSequentialPipelineBlocks):
    block_classes = [Add]
    block_names = ["add"]
    loop_inputs = [InputParam("steps", default=2)]

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        for i in range(block_state.steps):
            yield {"i": i}


class Yields(Count):
    """Yields what it is given, so that its source does not tell."""

    def __init__(self, *variables: Any) -> None:
        super().__init__()
        self.variables = variables

    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        yield from self.variables


class ByHand(LoopSequentialPipelineBlocks):
    """A loop with a `__call__`; what is wrong is in how it calls `loop_step`."""

    block_classes = [Add]
    block_names = ["add"]

    def step(self, components: Any, block_state: Any) -> Any:
        raise NotImplementedError

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        for _ in range(2):
            block_state = self.step(components, block_state)
        self.set_block_state(state, block_state)
        return components, state


class TakesAPair(ByHand):
    def step(self, components: Any, block_state: Any) -> Any:
        return self.loop_step(components, block_state, i=0)


class Swaps(ByHand):
    def step(self, components: Any, block_state: Any) -> Any:
        return self.loop_step(block_state, components, i=0)


class GivesByPosition(ByHand):
    def step(self, components: Any, block_state: Any) -> Any:
        return self.loop_step(components, block_state, 0)  # type: ignore[call-arg]


class GivesTwoByPosition(ByHand):
    """Its blocks take `t`, then `i`."""

    block_classes = [leaf(lambda self, components, block_state, t, i: (components, block_state))]

    def step(self, components: Any, block_state: Any) -> Any:
        for i, _ in enumerate(block_state.timesteps):
            components, block_state = self.loop_step(components, block_state, i, 10 * i, last=False)  # type: ignore[call-arg]
        return block_state


class GivesNothing(ByHand):
    def step(self, components: Any, block_state: Any) -> Any:
        return self.loop_step(components, block_state)


class YieldsState(Count):
    def iterate(self, components: Any, block_state: Any) -> Iterator[dict[str, Any]]:
        yield {"i": 0, "state": block_state}


class Fits(Count):
    """A wrapper with a value that only its blocks could set."""

    loop_intermediate_outputs = [OutputParam("total")]


class Arguments(ModularPipelineBlocks):
    def __init__(self, name: str, size: int = 2) -> None:
        super().__init__()


class Peers(peer.ModularPipelineBlocks):  # type: ignore[misc]
    pass


class Choose(ConditionalPipelineBlocks):
    block_classes = [leaf(inputs=[InputParam("image")]), leaf()]
    block_names = ["image2image", "text2image"]
    block_trigger_inputs = ["image"]
    default_block_name = "text2image"
    chosen: Any = "img2img"

    def select_block(self, **kwargs: Any) -> Any:
        return self.chosen if kwargs["image"] is not None else None


class ChooseClass(Choose):
    chosen = Work


class Workflows(SequentialPipelineBlocks):
    block_classes = [Work]
    block_names = ["work"]
    _workflow_map = {"text2image": {"prompt": True}, "image2image": ["prompt", "image"]}


def work() -> Any:
    """A pipeline of one block, `work`."""
    return pipeline(work=Work)


def counting(block: type[ModularPipelineBlocks]) -> Any:
    """A pipeline of a loop, `count`, of one block, `add`."""
    return pipeline(count=Count.from_blocks_dict({"add": block}))


@cache
def stock() -> Any:
    """The embedded model."""
    pipe = embedded_pipeline()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(**inputs: Any) -> Any:
    return stock()(**{"prompt": "dog", "num_inference_steps": 1, **inputs})


PICTURE = Image.new("RGB", (64, 64), "red")
SHAPES = "a tensor must be [3, H, W] or [B, 3, H, W], and an array [H, W, 3] or [B, H, W, 3]"
BLOCK = "give a subclass of `ModularPipelineBlocks`, or an instance of one"
WORK_TAKES = "this pipeline takes `prompt`, `num_inference_steps`, `guidance_scale`"
WORK_HOLDS = "it holds `guidance_scale`, `images`, `num_inference_steps`, `prompt`"
BY_NAME = "it must be a `PipelineState`. Inputs are given by name: `pipe(prompt=...)`"


class Mistake(NamedTuple):
    """A row of the table.

    Attributes:
        title: the mistake, in words.
        make: makes it.
        error: the class of the error.
        builtin: what else it can be caught as.
        text: what the user reads.
        notes: and what below that.
    """

    title: str
    make: Callable[[], Any]
    error: type[Exception]
    builtin: type[Exception]
    text: str
    notes: tuple[str, ...] = ()


def found(blocks: str, *findings: str) -> str:
    """The text of a `CheckError`."""
    count = "an error" if len(findings) == 1 else f"{len(findings)} errors"
    return "\n".join([f"`{blocks}` has {count}:", *(f"  error {finding}" for finding in findings)])


MISTAKES = [
    # ---------------------------------------------------------------- what a block declares
    Mistake(
        "names in place of `InputParam`s",
        lambda: pipeline(work=leaf(inputs=["prompt"])),
        CheckError,
        ValueError,
        found(
            "SequentialPipelineBlocks",
            "[bad-declaration] at `work`: `Mine.inputs` holds 'prompt', which is not an `InputParam`; "
            'write `InputParam("prompt")`',
        ),
    ),
    Mistake(
        "a name in place of a list",
        lambda: pipeline(work=leaf(inputs="prompt")),
        CheckError,
        ValueError,
        found(
            "SequentialPipelineBlocks",
            '[bad-declaration] at `work`: `Mine.inputs` is a str; give a list: `inputs = [InputParam("prompt")]`',
        ),
    ),
    Mistake(
        "a dict in place of a list",
        lambda: pipeline(work=leaf(expected_components={"unet": torch.nn.Linear})),
        CheckError,
        ValueError,
        found(
            "SequentialPipelineBlocks",
            "[bad-declaration] at `work`: `Mine.expected_components` is a dict; give a list: "
            '`expected_components = [ComponentSpec("unet")]`',
        ),
    ),
    Mistake(
        "`@property` forgotten",
        lambda: pipeline(work=leaf(inputs=lambda self: [InputParam("prompt")])),
        CheckError,
        ValueError,
        found(
            "SequentialPipelineBlocks",
            "[bad-declaration] at `work`: `Mine.inputs` is a method; put `@property` above it",
        ),
    ),
    Mistake(
        "an `InputParam` among the outputs",
        lambda: pipeline(work=leaf(intermediate_outputs=[InputParam("latents")])),
        CheckError,
        ValueError,
        found(
            "SequentialPipelineBlocks",
            '[bad-declaration] at `work`: `Mine.intermediate_outputs` holds `InputParam("latents")`, which is not an '
            '`OutputParam`; write `OutputParam("latents")`',
        ),
    ),
    Mistake(
        "a class in place of a `ComponentSpec`, and a bare name in place of a `ConfigSpec`",
        lambda: pipeline(work=leaf(expected_components=[torch.nn.Linear], expected_configs=["patch_size"])),
        CheckError,
        ValueError,
        found(
            "SequentialPipelineBlocks",
            "[bad-declaration] at `work`: `Mine.expected_components` holds the class `Linear`, which is not a "
            '`ComponentSpec`; write `ComponentSpec("name", Linear)`',
            "[bad-declaration] at `work`: `Mine.expected_configs` holds 'patch_size', which is not a `ConfigSpec`; "
            'write `ConfigSpec("patch_size", default=...)`',
        ),
    ),
    Mistake(
        "declarations without a name, or with one that is no string",
        lambda: pipeline(work=leaf(inputs=[InputParam(type_hint=str), InputParam(str)])),  # type: ignore[arg-type]
        CheckError,
        ValueError,
        found(
            "SequentialPipelineBlocks",
            "[bad-declaration] at `work`: `Mine.inputs` holds an `InputParam` without a name; give it one: "
            '`InputParam("name")`',
            "[bad-declaration] at `work`: `Mine.inputs` holds an `InputParam` whose name is the class `str`; put a "
            'name first: `InputParam("name", str)`',
        ),
    ),
    Mistake(
        "an `InputParam` imported from diffusers",
        lambda: pipeline(work=leaf(inputs=[peer.InputParam("prompt")])),
        CheckError,
        ValueError,
        found(
            "SequentialPipelineBlocks",
            "[bad-declaration] at `work`: `Mine.inputs` holds an `InputParam` of diffusers; import `InputParam` from "
            "`loopwright`",
        ),
    ),
    Mistake(
        "a bad declaration, met by hand",
        lambda: sequence(work=leaf(inputs=["prompt"])).inputs,
        DefinitionError,
        ValueError,
        "`Mine.inputs` holds 'prompt', which is not an `InputParam`; write `InputParam(\"prompt\")`",
    ),
    Mistake(
        "a bad declaration, met by `describe`",
        lambda: describe(leaf(intermediate_outputs=["images"])),
        DefinitionError,
        ValueError,
        "`Mine.intermediate_outputs` holds 'images', which is not an `OutputParam`; write `OutputParam(\"images\")`",
    ),
    Mistake(
        "`intermediate_ouputs`",
        lambda: pipeline(work=leaf(intermediate_ouputs=[OutputParam("images")])),
        CheckError,
        ValueError,
        found(
            "SequentialPipelineBlocks",
            "[misspelt-attribute] at `work`: `Mine` sets `intermediate_ouputs`, did you mean `intermediate_outputs`?; "
            "rename it, or, if it is meant for something else, define `intermediate_outputs` as well",
        ),
    ),
    Mistake(
        "`intermediate_inputs`, as diffusers had it once",
        lambda: pipeline(work=leaf(intermediate_inputs=[InputParam("latents")])),
        CheckError,
        ValueError,
        found(
            "SequentialPipelineBlocks",
            "[misspelt-attribute] at `work`: `Mine` sets `intermediate_inputs`, did you mean `inputs`?; "
            "rename it, or, if it is meant for something else, define `inputs` as well",
        ),
    ),
    Mistake(
        "an input with the name of a call option",
        lambda: pipeline(work=leaf(inputs=[InputParam("output")])),
        CheckError,
        ValueError,
        found(
            "SequentialPipelineBlocks",
            "[option-collision] at `work`: declares the input `output`, which is an option of every call; rename it, "
            "for example to `output_input`",
        ),
    ),
    Mistake(
        "an input with the name of a method of the state",
        lambda: pipeline(work=leaf(inputs=[InputParam("get")])),
        CheckError,
        ValueError,
        found(
            "SequentialPipelineBlocks",
            "[option-collision] at `work`: declares the input `get`, which is a method of every block state; rename "
            "it, for example to `get_input`",
        ),
    ),
    Mistake(
        "a component with the name of an attribute of pipelines",
        lambda: pipeline(work=leaf(expected_components=[ComponentSpec("device")])),
        DefinitionError,
        ValueError,
        "block `work` (`Mine`) expects a component `device`, which is an attribute of every pipeline; give it another "
        "name",
    ),
    Mistake(
        "a configuration value with the name of an attribute of pipelines",
        lambda: leaf(expected_configs=[ConfigSpec("blocks", 1)])().init_pipeline(),
        DefinitionError,
        ValueError,
        "`Mine` expects a configuration value `blocks`, which is an attribute of every pipeline; give it another name",
    ),
    Mistake(
        "an unknown template of an input",
        lambda: InputParam.template("promt"),
        UnknownNameError,
        KeyError,
        "there is no input template `promt`, did you mean `prompt`?; there are attention_kwargs, batch_size, "
        "control_guidance_end, control_guidance_start, control_image, controlnet_conditioning_scale, "
        "denoiser_input_fields, dtype, generator, height, image, image_latents, latents, layers, mask_image, "
        "max_sequence_length, negative_prompt, negative_prompt_embeds, negative_prompt_embeds_mask, "
        "num_images_per_prompt, num_inference_steps, output_type, padding_mask_crop, prompt, prompt_embeds, "
        "prompt_embeds_mask, sigmas, strength, timesteps, width",
    ),
    Mistake(
        "an unknown template of an output",
        lambda: OutputParam.template("image"),
        UnknownNameError,
        ValueError,
        "there is no output template `image`, did you mean `images`?; there are image_latents, images, latents, "
        "negative_prompt_embeds, negative_prompt_embeds_mask, prompt_embeds, prompt_embeds_mask, videos",
    ),
    # ---------------------------------------------------------------- what a block does
    Mistake(
        "no `__call__`",
        lambda: pipeline(work=type("Mine", (ModularPipelineBlocks,), {}))(),
        NotDefinedError,
        NotImplementedError,
        "`Mine` does not define `__call__`: define `__call__(self, components, state)`, which does the work of the "
        "block and returns `components, state`",
        ("in block `work`",),
    ),
    Mistake(
        "`__call__` without the state",
        lambda: pipeline(work=leaf(lambda self, components: (components, None))),
        CheckError,
        ValueError,
        found(
            "SequentialPipelineBlocks",
            "[bad-signature] at `work`: `Mine` defines `__call__(self, components)`, which cannot be called with "
            "`components` and `state`; define `__call__(self, components, state)`",
        ),
    ),
    Mistake(
        "nothing is returned",
        lambda: pipeline(work=leaf(lambda self, components, state: None))(),
        DefinitionError,
        ValueError,
        "`Mine.__call__` returned nothing; it must return two values: `return components, state`",
        ("in block `work`",),
    ),
    Mistake(
        "nothing is returned by the only block of a pipeline",
        lambda: leaf(lambda self, components, state: None)().init_pipeline()(),
        DefinitionError,
        ValueError,
        "`Mine.__call__` returned nothing; it must return two values: `return components, state`",
    ),
    Mistake(
        "only the state is returned",
        lambda: pipeline(work=leaf(lambda self, components, state: state))(),
        DefinitionError,
        ValueError,
        "`Mine.__call__` returned only the state; it must return two values: `return components, state`",
        ("in block `work`",),
    ),
    Mistake(
        "only `components` are returned",
        lambda: pipeline(work=leaf(lambda self, components, state: components))(),
        DefinitionError,
        ValueError,
        "`Mine.__call__` returned only `components`; it must return two values: `return components, state`",
        ("in block `work`",),
    ),
    Mistake(
        "three values are returned",
        lambda: pipeline(work=leaf(lambda self, components, state: (components, state, 1)))(),
        DefinitionError,
        ValueError,
        "`Mine.__call__` returned more than two values; it must return two values: `return components, state`",
        ("in block `work`",),
    ),
    Mistake(
        "the two values are swapped",
        lambda: pipeline(work=leaf(lambda self, components, state: (state, components)))(),
        DefinitionError,
        ValueError,
        "`Mine.__call__` returned its two values in the wrong order, the state first; write `return components, state`",
        ("in block `work`",),
    ),
    Mistake(
        "the block state is returned in place of the state",
        lambda: pipeline(work=leaf(lambda self, components, state: (components, self.get_block_state(state))))(),
        DefinitionError,
        ValueError,
        "`Mine.__call__` returned the block state in place of the state; put it back with "
        "`self.set_block_state(state, block_state)`, and write `return components, state`",
        ("in block `work`",),
    ),
    Mistake(
        "an output is not set, or `set_block_state` is forgotten",
        lambda: pipeline(work=leaf(intermediate_outputs=[OutputParam("images")]))(),
        OutputNotSetError,
        ValueError,
        "`Mine` declares the output `images` and did not set it: assign `block_state.images` before "
        "`self.set_block_state(state, block_state)`, or take it out of `intermediate_outputs`",
        ("in block `work`",),
    ),
    Mistake(
        "the arguments of `set_block_state` are swapped",
        lambda: pipeline(
            work=leaf(
                calling(lambda self, components, state: self.set_block_state(self.get_block_state(state), state)),
                intermediate_outputs=[OutputParam("images")],
            )
        )(),
        DefinitionError,
        ValueError,
        "`Mine` gives `set_block_state` the pipeline state in place of the block state: write "
        "`self.set_block_state(state, block_state)`",
        ("in block `work`",),
    ),
    Mistake(
        "a value is misspelt in a block",
        lambda: pipeline(
            work=leaf(
                calling(lambda self, components, state: self.get_block_state(state).promt),
                inputs=[InputParam("prompt")],
            )
        )(prompt="dog"),
        UnknownValueError,
        AttributeError,
        "the block state has no value `promt`, did you mean `prompt`?; it holds `prompt`",
        ("in block `work`",),
    ),
    Mistake(
        "a component is misspelt in a block",
        lambda: pipeline(
            work=leaf(
                calling(lambda self, components, state: components.uent), expected_components=[ComponentSpec("unet")]
            )
        )(),
        AttributeError,
        AttributeError,
        "'ModularPipeline' object has no attribute 'uent', did you mean `unet`?; its components and configuration "
        "values are `unet`",
        ("in block `work`",),
    ),
    Mistake(
        "a component is used that was not loaded",
        lambda: pipeline(
            work=leaf(
                calling(lambda self, components, state: components.unet(state)),
                expected_components=[ComponentSpec("unet"), ComponentSpec("vae")],
            )
        )(),
        MissingComponentError,
        ValueError,
        "`Mine` works with the component `unet`, which is not loaded: `pipe.update_components(unet=..., vae=...)`",
        ("in block `work`",),
    ),
    # ---------------------------------------------------------------- loops
    Mistake(
        "a loop without `iterate`",
        lambda: composite(LoopSequentialPipelineBlocks, block_classes=[Work], block_names=["work"])().init_pipeline()(
            prompt="dog"
        ),
        NotDefinedError,
        NotImplementedError,
        "the loop `Mine` does not say what its iterations are: define `iterate(self, components, block_state)`, which "
        "yields a dict of the variables of each iteration",
    ),
    Mistake(
        "`iterate` without arguments",
        lambda: composite(Count, iterate=lambda self: iter(()))().init_pipeline(),
        CheckError,
        ValueError,
        found(
            "Mine",
            "[bad-signature]: `Mine` defines `iterate(self)`, which cannot be called with `components` and "
            "`block_state`; define `iterate(self, components, block_state)`",
        ),
    ),
    Mistake(
        "`iterate` is not a generator",
        lambda: composite(Count, iterate=lambda self, components, block_state: [{"i": 0}])().init_pipeline()(),
        DefinitionError,
        ValueError,
        "`Mine.iterate` returned a list; it must be a generator that yields a dict of the variables of each iteration",
    ),
    Mistake(
        "`iterate` yields an index",
        lambda: pipeline(count=Yields(3))(),
        DefinitionError,
        ValueError,
        '`Yields.iterate` yielded 3; it must yield a dict of loop variables, such as {"i": i}',
        ("in block `count`",),
    ),
    Mistake(
        "`iterate` yields names that are not strings",
        lambda: pipeline(count=Yields({0: 1}))(),
        DefinitionError,
        ValueError,
        '`Yields.iterate` yielded a loop variable whose name is 0; a name must be a string, such as {"i": i}',
        ("in block `count`",),
    ),
    Mistake(
        "`iterate` yields a name that has its meaning already",
        lambda: pipeline(count=YieldsState),
        CheckError,
        ValueError,
        found(
            "SequentialPipelineBlocks",
            "[reserved-loop-variable] at `count`: `YieldsState.iterate` yields the loop variable `state`, and every "
            "block gets its state under that name; call it something else",
        ),
    ),
    Mistake(
        "the same, where the source of the loop does not tell",
        lambda: pipeline(count=Yields({"i": 0, "components": 1}))(),
        DefinitionError,
        ValueError,
        "`Yields.iterate` yielded the loop variable `components`, and every block gets the components under that name; "
        "call it something else",
        ("in block `count`",),
    ),
    Mistake(
        "a block wants a variable that the loop does not give",
        lambda: counting(leaf(lambda self, components, block_state, t: (components, block_state))),
        CheckError,
        ValueError,
        found(
            "SequentialPipelineBlocks",
            "[missing-loop-variable] at `count.add`: block `add` (`Mine`) takes the loop variable `t`, which the loop "
            "`Count` does not give; it gives `i`; yield `t` in `Count.iterate`, or rename the argument of "
            "`Mine.__call__`, or give it a default",
        ),
    ),
    Mistake(
        "a block wants a variable that a loop by hand does not give",
        lambda: pipeline(
            count=GivesNothing.from_blocks_dict({"steps": sequence(add=Add)}),
        ),
        CheckError,
        ValueError,
        found(
            "SequentialPipelineBlocks",
            "[missing-loop-variable] at `count.steps.add`: block `add` (`Add`) takes the loop variable `i`, which the "
            "loop `GivesNothing` does not give; it gives none; pass `i` to `loop_step` in `GivesNothing`, or rename "
            "the argument of `Add.__call__`, or give it a default",
        ),
    ),
    Mistake(
        "`iterate` yields another name, and its source does not tell",
        lambda: pipeline(count=Yields({"index": 0}))(),
        LoopVariableError,
        ValueError,
        "block `add` (`Add`) takes the loop variable `i`, which the loop `Yields` does not give, did you mean "
        "`index`?; it gives `index`; yield `i` in `Yields.iterate`, or rename the argument of `Add.__call__`, or give "
        "it a default",
        ("in block `count`",),
    ),
    Mistake(
        "a block of a loop, outside any loop",
        lambda: pipeline(add=Add),
        CheckError,
        ValueError,
        found(
            "SequentialPipelineBlocks",
            "[missing-loop-variable] at `add`: block `add` (`Add`) takes the loop variable `i`, and there is no loop "
            "around it; put the block into a loop that gives `i`, or give the argument of `Add.__call__` a default",
        ),
    ),
    Mistake(
        "a block of a loop, alone in a pipeline",
        lambda: Add().init_pipeline(),
        CheckError,
        ValueError,
        found(
            "Add",
            "[missing-loop-variable]: `Add` takes the loop variable `i`, and there is no loop around it; put the block "
            "into a loop that gives `i`, or give the argument of `Add.__call__` a default",
        ),
    ),
    Mistake(
        "loop variables given by position",
        lambda: pipeline(count=GivesByPosition),
        CheckError,
        ValueError,
        found(
            "SequentialPipelineBlocks",
            "[positional-loop-variable] at `count`: `GivesByPosition` gives a loop variable by position, in "
            "`self.loop_step(components, block_state, 0)`; give it by name: "
            "`self.loop_step(components, block_state, i=0)`",
        ),
    ),
    Mistake(
        "several loop variables given by position",
        lambda: pipeline(count=GivesTwoByPosition),
        CheckError,
        ValueError,
        found(
            "SequentialPipelineBlocks",
            "[positional-loop-variable] at `count`: `GivesTwoByPosition` gives a loop variable by position, in "
            "`self.loop_step(components, block_state, i, 10 * i, last=False)`; give it by name: "
            "`self.loop_step(components, block_state, i=i, t=10 * i, last=False)`",
        ),
    ),
    Mistake(
        "a block of a loop returns its block state alone",
        lambda: counting(leaf(lambda self, components, block_state, i: block_state))(),
        DefinitionError,
        ValueError,
        "`Mine.__call__` returned only the block state; it must return two values: `return components, block_state`",
        ("in block `count.add`, iteration 0 of loop `count` (i=0)",),
    ),
    Mistake(
        "what `loop_step` returns is taken for the block state",
        lambda: pipeline(count=TakesAPair)(),
        DefinitionError,
        ValueError,
        "`TakesAPair` gives `loop_step` a tuple as the state; write "
        "`components, block_state = self.loop_step(components, block_state, i=i)`",
        ("in block `count`",),
    ),
    Mistake(
        "the arguments of `loop_step` are swapped",
        lambda: pipeline(count=Swaps)(),
        DefinitionError,
        ValueError,
        "`Swaps` gives `loop_step` a ModularPipeline as the state; write "
        "`components, block_state = self.loop_step(components, block_state, i=i)`",
        ("in block `count`",),
    ),
    Mistake(
        "a block of a loop returns nothing",
        lambda: counting(leaf(lambda self, components, block_state, i: None))(),
        DefinitionError,
        ValueError,
        "`Mine.__call__` returned nothing; it must return two values: `return components, block_state`",
        ("in block `count.add`, iteration 0 of loop `count` (i=0)",),
    ),
    Mistake(
        "a block of a loop returns its values swapped",
        lambda: pipeline(
            count=Count.from_blocks_dict({"add": leaf(lambda self, c, block_state, i: (block_state, c))})
        )(),
        DefinitionError,
        ValueError,
        "`Mine.__call__` returned its two values in the wrong order, the state first; write "
        "`return components, block_state`",
        ("in block `count.add`, iteration 0 of loop `count` (i=0)",),
    ),
    Mistake(
        "a block of a loop does not set its output",
        lambda: counting(leaf(intermediate_outputs=[OutputParam("sum")]))(),
        OutputNotSetError,
        ValueError,
        "block `add` (`Mine`) of the loop declares the output `sum` and did not set it: assign `block_state.sum`, or "
        "take it out of `intermediate_outputs`",
        ("in block `count`",),
    ),
    Mistake(
        "a loop does not set its output",
        lambda: pipeline(count=Fits)(),
        OutputNotSetError,
        ValueError,
        "`Fits` declares the output `total` and did not set it: assign `block_state.total`, or take it out of "
        "`loop_intermediate_outputs`",
        ("in block `count`",),
    ),
    Mistake(
        "`inputs` on a loop",
        lambda: composite(
            LoopSequentialPipelineBlocks, iterate=Count.iterate, inputs=[InputParam("n")]
        )().init_pipeline(),
        CheckError,
        ValueError,
        found(
            "Mine",
            "[misspelt-attribute]: `Mine` sets `inputs`, did you mean `loop_inputs`?; rename it, or, if it is meant "
            "for something else, define `loop_inputs` as well",
        ),
    ),
    Mistake(
        "names among the inputs of a loop",
        lambda: composite(Count, loop_inputs=["steps"])().init_pipeline(),
        CheckError,
        ValueError,
        found(
            "Mine",
            "[bad-declaration]: `Mine.loop_inputs` holds 'steps', which is not an `InputParam`; write "
            '`InputParam("steps")`',
        ),
    ),
    Mistake(
        "a progress bar through a number",
        lambda: Count().progress_bar(3),
        InvalidInputError,
        ValueError,
        "`progress_bar` cannot go through 3; for a number of iterations write `self.progress_bar(total=3)`",
    ),
    Mistake(
        "a progress bar through nothing",
        lambda: Count().progress_bar(),
        InvalidInputError,
        ValueError,
        "`progress_bar` needs `iterable`, to go through, or `total`, the number of iterations",
    ),
    # ---------------------------------------------------------------- sequences, and their sub-blocks
    Mistake(
        "a list in place of a dict",
        lambda: SequentialPipelineBlocks.from_blocks_dict([Work]),  # type: ignore[arg-type]
        BlockTypeError,
        TypeError,
        "`SequentialPipelineBlocks.from_blocks_dict` takes a dict of names and blocks, not a list; write "
        '`SequentialPipelineBlocks.from_blocks_dict({"name": block})`',
    ),
    Mistake(
        "a list of blocks given to the class",
        lambda: SequentialPipelineBlocks([Work]),
        BlockTypeError,
        TypeError,
        "`SequentialPipelineBlocks()` takes no blocks; to put some together, give each a name: "
        '`SequentialPipelineBlocks.from_blocks_dict({"name": block})`',
    ),
    Mistake(
        "blocks given to a class of loops by keyword",
        lambda: Count(block_classes=[Add]),  # type: ignore[call-arg]
        BlockTypeError,
        TypeError,
        '`Count()` takes no blocks; to put some together, give each a name: `Count.from_blocks_dict({"name": block})`',
    ),
    Mistake(
        "a block among its own sub-blocks",
        lambda: _put_into_itself("again"),
        DefinitionError,
        ValueError,
        "`SequentialPipelineBlocks` would contain itself, as `again`; put a copy there: `copy.deepcopy(block)`",
    ),
    Mistake(
        "a block among its own sub-blocks, further down",
        lambda: _put_into_itself("again", Count.from_blocks_dict({"add": Add})),
        DefinitionError,
        ValueError,
        "`SequentialPipelineBlocks` would contain itself, as `again.count.inner`; put a copy there: "
        "`copy.deepcopy(block)`",
    ),
    Mistake(
        "a block as all of its own sub-blocks",
        lambda: _replace_by_itself(sequence(work=Work)),
        DefinitionError,
        ValueError,
        "`SequentialPipelineBlocks` would contain itself, as `work`; put a copy there: `copy.deepcopy(block)`",
    ),
    Mistake(
        "a function among the blocks",
        lambda: sequence(work=give_back),
        BlockTypeError,
        TypeError,
        f"sub-block `work` is a function, which is not a block: {BLOCK}",
    ),
    Mistake(
        "a model among the blocks",
        lambda: sequence(work=torch.nn.Linear),
        BlockTypeError,
        TypeError,
        f"sub-block `work` is the class `Linear`, which is not a block: {BLOCK}",
    ),
    Mistake(
        "a pipeline among the blocks",
        lambda: sequence(work=work()),
        BlockTypeError,
        TypeError,
        "sub-block `work` is a ModularPipeline, which is not a block: give its `blocks`",
    ),
    Mistake(
        "a class that needs arguments",
        lambda: sequence(work=Arguments),
        BlockTypeError,
        TypeError,
        "sub-block `work` is the class `Arguments`, which needs the argument `name`: give an instance, such as "
        "`Arguments(name=...)`",
    ),
    Mistake(
        "names and blocks swapped",
        lambda: SequentialPipelineBlocks.from_blocks_dict({Work: "work"}),  # type: ignore[dict-item]
        BlockTypeError,
        TypeError,
        "the name of a sub-block is the class `Work`; it must be a string, and not an empty one: "
        '`{"denoise": DenoiseStep}`',
    ),
    Mistake(
        "more blocks than names",
        lambda: composite(SequentialPipelineBlocks, block_classes=[Work, Work], block_names=["work"])(),
        DefinitionError,
        ValueError,
        "`Mine` has 2 block_classes and 1 block_names; each block needs one name",
    ),
    Mistake(
        "`block_class`",
        lambda: composite(SequentialPipelineBlocks, block_class=[Work], block_names=["work"])(),
        DefinitionError,
        ValueError,
        "`Mine` has 0 block_classes and 1 block_names; each block needs one name; it says `block_class`, did you mean "
        "`block_classes`?",
    ),
    Mistake(
        "a block in place of a list of blocks",
        lambda: composite(SequentialPipelineBlocks, block_classes=Work, block_names=["work"])(),
        DefinitionError,
        ValueError,
        "`Mine.block_classes` must be a list, not the class `Work`",
    ),
    Mistake(
        "a name in place of a list of names",
        lambda: composite(SequentialPipelineBlocks, block_classes=[Work], block_names="work")(),
        DefinitionError,
        ValueError,
        "`Mine.block_names` must be a list, not 'work'",
    ),
    Mistake(
        "one name for two blocks",
        lambda: composite(SequentialPipelineBlocks, block_classes=[Work, Work], block_names=["work", "work"])(),
        DefinitionError,
        ValueError,
        "`Mine.block_names` has `work` more than once; each block needs a name of its own",
    ),
    Mistake(
        "a function put among the sub-blocks",
        lambda: sequence(work=Work).sub_blocks.insert("more", give_back, 0),
        BlockTypeError,
        TypeError,
        f"sub-block `more` is a function, which is not a block: {BLOCK}",
    ),
    Mistake(
        "the position before the block",
        lambda: sequence(work=Work).sub_blocks.insert("more", 0, Work),  # type: ignore[arg-type]
        BlockTypeError,
        TypeError,
        '`insert` takes a name, a block and a position, as in `insert("denoise", block, 0)`; the position is the class '
        "`Work`",
    ),
    Mistake(
        "a sub-block is misspelt",
        lambda: sequence(decode=Work, denoise=Work).sub_blocks["denosie"],
        UnknownNameError,
        KeyError,
        "there is no sub-block `denosie`, did you mean `denoise`?; there are `decode`, `denoise`",
    ),
    Mistake(
        "a sub-block is taken out that is not there",
        lambda: sequence(decode=Work).sub_blocks.pop("denoise"),
        UnknownNameError,
        KeyError,
        "there is no sub-block `denoise`, did you mean `decode`?; there are `decode`",
    ),
    Mistake(
        "a list as `sub_blocks`",
        lambda: setattr(sequence(work=Work), "sub_blocks", [Work]),
        BlockTypeError,
        TypeError,
        "`sub_blocks` must be a dict of names and blocks, not a list",
    ),
    # ---------------------------------------------------------------- conditionals and workflows
    Mistake(
        "an unknown block is chosen",
        lambda: pipeline(encode=Choose)(image=PICTURE),
        DefinitionError,
        ValueError,
        "`Choose.select_block` returned `img2img`, which is not the name of one of its blocks, did you mean "
        "`image2image`?; they are `image2image`, `text2image`",
        ("in block `encode`",),
    ),
    Mistake(
        "a class is chosen in place of a name",
        lambda: pipeline(encode=ChooseClass)(image=PICTURE),
        DefinitionError,
        ValueError,
        "`ChooseClass.select_block` returned the class `Work`, which is not the name of one of its blocks; they are "
        "`image2image`, `text2image`",
        ("in block `encode`",),
    ),
    Mistake(
        "a conditional without `select_block`",
        lambda: pipeline(encode=ConditionalPipelineBlocks.from_blocks_dict({"work": Work}))(prompt="dog"),
        NotDefinedError,
        NotImplementedError,
        "`ConditionalPipelineBlocks` does not define `select_block`: define `select_block(self, **kwargs)`, which "
        "returns the name of the block to run, or None",
        ("in block `encode`",),
    ),
    Mistake(
        "an unknown default",
        lambda: composite(Choose, default_block_name="txt2image")(),
        DefinitionError,
        ValueError,
        "`Mine.default_block_name` is `txt2image`, which is not one of its block_names, did you mean `text2image`?",
    ),
    Mistake(
        "a name in place of a list of triggers",
        lambda: composite(Choose, block_trigger_inputs="image")(),
        DefinitionError,
        ValueError,
        "`Mine.block_trigger_inputs` must be a list, not 'image'",
    ),
    Mistake(
        "fewer triggers than blocks",
        lambda: composite(
            AutoPipelineBlocks, block_classes=[Work, Work], block_names=["a", "b"], block_trigger_inputs=["image"]
        )(),
        DefinitionError,
        ValueError,
        "`Mine` has 2 blocks and 1 block_trigger_inputs; each block needs one, None for the default",
    ),
    Mistake(
        "a default besides the triggers",
        lambda: composite(
            AutoPipelineBlocks,
            block_classes=[Work],
            block_names=["a"],
            block_trigger_inputs=[None],
            default_block_name="a",
        )(),
        DefinitionError,
        ValueError,
        "`Mine` sets `default_block_name`; the default of an `AutoPipelineBlocks` is the block whose entry in "
        "`block_trigger_inputs` is None",
    ),
    Mistake(
        "a trigger that is not an input",
        lambda: pipeline(
            encode=composite(
                AutoPipelineBlocks, block_classes=[Work], block_names=["a"], block_trigger_inputs=["mask_image"]
            )
        )(prompt="dog", mask_image=PICTURE),
        UnknownInputError,
        TypeError,
        "unknown input `mask_image`: block `encode` (`Mine`) chooses by it which of its blocks runs, but none of them "
        'declares it as an input; add `InputParam("mask_image")` to the `inputs` of the block that it is for; '
        f"{WORK_TAKES}",
    ),
    Mistake(
        "an unknown workflow",
        lambda: ModularPipeline(Workflows, workflow="txt2img"),
        UnknownNameError,
        KeyError,
        "`Workflows` has no workflow `txt2img`, did you mean `text2image`?; it has `text2image`, `image2image`",
    ),
    Mistake(
        "a workflow of blocks that have none",
        lambda: sequence(work=Work).get_workflow("text2image"),
        NotDefinedError,
        NotImplementedError,
        "`SequentialPipelineBlocks` has no workflows: it does not set `_workflow_map`",
    ),
    Mistake(
        "a workflow that is a list of inputs",
        lambda: Workflows().get_workflow("image2image"),
        DefinitionError,
        ValueError,
        "`Workflows._workflow_map` has ['prompt', 'image'] for `image2image`; it must be a dict of the inputs that "
        "select the workflow, such as {'prompt': True, 'image': True}, or a tuple of such dicts",
    ),
    # ---------------------------------------------------------------- pipelines
    Mistake(
        "a pipeline of nothing",
        lambda: ModularPipeline(),
        DefinitionError,
        ValueError,
        "`ModularPipeline` needs `blocks`: the blocks that it runs",
    ),
    Mistake(
        "a pipeline of the name of a repository",
        lambda: ModularPipeline("owner/model"),  # type: ignore[arg-type]
        BlockTypeError,
        TypeError,
        "`blocks` is the str 'owner/model', and a pipeline is made of blocks; for a model in a folder, write "
        "`load_pipeline(TextToImageBlocks(), folder)`, both from `loopwright.diffusion`; for blocks of your own, give "
        "the blocks here, and their components to `pipe.update_components(...)`",
    ),
    Mistake(
        "a check of a list",
        lambda: check([Work]),
        BlockTypeError,
        TypeError,
        f"what was given is a list, which is not a block: {BLOCK}",
    ),
    Mistake(
        "an unknown format of a description",
        lambda: describe(Work, format="htm"),  # type: ignore[arg-type]
        InvalidInputError,
        ValueError,
        "`format` must be 'text' or 'mermaid' or 'html', not 'htm', did you mean `html`?",
    ),
    Mistake(
        "an unknown setting of progress bars",
        lambda: Count().init_pipeline().set_progress_bar_config(disabled=True),
        UnknownInputError,
        TypeError,
        "a progress bar takes no `disabled` here, did you mean `disable`?",
    ),
    # ---------------------------------------------------------------- calls
    Mistake(
        "an input is misspelt",
        lambda: work()(promt="dog"),
        UnknownInputError,
        TypeError,
        f"unknown input `promt`, did you mean `prompt`?; {WORK_TAKES}",
    ),
    Mistake(
        "an input is called what other programs call it",
        lambda: work()(prompt="dog", steps=30),
        UnknownInputError,
        TypeError,
        f"unknown input `steps`, did you mean `num_inference_steps`?; {WORK_TAKES}",
    ),
    Mistake(
        "an input that no block knows",
        lambda: work()(prompt="dog", return_dict=False),
        UnknownInputError,
        TypeError,
        f"unknown input `return_dict`; {WORK_TAKES}",
    ),
    Mistake(
        "an option is misspelt",
        lambda: work()(prompt="dog", outputs="images"),
        UnknownInputError,
        TypeError,
        f"unknown input `outputs`, did you mean `output`?; {WORK_TAKES}",
    ),
    Mistake(
        "a callback as an input",
        lambda: work()(prompt="dog", callback_on_step_end=print),
        UnknownInputError,
        TypeError,
        f"unknown input `callback_on_step_end`: pass it as `callbacks={{'callback_on_step_end': ...}}`; {WORK_TAKES}",
    ),
    Mistake(
        "a component as an input",
        lambda: work()(prompt="dog", unet=torch.nn.Linear(1, 1)),
        UnknownInputError,
        TypeError,
        f"unknown input `unet`: it is a component; set it with `pipe.update_components(unet=...)`; {WORK_TAKES}",
    ),
    Mistake(
        "a configuration value as an input",
        lambda: work()(prompt="dog", patch_size=4),
        UnknownInputError,
        TypeError,
        "unknown input `patch_size`: it is a configuration value; set it with "
        f"`pipe.update_components(patch_size=...)`; {WORK_TAKES}",
    ),
    Mistake(
        "a value of a group as an input",
        lambda: pipeline(work=leaf(inputs=[InputParam.template("denoiser_input_fields")]))(prompt_embeds=1),
        UnknownInputError,
        TypeError,
        "unknown input `prompt_embeds`; if it belongs to a group, pass it as "
        "`denoiser_input_fields={'prompt_embeds': ...}`; this pipeline takes `denoiser_input_fields`",
    ),
    Mistake(
        "a list as a group",
        lambda: pipeline(work=leaf(inputs=[InputParam.template("denoiser_input_fields")]))(denoiser_input_fields=[1]),
        InvalidInputError,
        ValueError,
        "input `denoiser_input_fields` is a list; it must be a dict of the group's values by name",
    ),
    Mistake(
        "a required input is missing",
        lambda: work()(guidance_scale=2),
        MissingInputError,
        ValueError,
        "missing the required input `prompt`, which block `work` needs; these have a value: `guidance_scale`",
    ),
    Mistake(
        "a required input is None",
        lambda: work()(prompt=None),
        MissingInputError,
        ValueError,
        "missing the required input `prompt`, which block `work` needs; no value was given",
    ),
    Mistake(
        "an input is given by position",
        lambda: work()("dog"),
        InvalidInputError,
        ValueError,
        f"`state`, the first argument of a call, is a str; {BY_NAME}",
    ),
    Mistake(
        "a dict as the state",
        lambda: work()(state={"prompt": "dog"}),
        InvalidInputError,
        ValueError,
        f"`state`, the first argument of a call, is a dict; {BY_NAME}",
    ),
    Mistake(
        "a block state as the state",
        lambda: work()(state=BlockState(prompt="dog")),
        InvalidInputError,
        ValueError,
        f"`state`, the first argument of a call, is a BlockState; {BY_NAME}",
    ),
    Mistake(
        "a state with a value that cannot be copied",
        lambda: work()(state=_with_a_generator()),
        InvalidInputError,
        ValueError,
        "the value `rest` (generator) cannot be copied: cannot pickle 'generator' object; remove it from the state "
        "that is passed in, or pass it as an input of the call",
    ),
    Mistake(
        "an output is misspelt",
        lambda: work()(prompt="dog", output="image"),
        UnknownValueError,
        KeyError,
        f"the result of this pipeline has no value `image`, did you mean `images`?; {WORK_HOLDS}",
    ),
    Mistake(
        "one of several outputs is misspelt",
        lambda: work()(prompt="dog", output=["images", "promt"]),
        UnknownValueError,
        KeyError,
        f"the result of this pipeline has no value `promt`, did you mean `prompt`?; {WORK_HOLDS}",
    ),
    Mistake(
        "a set of outputs",
        lambda: work()(prompt="dog", output={"images"}),
        InvalidInputError,
        ValueError,
        "`output` is {'images'}; it must be the name of a value, or a list of names",
    ),
    Mistake(
        "a value of the result is misspelt",
        lambda: work()(prompt="dog").imgaes,
        UnknownValueError,
        AttributeError,
        f"the pipeline state has no value `imgaes`, did you mean `images`?; {WORK_HOLDS}",
    ),
    Mistake(
        "an item of the result is misspelt",
        lambda: work()(prompt="dog")["image"],
        UnknownValueError,
        KeyError,
        f"the pipeline state has no value `image`, did you mean `images`?; {WORK_HOLDS}",
    ),
    Mistake(
        "a value that the result does not have",
        lambda: work()(prompt="dog").get("videos"),
        UnknownValueError,
        KeyError,
        f"the pipeline state has no value `videos`; {WORK_HOLDS}",
    ),
    # ---------------------------------------------------------------- runs; more in `run/`
    Mistake(
        "an empty folder is resumed",
        lambda: pipeline(count=Count).resume(Memory()),
        CheckpointError,
        ValueError,
        "the memory holds no checkpoint: the run did not finish an iteration, or the folder is not that of a run",
    ),
    Mistake(
        "a run is resumed in a folder that it is told again",
        lambda: pipeline(count=Count).resume(Memory(), checkpoint=Checkpoint("run-1")),
        UnknownInputError,
        TypeError,
        "`resume` takes no `checkpoint`: the run goes on being saved where it was; leave it out",
    ),
    Mistake(
        "a run is resumed after a block was added",
        lambda: pipeline(count=Count, work=leaf()).resume(_saved()),
        CheckpointMismatchError,
        ValueError,
        "the run was saved in another pipeline and would not go on as it began: block `work` is new; resume it in a "
        "pipeline as it was then, or begin a new run",
    ),
    Mistake(
        "a run is resumed with another input",
        lambda: pipeline(count=Count).resume(_saved(), steps=9),
        CheckpointMismatchError,
        ValueError,
        "the run began with steps=3, not with 9; leave the inputs out to go on with it, or go another way from it with "
        "`pipe.branch(...)`",
    ),
    Mistake(
        "a branch from an iteration that there was not",
        lambda: pipeline(count=Count).branch(_saved(), at=99),
        CheckpointError,
        ValueError,
        "the memory holds no checkpoint after iteration 99; it has 1, 2, 3; `Checkpoint(..., keep=None)` keeps all of "
        "a run",
    ),
    Mistake(
        "a loop is misspelt on a run",
        lambda: pipeline(count=Count).start().stop_loop("conut"),
        UnknownNameError,
        KeyError,
        "this pipeline has no loop `conut`, did you mean `count`?; it has `count`",
    ),
    # ---------------------------------------------------------------- components and configuration
    Mistake(
        "a component is misspelt",
        lambda: work().update_components(sheduler=DDIMScheduler()),
        UnknownComponentError,
        TypeError,
        "no block of this pipeline expects a component or configuration value `sheduler`, did you mean `scheduler`?; "
        "they expect `patch_size`, `scheduler`, `unet`",
    ),
    Mistake(
        "a component that no block expects",
        lambda: work().register_components(vae=None),
        UnknownComponentError,
        TypeError,
        "no block of this pipeline expects a component `vae`; they expect `scheduler`, `unet`",
    ),
    Mistake(
        "the spec of a component that no block expects",
        lambda: work().get_component_spec("uent"),
        UnknownComponentError,
        TypeError,
        "no block of this pipeline expects a component `uent`, did you mean `unet`?; they expect `scheduler`, `unet`",
    ),
    Mistake(
        "the spec of a configuration value",
        lambda: work().get_component_spec("patch_size"),
        UnknownComponentError,
        TypeError,
        "`patch_size` is a configuration value, not a component: it is `pipe.patch_size`, set by `update_components`",
    ),
    Mistake(
        "a class in place of a component",
        lambda: work().update_components(scheduler=DDIMScheduler),
        ComponentLoadError,
        ValueError,
        "component `scheduler` cannot be the class `DDIMScheduler`: give an instance of it, or "
        "`ComponentSpec('scheduler', DDIMScheduler, ...)`, which makes one",
    ),
    Mistake(
        "the name of a repository in place of a component",
        lambda: work().update_components(unet="owner/model"),
        ComponentLoadError,
        ValueError,
        "component `unet` cannot be the str 'owner/model': to load it from a repository or a folder, write "
        "`pipe.update_components(unet=ComponentSpec('unet', Linear, repo='owner/model'))`",
    ),
    Mistake(
        "a `ComponentSpec` imported from diffusers",
        lambda: work().update_components(unet=peer.ComponentSpec("unet", torch.nn.Linear)),
        ComponentLoadError,
        ValueError,
        "component `unet` cannot be a `ComponentSpec` of diffusers: import `ComponentSpec` from `loopwright`",
    ),
    Mistake(
        "a spec without a place to load from",
        lambda: work().update_components(unet=ComponentSpec("unet", torch.nn.Linear)),
        ComponentLoadError,
        ValueError,
        "component `unet` cannot be loaded, as its `ComponentSpec` does not say from where: name a repository or a "
        "folder, as in `ComponentSpec('unet', Linear, repo='owner/model')`",
    ),
    Mistake(
        "a spec of a class that loads nothing",
        lambda: ComponentSpec("unet", torch.nn.Linear, repo="owner/model").load(),
        ComponentLoadError,
        ValueError,
        "component `unet` (Linear) cannot be loaded: the class has no `from_pretrained`; make the component "
        "yourself, and give it to `pipe.update_components(unet=...)`",
    ),
    Mistake(
        "a spec without what its class needs",
        lambda: ComponentSpec("unet", torch.nn.Linear, config={"in_features": 2}).create(),
        ComponentLoadError,
        ValueError,
        "component `unet` (Linear) could not be created from the configuration {'in_features': 2}: Linear.__init__() "
        "missing 1 required positional argument: 'out_features'",
    ),
    Mistake(
        "a spec that says a wrong way to make a component",
        lambda: ComponentSpec("unet", default_creation_method="from_cofnig"),  # type: ignore[arg-type]
        DefinitionError,
        ValueError,
        "`default_creation_method` of component `unet` must be 'from_config' or 'from_pretrained', not 'from_cofnig', "
        "did you mean `from_config`?",
    ),
    Mistake(
        "a component is misspelt on the pipeline",
        lambda: work().shceduler,
        AttributeError,
        AttributeError,
        "'ModularPipeline' object has no attribute 'shceduler', did you mean `scheduler`?; its components and "
        "configuration values are `unet`, `scheduler`, `patch_size`",
    ),
    Mistake(
        "an unknown argument of `to`",
        lambda: work().to(torch_dtype=torch.float16),
        UnknownInputError,
        TypeError,
        "`to` takes a device, a dtype, or both, and no `torch_dtype`, did you mean `dtype`?",
    ),
    Mistake(
        "too many arguments of `to`",
        lambda: work().to("cpu", torch.float16, True),
        UnknownInputError,
        TypeError,
        "`to` takes a device, a dtype, or both, not 3 values",
    ),
    Mistake(
        "a device that there is not",
        lambda: work().to("gpu"),
        InvalidInputError,
        ValueError,
        "'gpu' is no device; it must be like 'cpu', 'cuda', 'cuda:1' or 'mps'",
    ),
    Mistake(
        "a device of another machine",
        lambda: work().to("xpu"),
        InvalidInputError,
        ValueError,
        "the device xpu cannot be used on this machine: Torch not compiled with XPU enabled",
    ),
    Mistake(
        "a dtype that there is not",
        lambda: work().to(dtype="float17"),
        InvalidInputError,
        ValueError,
        "`dtype` is 'float17'; it must be a dtype of torch, such as `torch.float16`",
    ),
    # ---------------------------------------------------------------- the blocks for diffusion
    Mistake(
        "components forgotten",
        lambda: TextToImageBlocks().init_pipeline()(prompt="dog"),
        MissingComponentError,
        ValueError,
        "these components are not loaded: `transformer`, `vae`, `text_encoder`, `tokenizer`, `scheduler`; load them "
        "with `pipe.load_components()` if the pipeline was made with a folder or a repository, or give them to "
        "`pipe.update_components`",
        ("in block `check_inputs`",),
    ),
    Mistake(
        "an unknown workflow of the embedded model",
        lambda: embedded_pipeline(workflow="moprh"),
        UnknownNameError,
        KeyError,
        "the embedded model has no workflow `moprh`, did you mean `morph`?; it has `text2image`, `image2image`, "
        "`inpainting`, `morph`",
    ),
    Mistake(
        "a dtype by its name",
        lambda: embedded_pipeline(dtype="float16"),  # type: ignore[arg-type]
        InvalidInputError,
        ValueError,
        "`dtype` must be a `torch.dtype`, such as `torch.float32`, not 'float16', did you mean `torch.float16`?",
    ),
    Mistake(
        "a folder without a model",
        lambda: load_components(Path(__file__).parent),
        InvalidInputError,
        ValueError,
        f"{Path(__file__).parent} is not a model folder: it has no model_index.json",
    ),
    Mistake(
        "no steps",
        lambda: draw(num_inference_steps=0),
        InvalidInputError,
        ValueError,
        "`num_inference_steps` must be a whole number of at least 1, not 0",
        ("in block `check_inputs`",),
    ),
    Mistake(
        "a size that no image can have",
        lambda: draw(width=500),
        InvalidInputError,
        ValueError,
        "`width` must be a multiple of 16 pixels, not 500; the nearest is 496",
        ("in block `check_inputs`",),
    ),
    Mistake(
        "a guidance that is no number",
        lambda: draw(guidance_scale=float("nan")),
        InvalidInputError,
        ValueError,
        "`guidance_scale` must be a finite number, not nan",
        ("in block `check_inputs`",),
    ),
    Mistake(
        "a list of generators of the wrong length",
        lambda: draw(generator=[torch.Generator()], num_images_per_prompt=2),
        InvalidInputError,
        ValueError,
        "`generator` is a list of 1, and there are 2 images to make; give one for each image, or a single one",
        ("in block `denoise.text2image.sample_noise`",),
    ),
    Mistake(
        "no generator in a list of generators",
        lambda: draw(generator=[None]),
        InvalidInputError,
        ValueError,
        "`generator` must be a `torch.Generator` or a list of them, not None; for a seed, write "
        "`generator=torch.Generator().manual_seed(seed)`",
        ("in block `denoise.text2image.sample_noise`",),
    ),
    Mistake(
        "latents as an array",
        lambda: draw(latents=np.zeros((1, 8, 16, 16))),
        InvalidInputError,
        ValueError,
        "`latents` must be a tensor, not an ndarray",
        ("in block `denoise.text2image.sample_noise`",),
    ),
    Mistake(
        "a single sigma",
        lambda: draw(sigmas=0.5),
        InvalidInputError,
        ValueError,
        "`sigmas` must be a list of numbers, not 0.5",
        ("in block `denoise.text2image.set_timesteps`",),
    ),
    Mistake(
        "no sigmas",
        lambda: draw(sigmas=[]),
        InvalidInputError,
        ValueError,
        "`sigmas` must be a list of at least one number, not []",
        ("in block `denoise.text2image.set_timesteps`",),
    ),
    Mistake(
        "a mask without an image",
        lambda: embedded_pipeline(workflow="inpainting")(prompt="dog", mask_image=PICTURE),
        MissingInputError,
        ValueError,
        "missing the required input `image`, which block `encode_image.prepare_mask` needs; these have a value: "
        "`mask_image`, `prompt`",
    ),
    Mistake(
        "a path as an image",
        lambda: draw(image=Path("apple.png")),
        InvalidInputError,
        ValueError,
        f"`image` must be a PIL image, an array, a tensor, or a list of those, not {Path('apple.png')!r}; open it with "
        "`PIL.Image.open(path)`",
        ("in block `encode_image.image2image`",),
    ),
    Mistake(
        "an array without colours",
        lambda: draw(image=np.zeros((64, 64), dtype=np.float32)),
        InvalidInputError,
        ValueError,
        f"`image` has the shape (64, 64); {SHAPES}",
        ("in block `encode_image.image2image`",),
    ),
    Mistake(
        "a tensor with the colours at the end",
        lambda: draw(image=torch.zeros(64, 64, 3)),
        InvalidInputError,
        ValueError,
        f"`image` has the shape (64, 64, 3); {SHAPES}",
        ("in block `encode_image.image2image`",),
    ),
    Mistake(
        "an array of bytes",
        lambda: draw(image=np.asarray(PICTURE)),
        InvalidInputError,
        ValueError,
        "`image` must have values between 0 and 1 if it is an array or a tensor; divide bytes by 255, or give a PIL "
        "image",
        ("in block `encode_image.image2image`",),
    ),
    Mistake(
        "a strength that is too large",
        lambda: draw(image=PICTURE, strength=60),
        InvalidInputError,
        ValueError,
        "`strength` must be a number between 0 and 1, not 60",
        ("in block `denoise.image2image.strength`",),
    ),
    Mistake(
        "a list of images to be saved as one",
        lambda: save_image([PICTURE], "apple.png"),  # type: ignore[arg-type]
        InvalidInputError,
        ValueError,
        "`image` must be one PIL image, not a list",
    ),
    Mistake(
        "a folder that is not there, to save into",
        lambda: save_image(PICTURE, "nowhere/apple.png"),
        FileNotFoundError,
        OSError,
        "[Errno 2] there is no folder to write into: 'nowhere'",
    ),
]


def _saved() -> Memory:
    """A run of three iterations, all of which were kept."""
    _, memory = saved_run(pipeline(count=Count), steps=3)
    return memory


def _put_into_itself(name: str, loop: Any = None) -> None:
    """Puts a sequence among its own sub-blocks, at once or as a block of a loop that is put there."""
    outer = sequence(work=Work)
    if loop is None:
        outer.sub_blocks[name] = outer
    else:
        loop.sub_blocks["inner"] = outer
        outer.sub_blocks.insert(name, sequence(count=loop), 0)


def _replace_by_itself(blocks: Any) -> None:
    blocks.sub_blocks = {"work": blocks}


def _with_a_generator() -> Any:
    state = work()(prompt="dog")
    state.set("rest", (number for number in range(3)))
    return state


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.title for mistake in MISTAKES])
def test_a_mistake_is_explained(mistake: Mistake) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011
        mistake.make()
    assert str(raised.value) == mistake.text
    assert type(raised.value) is mistake.error
    assert isinstance(raised.value, mistake.builtin)
    assert tuple(getattr(raised.value, "__notes__", ())) == mistake.notes


def test_every_mistake_has_a_title_of_its_own() -> None:
    assert len({mistake.title for mistake in MISTAKES}) == len(MISTAKES)


# What runs and is likely not what was meant: `check` says it


class Forgets(ModularPipelineBlocks):
    inputs = [InputParam("x", default=0)]
    intermediate_outputs = [OutputParam("x")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        block_state.x = block_state.x + 1
        return components, state


class ForgetsTheLoop(LoopSequentialPipelineBlocks):
    block_classes = [Add]
    block_names = ["add"]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.get_block_state(state)
        components, block_state = self.loop_step(components, block_state, i=1)
        return components, state


WARNINGS: list[tuple[str, Any, str]] = [
    (
        "`set_block_state` is forgotten, where the value is there already",
        sequence(forgets=Forgets),
        "warning [lost-outputs] at `forgets`: `Forgets` calls `get_block_state` and never `set_block_state`: what it "
        "writes is lost; call `self.set_block_state(state, block_state)` before it returns",
    ),
    (
        "a loop by hand forgets `set_block_state`",
        sequence(loop=ForgetsTheLoop),
        "warning [lost-outputs] at `loop`: `ForgetsTheLoop` calls `get_block_state` and never `set_block_state`: what "
        "it writes is lost; call `self.set_block_state(state, block_state)` before it returns",
    ),
    (
        "a trigger is misspelt",
        composite(Choose, block_trigger_inputs=["imgae"]),
        "warning [unknown-trigger]: chooses by `imgae`, which no block reads or writes, did you mean `image`?; no call "
        "can give it, so `select_block` always gets `imgae=None`; correct `block_trigger_inputs`, or, if the name is "
        'right, add `InputParam("imgae")` to the `inputs` of the block that it is for',
    ),
    (
        "a trigger is misspelt, and another is not",
        composite(
            AutoPipelineBlocks,
            block_classes=[leaf(inputs=[InputParam("mask_image")]), leaf(inputs=[InputParam("image")]), leaf()],
            block_names=["inpainting", "image2image", "text2image"],
            block_trigger_inputs=["mask", "image", None],
        ),
        "warning [unknown-trigger]: chooses by `mask`, which no block reads or writes, did you mean `mask_image`?; no "
        "call can give it, so `inpainting` never runs; correct `block_trigger_inputs`, or, if the name is right, add "
        '`InputParam("mask")` to the `inputs` of the block that it is for',
    ),
    (
        "the only trigger is misspelt",
        composite(
            AutoPipelineBlocks,
            block_classes=[leaf(inputs=[InputParam("image")]), leaf()],
            block_names=["image2image", "text2image"],
            block_trigger_inputs=["imgae", None],
        ),
        "warning [unknown-trigger]: chooses by `imgae`, which no block reads or writes, did you mean `image`?; no call "
        "can give it, so `text2image` runs every time; correct `block_trigger_inputs`, or, if the name is right, add "
        '`InputParam("imgae")` to the `inputs` of the block that it is for',
    ),
    (
        "the only trigger is misspelt, and there is no default",
        composite(
            AutoPipelineBlocks,
            block_classes=[leaf(inputs=[InputParam("image")])],
            block_names=["image2image"],
            block_trigger_inputs=["imgae"],
        ),
        "warning [unknown-trigger]: chooses by `imgae`, which no block reads or writes, did you mean `image`?; no call "
        "can give it, so none of its blocks ever runs; correct `block_trigger_inputs`, or, if the name is right, add "
        '`InputParam("imgae")` to the `inputs` of the block that it is for',
    ),
    (
        "two workflows are selected by the same inputs",
        composite(Workflows, _workflow_map={"a": {"prompt": True}, "b": ({"prompt": "dog", "image": None},)}),
        "warning [equal-workflows]: the workflows `a` and `b` of `Mine` are selected by the same inputs, `prompt`, so "
        "both are the same blocks; name another input for one of them in `_workflow_map`, or take it out",
    ),
    (
        "a value is called differently where it is read",
        sequence(
            write=leaf(intermediate_outputs=[OutputParam("prompt_embeds")]),
            read=leaf(inputs=[InputParam("prompt_embed")]),
        ),
        "warning [near-miss] at `read`: reads `prompt_embed`, which no block writes, while `write` writes "
        "`prompt_embeds`; if `prompt_embeds` is meant, rename one of them",
    ),
    (
        "two blocks expect one component of different classes",
        sequence(
            a=leaf(expected_components=[ComponentSpec("vae", torch.nn.Linear)]),
            b=leaf(expected_components=[ComponentSpec("vae", torch.nn.Conv2d)]),
        ),
        "warning [clashing-component] at `a`: `vae` is declared with different component types: Linear at `a`, Conv2d "
        "at `b`; declare it alike, or give one of them another name",
    ),
    (
        "a block has no `__call__`",
        sequence(work=type("Mine", (ModularPipelineBlocks,), {})),
        "warning [not-defined] at `work`: `Mine` does not define `__call__`; define `__call__`",
    ),
]


@pytest.mark.parametrize(("blocks", "text"), [row[1:] for row in WARNINGS], ids=[title for title, _, _ in WARNINGS])
def test_check_warns(blocks: Any, text: str) -> None:
    assert [str(finding) for finding in check(blocks) if finding.severity != "note"] == [text]


# What looks like a mistake, and is not


def test_a_run_that_has_ended_has_no_events_left() -> None:
    run = pipeline(count=Count).stream()
    assert [event.index for event in run] == [0, 1]
    assert list(run) == []
    assert run.result().x == 1


def test_masks_may_be_arrays_of_booleans() -> None:
    mask = np.zeros((64, 64), dtype=bool)
    assert draw(image=PICTURE, mask_image=mask, output="mask").max() == 0


def test_blocks_may_be_listed_by_views_of_a_dict() -> None:
    blocks = {"work": Work}
    listed = composite(SequentialPipelineBlocks, block_classes=blocks.values(), block_names=blocks.keys())()
    assert list(listed.sub_blocks) == ["work"]


def test_an_attribute_of_nearly_the_name_of_a_declaration_may_stand_beside_it() -> None:
    class Both(Work):
        input = "latents"

    assert Both().init_pipeline()(prompt="dog", output="images") == ["dog"]


def test_a_failed_insert_changes_nothing() -> None:
    blocks = sequence(work=Work)
    with pytest.raises(BlockTypeError):
        blocks.sub_blocks.insert("more", give_back, 0)
    assert list(blocks.sub_blocks) == ["work"]
