"""The work folder that every step reads and writes, and the files in it."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_WORK = Path(__file__).parent / ".work"


@dataclass(frozen=True)
class WorkFolder:
    """Names of the files that the steps hand to each other. Nothing in the folder is committed."""

    root: Path

    @property
    def images(self) -> Path:
        """`originals` [N, 64, 64, 3] and `copies` [M, 64, 64, 3], uint8, on white."""
        return self.root / "images.npz"

    @property
    def captions(self) -> Path:
        """What the images show: see `training.data`."""
        return self.root / "captions.json"

    @property
    def autoencoder(self) -> Path:
        return self.root / "autoencoder.pt"

    @property
    def decoder(self) -> Path:
        return self.root / "decoder.pt"

    @property
    def latents(self) -> Path:
        """Normalised latents of originals and copies, with the shift and scale that made them so."""
        return self.root / "latents.pt"

    @property
    def denoiser(self) -> Path:
        return self.root / "denoiser.pt"

    def log(self, step: str) -> Path:
        return self.root / f"{step}.log"

    def sheet(self, name: str) -> Path:
        return self.root / f"{name}.png"


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that knows `--work`, which every step takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="folder for downloads, checkpoints and logs")
    return parser


def open_work(path: Path) -> WorkFolder:
    path.mkdir(parents=True, exist_ok=True)
    return WorkFolder(path)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
