"""The data step: pictures, captions, colour copies and the pairs held out.

Pictures are Noto Emoji (Apache-2.0) as the npm package `emoji-datasource-google` carries them, 64x64, set on white.
Captions are the package's names and the keywords of the npm package `emojilib` (MIT). Objects of one dominant hue get
copies in the other colours ("blue apple"); fifty pairs of colour and object are held out: no picture, no caption.
The step is deterministic and takes a minute.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .colours import COLOUR_WORDS, HUES, dominant_hue, grey_shape, hue_distance, nearest_colour, to_hsl, turn_to
from .workfolder import WorkFolder, argument_parser, open_work, write_json

IMAGES = (
    "emoji-datasource-google@16.0.0",
    "sha512-ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A==",
)
KEYWORDS = (
    "emojilib@4.0.3",
    "sha512-KbWiYre9aRSaPbHrHZIz9zmoM+21LAsK1VFJtnTh1VCtWE/rNMDviGhQTmselFl95dhqtGlY22iH0leG5BuW0g==",
)
SEED = 20260
HELD_OUT_PAIRS = 50

Pair = tuple[int, str]

_TURNED_CATEGORIES = {"Animals & Nature", "Food & Drink", "Objects", "Activities", "Travel & Places"}
_JOINER, _FEMALE, _MALE, _RIGHTWARDS, _PERSON = "200D", "2640", "2642", "27A1", "1F9D1"


def fetch(package: str, integrity: str, folder: Path) -> Path:
    """The package's archive in `folder`, got with `npm pack` where it is missing, and checked against its hash."""
    name, version = package.split("@")
    archive = folder / f"{name}-{version}.tgz"
    if not archive.exists():
        subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True)
    algorithm, expected = integrity.split("-", 1)
    found = base64.b64encode(hashlib.new(algorithm, archive.read_bytes()).digest()).decode()
    if found != expected:
        raise ValueError(f"{archive} is not {package}: {algorithm} is {found}, expected {expected}")
    return archive


def is_wanted(emoji: dict[str, Any], code_points: set[str]) -> bool:
    """Whether a picture is one that words tell apart: no flags, keycaps, clock faces, arrows, boxed letters, and of
    people that differ by gender or direction only the neutral one."""
    if not emoji["has_img_google"] or emoji["category"] in ("Flags", "Component"):
        return False
    if emoji["subcategory"] in ("keycap", "arrow", "av-symbol", "alphanum", "family"):
        return False
    parts = emoji["unified"].split("-")
    first = int(parts[0], 16)
    if 0x1F550 <= first <= 0x1F567:
        return False
    if _JOINER not in parts:
        return True
    if _FEMALE in parts or _MALE in parts or _RIGHTWARDS in parts:
        return False
    neutral = "-".join([_PERSON, *parts[1:]])
    return parts[0] not in ("1F468", "1F469") or neutral not in code_points


def words(text: str) -> str:
    """A name or keyword as plain lower-case words: "T-Rex_face" becomes "t rex face"."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower().replace("’", "").replace("'", "")))


def plain_names(emoji: dict[str, Any]) -> list[str]:
    found = [words(emoji["name"] or ""), *(words(name) for name in emoji["short_names"])]
    return [name for name in dict.fromkeys(found) if name]


def object_name(names: list[str]) -> str | None:
    """The shortest name that says no colour: what stands after the colour in a copy's caption."""
    fitting = [name for name in names if not COLOUR_WORDS & set(name.split()) and len(name) > 2]
    return min(fitting, key=lambda name: (len(name.split()), len(name)), default=None)


def on_white(png: bytes) -> np.ndarray:
    """[64, 64, 3] uint8."""
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(white, picture).convert("RGB").resize((64, 64), Image.Resampling.LANCZOS))


def read_originals(image_archive: Path, keyword_archive: Path) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Every wanted picture once, with its names and keywords, in the order of the emoji charts."""
    with tarfile.open(keyword_archive) as archive:
        listed = json.load(_member(archive, "package/dist/emoji-en-US.json"))
    keywords = {character.replace("\ufe0f", ""): entry for character, entry in listed.items()}
    records: list[dict[str, Any]] = []
    pictures: list[np.ndarray] = []
    seen: set[bytes] = set()
    with tarfile.open(image_archive) as archive:
        table = sorted(json.load(_member(archive, "package/emoji.json")), key=lambda emoji: emoji["sort_order"])
        code_points = {emoji["unified"] for emoji in table}
        wanted = {f"package/img/google/64/{emoji['image']}": emoji for emoji in table if is_wanted(emoji, code_points)}
        contents = {
            member.name: archive.extractfile(member).read()
            for member in archive
            if member.name in wanted  # type: ignore[union-attr]
        }
    for path, emoji in wanted.items():
        picture = on_white(contents[path])
        if picture.tobytes() in seen:
            continue
        seen.add(picture.tobytes())
        character = "".join(chr(int(part, 16)) for part in emoji["unified"].split("-"))
        names = plain_names(emoji)
        own, *others = [words(entry) for entry in keywords.get(character.replace("\ufe0f", ""), ["", ""])]
        names = list(dict.fromkeys([*names, own] if own else names))
        records.append(
            {
                "character": character,
                "category": emoji["category"],
                "names": names,
                "keywords": [word for word in dict.fromkeys(others) if len(word) > 1 and word not in names],
            }
        )
        pictures.append(picture)
    return records, np.stack(pictures)


def _member(archive: tarfile.TarFile, name: str) -> io.BufferedIOBase:
    member = archive.extractfile(name)
    if member is None:
        raise ValueError(f"the archive has no file {name}")
    return member  # type: ignore[return-value]


def mark_colours(records: list[dict[str, Any]], pictures: np.ndarray) -> None:
    """Gives a record its `colour` and its `object` where it is an object of one dominant hue, else None for both."""
    taken: set[str] = set()
    for record, picture in zip(records, pictures, strict=True):
        record["colour"] = record["object"] = None
        hue, share, chroma = dominant_hue(picture.astype(np.float32) / 255)
        name = object_name(record["names"])
        says_colour = any(COLOUR_WORDS & set(caption.split()) for caption in record["names"])
        # The shortest name of "red apple" is "apple"; a "blue heart" has no name without its colour.
        fits = name is not None and name not in taken and (not says_colour or name != record["names"][0])
        if record["category"] in _TURNED_CATEGORIES and fits and share > 0.72 and chroma > 0.22:
            record["colour"], record["object"] = colour_word(picture, hue), name
            taken.add(str(name))


def colour_word(picture: np.ndarray, hue: float) -> str:
    """The colour's name; a dark orange is brown."""
    colour = nearest_colour(hue)
    distance = hue_distance(to_hsl(picture.astype(np.float32) / 255)[0], hue)
    dominant = picture[(distance < 25) & (picture.min(-1) < 240)]
    return "brown" if colour in ("orange", "red") and hue > 8 and dominant.max(-1).mean() < 190 else colour


def are_clear_shapes(pictures: np.ndarray) -> np.ndarray:
    """For every picture whether no other has a similar grey shape: its nearest is farther off than the median's."""
    grey = grey_shape(pictures.astype(np.float32) / 255)
    small = grey.reshape(len(grey), 32, 2, 32, 2).mean((2, 4)).reshape(len(grey), -1)
    square = (small**2).sum(1)
    distance = square[:, None] + square[None] - 2 * small @ small.T
    np.fill_diagonal(distance, np.inf)
    nearest = distance.min(1)
    return nearest > np.median(nearest)


def choose_pairs(records: list[dict[str, Any]], clear: np.ndarray) -> tuple[list[Pair], list[Pair]]:
    """Pairs (index of the original, colour) that get a copy, and those held out."""
    captions = [set(" ".join([*record["names"], *record["keywords"]]).split()) for record in records]
    pairs = []
    for index, record in enumerate(records):
        if record["object"] is None:
            continue
        said = set(record["object"].split())
        # "green apple" is a picture of its own: no copy of the red one may take its name.
        pairs += [
            (index, colour)
            for colour in HUES
            if colour != record["colour"]
            and (colour, record["colour"]) != ("orange", "brown")
            and not any({colour, *said} <= caption for caption in captions)
        ]
    chosen = random.Random(SEED)
    objects = sorted({index for index, _ in pairs})
    held_out = []
    for index in chosen.sample(objects, len(objects)):
        colours = [colour for other, colour in pairs if other == index]
        said = set(records[index]["object"].split())
        # Another object whose name holds this one's words ("tropical fish" and "fish") would show the pair.
        shared = any(
            other != index and record["object"] and said <= set(record["object"].split())
            for other, record in enumerate(records)
        )
        if clear[index] and len(said) == 1 and len(colours) >= 5 and not shared:
            held_out.append((index, chosen.choice(colours)))
        if len(held_out) == HELD_OUT_PAIRS:
            break
    held = set(held_out)
    return [pair for pair in pairs if pair not in held], held_out


def prepare(work: WorkFolder) -> None:
    records, pictures = read_originals(fetch(*IMAGES, work.root), fetch(*KEYWORDS, work.root))
    mark_colours(records, pictures)
    copies, held_out = choose_pairs(records, are_clear_shapes(pictures))
    turned = np.stack(
        [np.round(turn_to(pictures[index].astype(np.float32) / 255, colour) * 255) for index, colour in copies]
    ).astype(np.uint8)
    np.savez_compressed(work.images, originals=pictures, copies=turned)
    described = {
        "packages": [IMAGES[0], KEYWORDS[0]],
        "originals": records,
        "copies": [{"original": index, "colour": colour} for index, colour in copies],
        "held_out": [
            {"original": index, "colour": colour, "caption": f"{colour} {records[index]['object']}"}
            for index, colour in held_out
        ],
    }
    write_json(work.captions, described)
    objects = sum(record["object"] is not None for record in records)
    print(
        f"{len(records)} originals, {objects} of them objects of one hue; "
        f"{len(copies)} copies, {len(held_out)} pairs held out"
    )


if __name__ == "__main__":
    prepare(open_work(argument_parser(__doc__).parse_args().work))
