"""The command line: what it writes, and what it says to a mistake."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from loopwright.cli import main
from loopwright.cli.terminal import half_blocks
from loopwright.diffusion import read_metadata
from loopwright.diffusion.model_index import EMBEDDED_MODEL


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Pictures


def test_generate_writes_a_picture_that_says_how_it_was_made(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "red apple", "-o", "apple.png", "--steps", "2", "--seed", "7", "--negative", "leaf"]) == 0
    assert capsys.readouterr().out == "apple.png  seed 7\n"
    assert files(folder) == ["apple.png"]
    metadata = read_metadata("apple.png")
    assert metadata is not None
    assert (metadata.prompt, metadata.negative_prompt, metadata.seed) == ("red apple", "leaf", 7)
    assert (metadata.num_inference_steps, metadata.guidance_scale) == (2, 3.0)
    assert (metadata.scheduler, metadata.width, metadata.height) == ("FlowMatchEulerDiscreteScheduler", 64, 64)


def test_a_seed_makes_the_same_picture_again_alone_or_among_others(folder: Path) -> None:
    assert main(["generate", "dog", "-o", "many.png", "-n", "3", "--steps", "2", "--seed", "5"]) == 0
    assert files(folder) == ["many-1.png", "many-2.png", "many-3.png"]
    assert main(["generate", "dog", "-o", "again.png", "--steps", "2", "--seed", "7"]) == 0
    with Image.open("many-3.png") as third, Image.open("again.png") as again:
        differences = [abs(a - b) for a, b in zip(third.tobytes(), again.tobytes(), strict=True)]
    assert max(differences) <= 1


def test_a_random_seed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "dog", "-o", "dog.png", "--steps", "1"]) == 0
    said = re.search(r"^seed (\d+)$", capsys.readouterr().err, re.MULTILINE)
    metadata = read_metadata("dog.png")
    assert said is not None
    assert metadata is not None
    assert metadata.seed == int(said[1])


def test_a_word_that_the_model_does_not_know_is_noted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "red applle", "-o", "apple.png", "--steps", "1", "--seed", "1"]) == 0
    assert capsys.readouterr().err == "note: the model does not know the word `applle`, did you mean `apple`?\n"


def test_image_to_image_and_inpainting(folder: Path) -> None:
    Image.new("RGB", (64, 64), "red").save("red.png")
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))
    mask.save("mask.png")
    options = ["--image", "red.png", "--steps", "2", "--seed", "1"]
    assert main(["generate", "dog", "-o", "new.png", "--strength", "0.5", *options]) == 0
    metadata = read_metadata("new.png")
    assert metadata is not None
    assert metadata.strength == 0.5
    assert main(["generate", "dog", "-o", "half.webp", "--mask", "mask.png", *options]) == 0
    with Image.open("half.webp") as half:
        assert half.crop((0, 0, 32, 64)).getcolors() == [(32 * 64, (255, 0, 0))]


def test_morph_writes_an_animation_that_goes_and_comes_back() -> None:
    assert main(["morph", "cat", "dog", "-o", "morph.webp", "--frames", "3", "--steps", "1", "--seed", "1"]) == 0
    with Image.open("morph.webp") as animation:
        assert animation.n_frames == 4  # type: ignore[attr-defined]
    metadata = read_metadata("morph.webp")
    assert metadata is not None
    assert metadata.prompt == "cat -> dog"


def test_a_picture_is_shown_as_half_blocks() -> None:
    picture = Image.new("RGB", (2, 2), (255, 0, 0))
    picture.paste((0, 0, 255), (0, 1, 2, 2))
    assert half_blocks(picture, columns=80, lines=24) == "\x1b[38;2;255;0;0;48;2;0;0;255m▀" * 2 + "\x1b[0m"


def test_a_shown_picture_fits_the_terminal() -> None:
    shown = half_blocks(Image.new("RGB", (64, 64)), columns=20, lines=24).splitlines()
    assert len(shown) == 10
    assert shown[0].count("▀") == 20


# Descriptions and checks

BLOCKS = """
from loopwright.modular_pipelines import InputParam, LoopSequentialPipelineBlocks, ModularPipelineBlocks, OutputParam

class Add(ModularPipelineBlocks):
    description = "Adds one."
    inputs = [InputParam("x", required=True)]
    intermediate_outputs = [OutputParam("x")]
    def __call__(self, components, block_state, {variable}):
        block_state.x += 1
        return components, block_state

class Count(LoopSequentialPipelineBlocks):
    description = "Counts."
    block_classes = [Add]
    block_names = ["add"]
    loop_inputs = [InputParam("n", required=True)]
    def iterate(self, components, block_state):
        for i in range(block_state.n):
            yield {{"i": i}}

pipe = Count().init_pipeline if {good} else None
number = 3
nothing = None

class Names(Add):
    inputs = ["x"]
"""


@pytest.fixture
def blocks(folder: Path) -> None:
    (folder / "good_blocks.py").write_text(BLOCKS.format(variable="i", good=True))
    (folder / "bad_blocks.py").write_text(BLOCKS.format(variable="t", good=False))


def test_check_of_the_embedded_model_finds_no_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 errors, 0 warnings, ")


def test_check_finds_errors(blocks: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "good_blocks:Count"]) == 0
    capsys.readouterr()
    assert main(["check", "bad_blocks:Count"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("error [missing-loop-variable] at `add`: ")
    assert out.splitlines()[-1].startswith("1 error, ")


def test_check_as_json(blocks: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "bad_blocks:Count", "--format", "json"]) == 1
    (finding,) = [entry for entry in json.loads(capsys.readouterr().out) if entry["severity"] == "error"]
    assert (finding["code"], finding["path"]) == ("missing-loop-variable", "add")


@pytest.mark.parametrize(("form", "suffix"), [("text", "txt"), ("mermaid", "mmd"), ("html", "html")])
def test_describe(blocks: None, capsys: pytest.CaptureFixture[str], form: str, suffix: str) -> None:
    assert main(["describe", "good_blocks:Count", "--format", form]) == 0
    shown = capsys.readouterr().out
    assert "add" in shown
    assert main(["describe", "good_blocks:Count", "--format", form, "-o", f"count.{suffix}"]) == 0
    assert Path(f"count.{suffix}").read_text(encoding="utf-8").strip() == shown.strip()


def test_describe_a_workflow_of_the_embedded_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "--workflow", "text2image"]) == 0
    shown = capsys.readouterr().out
    assert "denoise" in shown
    assert "mask_image" not in shown


def test_describe_and_check_the_blocks_that_a_model_folder_is_served_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe"]) == 0
    embedded = capsys.readouterr().out
    assert main(["describe", str(EMBEDDED_MODEL)]) == 0
    assert capsys.readouterr().out == embedded
    Path("flux").mkdir()
    Path("flux/model_index.json").write_text('{"_class_name": "FluxPipeline", "_diffusers_version": "0.42.1"}')
    assert main(["describe", "flux", "--workflow", "image2image"]) == 0
    assert "FluxImg2ImgSetTimestepsStep" in capsys.readouterr().out
    assert main(["check", "flux"]) == 0
    assert "0 errors" in capsys.readouterr().out


# Mistakes: one line on stderr, exit code 2, no file

GENERATE = ["generate", "dog", "--seed", "1", "--steps", "1"]
MISTAKES: list[tuple[list[str], str]] = [
    (["genrate", "dog"], "No such command 'genrate'. Did you mean 'generate'?"),
    (["generate"], "Missing argument 'prompt'."),
    (
        ["generate", "dog", "cat", "--steps", "1"],
        "generate takes one prompt: put its words into quotes, as in loopwright generate 'dog cat'; several prompts "
        "make an animation: loopwright morph",
    ),
    (["describe", "embedded", "model"], "Got unexpected extra argument(s) (model)"),
    (["generate", "dog", "--stesp", "3"], "No such option: --stesp, did you mean --steps?"),
    (["generate", "dog", "--qqq"], "No such option: --qqq; see loopwright generate --help"),
    (
        ["generate", "dog", "--steps", "many"],
        "Invalid value for '--steps': Input should be a valid integer, unable to parse string as an integer",
    ),
    ([*GENERATE, "--steps", "0"], "--steps must be at least 1, not 0"),
    ([*GENERATE, "--steps", "-3"], "--steps must be at least 1, not -3"),
    (
        [*GENERATE, "--guidance", "high"],
        "Invalid value for '--guidance': Input should be a valid number, unable to parse string as a number",
    ),
    ([*GENERATE, "--guidance", "nan"], "`guidance_scale` must be a finite number, not nan"),
    ([*GENERATE, "-n", "0"], "-n must be at least 1, not 0"),
    ([*GENERATE, "--seed", "-1"], "--seed must lie between 0 and 2^63 - 1, not -1"),
    (
        [*GENERATE, "-o", "dog.pgn"],
        "cannot write dog.pgn: it must end in .png or .webp or .jpg or .jpeg, not .pgn, did you mean `.png`?",
    ),
    (
        [*GENERATE, "-o", "dog"],
        "cannot write dog: it must end in .png or .webp or .jpg or .jpeg, and this has no suffix",
    ),
    ([*GENERATE, "-o", "absent/dog.png"], "cannot write absent/dog.png: there is no folder absent"),
    ([*GENERATE, "-o", "."], ". is a folder; name a file in it, such as picture.png"),
    ([*GENERATE, "--image", "absent.png"], "--image: there is no file absent.png"),
    ([*GENERATE, "--image", "."], "--image: . is a folder; name an image in it"),
    ([*GENERATE, "--image", "text.png"], "--image: text.png is not an image that can be read"),
    ([*GENERATE, "--image", "red.png", "--strength", "2"], "--strength must be between 0 and 1, not 2"),
    ([*GENERATE, "--image", "red.png", "--strength", "-0.5"], "--strength must be between 0 and 1, not -0.5"),
    ([*GENERATE, "--mask", "red.png"], "--mask needs --image: the picture to change where the mask is white"),
    ([*GENERATE, "--strength", "0.5"], "--strength needs --image: the picture to start from"),
    (
        [*GENERATE, "--image", "red.png", "--mask", "small.png"],
        "--mask is 8x8 pixels, and --image is 64x64; they must be alike",
    ),
    ([*GENERATE, "--height", "70"], "`height` must be a multiple of 16 pixels, not 70; the nearest is 64"),
    ([*GENERATE, "--model", "absent"], "there is no model folder absent"),
    ([*GENERATE, "--model", "."], ". is not a model folder: it has no model_index.json"),
    (["morph", "cat"], "morph needs at least two prompts, such as: loopwright morph 'cat' 'dog'"),
    (["morph", "cat", "dog", "--frames", "1"], "--frames must be at least 2, not 1"),
    (
        ["morph", "cat", "dog", "-o", "morph.mp4"],
        "cannot write morph.mp4: it must end in .webp or .gif or .png, not .mp4",
    ),
    (["describe", "--format", "htm"], "--format must be text or mermaid or html, not 'htm', did you mean `html`?"),
    (
        ["describe", "--workflow", "txt2img"],
        "`AutoImageBlocks` has no workflow `txt2img`, did you mean `text2image`?; it has `text2image`, `image2image`, "
        "`inpainting`",
    ),
    (
        ["check", "good_blocks:Count", "--workflow", "text2image"],
        "`Count` has no workflows: it does not set `_workflow_map`",
    ),
    (
        ["describe", "-o", "blocks.png"],
        "cannot write blocks.png: a description ends in .txt (--format text), .mmd (--format mermaid), .html (--format "
        "html), not .png",
    ),
    (
        ["describe", "-o", "blocks"],
        "cannot write blocks: a description ends in .txt (--format text), .mmd (--format mermaid), .html (--format "
        "html), and this has no suffix",
    ),
    (
        ["describe", "-o", "blocks.html"],
        "cannot write blocks.html: .html is for --format html, and --format text ends in .txt",
    ),
    (["describe", "-o", "."], ". is a folder; name a file in it, such as picture.txt"),
    (
        ["describe", "good_blocks"],
        "'good_blocks' is neither a model folder nor of the form module:attribute, such as my_blocks:Denoise",
    ),
    (["describe", "absent_blocks:Count"], "there is no module absent_blocks, here or installed"),
    (
        ["check", "good_blocks.py:Count"],
        "there is no module good_blocks.py, here or installed; write good_blocks:Count",
    ),
    (["describe", "good_blocks:count"], "the module good_blocks has no attribute `count`, did you mean `Count`?"),
    (
        ["check", "good_blocks:number"],
        "good_blocks:number is an int; it must be a class or an instance of blocks, or a pipeline",
    ),
    (
        ["check", "good_blocks:nothing"],
        "good_blocks:nothing is None; it must be a class or an instance of blocks, or a pipeline",
    ),
    (
        ["describe", "good_blocks:Names"],
        "`Names.inputs` holds 'x', which is not an `InputParam`; write `InputParam(\"x\")`",
    ),
    (
        ["check", "broken_blocks:Count"],
        "the module broken_blocks cannot be imported: NameError: name 'Undefined' is not defined",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES])
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, folder: Path, blocks: None, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (64, 64), "red").save("red.png")
    Image.new("L", (8, 8)).save("small.png")
    Path("text.png").write_text("no image")
    Path("broken_blocks.py").write_text("Undefined\n")
    before = {name for name in files(folder) if name != "__pycache__"}
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err == f"error: {message}\n"
    assert captured.out == ""
    assert {name for name in files(folder) if name != "__pycache__"} == before


@pytest.mark.parametrize("arguments", [[*GENERATE, "-o", "locked/dog.png"], ["describe", "-o", "locked/blocks.txt"]])
def test_a_folder_that_cannot_be_written_to(
    arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "locked").mkdir()
    # who runs the tests as root may write anywhere
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "locked")
    assert main(arguments) == 2
    error = f"error: cannot write {arguments[-1]}: the folder locked is not writable\n"
    assert capsys.readouterr() == ("", error)
    assert files(folder / "locked") == []


@pytest.mark.parametrize("arguments", [[*GENERATE, "-o", "dog.png"], ["describe", "-o", "blocks.txt"]])
def test_a_file_that_cannot_be_written(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    monkeypatch.setattr(Path, "replace", full)
    assert main(arguments) == 2
    assert capsys.readouterr() == ("", f"error: cannot write {arguments[-1]}: No space left on device\n")


# Start and stop


def test_without_arguments_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    for command in ("generate", "morph", "describe", "check"):
        assert command in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"loopwright \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_mistakes_are_found_before_anything_large_is_imported(folder: Path) -> None:
    script = "import sys; from loopwright.cli import main; main(sys.argv[1:]); print({*sys.modules} & {'torch'})"
    arguments = ["generate", "dog", "-o", "absent/dog.png"]
    ran = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"
