"""Images on disk that say how they were made.

PNG files carry two text chunks: `parameters`, the single text that tools of this field read

    red apple
    Negative prompt: leaf
    Steps: 20, Sampler: EulerDiscreteScheduler, CFG scale: 3, Seed: 7, Size: 64x64, Model: emoji, Version: loopwright 1

and `loopwright`, the same as JSON. JPEG and WebP files carry the first, in the EXIF tag `UserComment`, and GIF files in
their comment.
"""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from loopwright.errors import InvalidInputError, did_you_mean, kind_of

__all__ = ["ANIMATION_SUFFIXES", "IMAGE_SUFFIXES", "ImageMetadata", "read_metadata", "save_animation", "save_image"]

IMAGE_SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")
ANIMATION_SUFFIXES = (".webp", ".gif", ".png")

_USER_COMMENT = 0x9286
# EXIF 2.3, 4.6.5: the first eight bytes of a user comment name its encoding
_UNICODE = b"UNICODE\0"

# the keys of the last line of `parameters`, and the fields that they stand for
_KEYS = {
    "Steps": "num_inference_steps",
    "Sampler": "scheduler",
    "CFG scale": "guidance_scale",
    "Seed": "seed",
    "Size": "size",
    "Model": "model",
    "Denoising strength": "strength",
    "Version": "version",
}
_SETTING = re.compile(r'\s*([A-Z][\w ]*): ("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)')


def _version() -> str:
    return f"loopwright {importlib.metadata.version('loopwright')}"


@dataclass(frozen=True)
class ImageMetadata:
    """How an image was made.

    Attributes:
        prompt: the prompt.
        negative_prompt: the negative prompt, None if there was none.
        seed: the seed of the image's generator.
        num_inference_steps: the number of denoising steps.
        guidance_scale: the scale of the guidance.
        scheduler: the class of the scheduler, such as `FlowMatchEulerDiscreteScheduler`.
        model: the name of the model.
        width: in pixels.
        height: in pixels.
        strength: how far from the image that the call gave; None without one.
        version: what made the image.
    """

    prompt: str
    negative_prompt: str | None = None
    seed: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    scheduler: str | None = None
    model: str | None = None
    width: int | None = None
    height: int | None = None
    strength: float | None = None
    version: str = field(default_factory=_version)

    def to_parameters(self) -> str:
        """The single text that tools of this field read and write."""
        values = {**asdict(self), "size": f"{self.width}x{self.height}" if self.width and self.height else None}
        settings = [f"{key}: {_quoted(values[name])}" for key, name in _KEYS.items() if values[name] is not None]
        negative = [f"Negative prompt: {self.negative_prompt}"] if self.negative_prompt else []
        return "\n".join([self.prompt, *negative, ", ".join(settings)])

    @classmethod
    def from_parameters(cls, text: str) -> ImageMetadata:
        """Read what `to_parameters`, or another tool, wrote; settings that are not fields here are left out."""
        prompt, _, last = text.strip().rpartition("\n")
        settings = {key: _unquoted(value) for key, value in _SETTING.findall(last)}
        if next(iter(settings), None) not in _KEYS:
            prompt, settings = text.strip(), {}
        prompt, _, negative = f"\n{prompt}".partition("\nNegative prompt: ")
        fields = {name: settings[key] for key, name in _KEYS.items() if key in settings}
        width, _, height = fields.pop("size", "").partition("x")
        return cls(
            prompt=prompt.strip(),
            negative_prompt=negative or None,
            seed=_number(int, fields.get("seed")),
            num_inference_steps=_number(int, fields.get("num_inference_steps")),
            guidance_scale=_number(float, fields.get("guidance_scale")),
            scheduler=fields.get("scheduler"),
            model=fields.get("model"),
            width=_number(int, width),
            height=_number(int, height),
            strength=_number(float, fields.get("strength")),
            version=fields.get("version", "unknown"),
        )


def save_image(image: Image.Image, path: str | Path, metadata: ImageMetadata | None = None) -> None:
    """Write an image with its metadata, as the suffix of `path` says. There is a whole file afterwards, or none.

    Raises:
        InvalidInputError: the suffix is not one of `IMAGE_SUFFIXES`, or what is given is not an image.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise InvalidInputError(
            f"{path}: images are written as {', '.join(IMAGE_SUFFIXES)}{did_you_mean(suffix, IMAGE_SUFFIXES)}"
        )
    if not isinstance(image, Image.Image):
        raise InvalidInputError(f"`image` must be one PIL image, not {kind_of(image)}")
    options: dict[str, Any] = {"quality": 95} if suffix in (".jpg", ".jpeg") else {}
    if suffix == ".webp":
        options["lossless"] = True
    if metadata is not None and suffix == ".png":
        options["pnginfo"] = _png_info(metadata)
    elif metadata is not None:
        options["exif"] = _exif(metadata)
    kind = Image.registered_extensions()[suffix]
    _write_whole(path, lambda file: image.save(file, format=kind, **options))


def save_animation(
    frames: Sequence[Image.Image],
    path: str | Path,
    metadata: ImageMetadata | None = None,
    *,
    frame_ms: int = 80,
    last_ms: int | None = None,
) -> None:
    """Write frames as an animation that repeats forever: lossless as WebP or PNG; a GIF has 256 colours.

    Args:
        frames: the frames, of one size.
        path: where; the suffix says as what.
        metadata: how the animation was made.
        frame_ms: how long each frame is shown, in milliseconds; a GIF counts in tens of them.
        last_ms: how long the last one is; as long as the others if None.

    Raises:
        InvalidInputError: there are no frames, or the suffix of `path` is not one of `ANIMATION_SUFFIXES`.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in ANIMATION_SUFFIXES:
        raise InvalidInputError(
            f"{path}: animations are written as {', '.join(ANIMATION_SUFFIXES)}"
            f"{did_you_mean(suffix, ANIMATION_SUFFIXES)}"
        )
    if not frames:
        raise InvalidInputError("`frames` is empty; give at least one")
    first, *rest = frames
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    if metadata is not None and suffix == ".png":
        options["pnginfo"] = _png_info(metadata)
    elif metadata is not None and suffix == ".gif":
        options["comment"] = metadata.to_parameters().encode()
    elif metadata is not None:
        options["exif"] = _exif(metadata)
    # a single frame is a picture: some formats take no list for it
    durations = [frame_ms] * len(rest) + [frame_ms if last_ms is None else last_ms] if rest else frame_ms
    kind = Image.registered_extensions()[suffix]
    _write_whole(
        path,
        lambda file: first.save(
            file, format=kind, save_all=True, append_images=rest, duration=durations, loop=0, **options
        ),
    )


def read_metadata(path: str | Path) -> ImageMetadata | None:
    """How the image in a file was made; None if the file does not say.

    Raises:
        FileNotFoundError: there is no such file.
        InvalidInputError: the file is not an image.
    """
    try:
        with Image.open(path) as image:
            image.load()
            own, text = image.info.get("loopwright"), image.info.get("parameters")
            if image.format == "GIF" and "comment" in image.info:
                text = image.info["comment"].decode(errors="replace")
            comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(_USER_COMMENT)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise InvalidInputError(f"{path} is not an image") from error
    if own is not None:
        known = ImageMetadata.__dataclass_fields__
        return ImageMetadata(**{name: value for name, value in json.loads(own).items() if name in known})
    if text is None and isinstance(comment, bytes) and comment.startswith(_UNICODE):
        text = comment.removeprefix(_UNICODE).decode("utf-16-be")
    return None if text is None else ImageMetadata.from_parameters(text)


def _png_info(metadata: ImageMetadata) -> PngInfo:
    chunks = PngInfo()
    chunks.add_text("parameters", metadata.to_parameters())
    chunks.add_text("loopwright", json.dumps(asdict(metadata)))
    return chunks


def _exif(metadata: ImageMetadata) -> Image.Exif:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[_USER_COMMENT] = _UNICODE + metadata.to_parameters().encode("utf-16-be")
    return exif


def _write_whole(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write beside `path` and rename, so that no reader and no crash ever sees half a file.

    Raises:
        FileNotFoundError: there is no folder to write into.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no folder to write into", str(path.parent))
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as file:
            write(file)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _quoted(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r'[,:"\n]', text) else text


def _unquoted(value: str) -> str:
    value = value.strip()
    return str(json.loads(value)) if value.startswith('"') else value


def _number(kind: Callable[[str], Any], text: str | None) -> Any:
    try:
        return kind(text) if text else None
    except ValueError:
        return None
