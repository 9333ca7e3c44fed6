"""Captions: what the pictures are called while the denoiser trains, and the tokenizer of their words."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from .colours import COLOUR_WORDS, HUES

TOKENS = 12
SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<start>", "eos_token": "<end>"}
# Words that a prompt may have beside those of names and keywords.
EXTRA_WORDS = ("a", "an", "the", "of", "and", "with", "in", "on", ",", ".", "-", "'", "!", "?", ":")


@dataclass
class Captions:
    """Draws captions for originals and copies; never one that names a pair held out."""

    described: dict[str, Any]
    random: random.Random

    def __post_init__(self) -> None:
        self._originals = self.described["originals"]
        self._copies = self.described["copies"]
        self._held: dict[str, set[str]] = {colour: set() for colour in HUES}
        for pair in self.described["held_out"]:
            self._held[pair["colour"]].add(self._originals[pair["original"]]["object"])

    def of_original(self, index: int) -> str:
        """A name, or one to four keywords, or both; sometimes with the object's own colour before its name."""
        record = self._originals[index]
        name, kind = self.random.choice(record["names"]), self.random.random()
        if record["object"] and kind < 0.08 and record["object"] not in self._held.get(record["colour"], ()):
            return self._phrase(record["colour"], record["object"])
        if kind < 0.35 or not record["keywords"]:
            return f"a {name}" if self.random.random() < 0.1 else name
        if kind < 0.92:
            return self._join(self._some(record["keywords"], *self.random.choice([(1, 4), (2, 4), (3, 3), (3, 3)])))
        return self._join([name, *self._some(record["keywords"], 1, 2)])

    def of_copy(self, index: int) -> str:
        """The colour and the object's name, sometimes with keywords or with keywords alone."""
        copy = self._copies[index]
        record, colour = self._originals[copy["original"]], copy["colour"]
        keywords = [
            keyword for keyword in record["keywords"] if not set(keyword.split()) & (self._held[colour] | COLOUR_WORDS)
        ]
        kind = self.random.random()
        if kind < 0.75 or not keywords:
            return self._phrase(colour, record["object"])
        if kind < 0.9:
            return self._join([f"{colour} {record['object']}", *self._some(keywords, 1, 2)])
        return self._join([colour, *self._some(keywords, 2, 3)])

    def _phrase(self, colour: str, name: str) -> str:
        kind = self.random.random()
        if kind < 0.7:
            return f"{colour} {name}"
        if kind < 0.9:
            return f"a {colour} {name}"
        return f"{name}, {colour}"

    def _some(self, keywords: list[str], least: int, most: int) -> list[str]:
        return self.random.sample(keywords, min(len(keywords), self.random.randint(least, most)))

    def _join(self, parts: list[str]) -> str:
        return (", " if self.random.random() < 0.15 else " ").join(parts)


def build_tokenizer(described: dict[str, Any]) -> PreTrainedTokenizerFast:
    """One token a word: lower case, punctuation apart, a start and an end token, 12 tokens at most."""
    said = {*EXTRA_WORDS, *COLOUR_WORDS}
    for record in described["originals"]:
        said.update(" ".join([*record["names"], *record["keywords"]]).split())
    vocabulary = {word: number for number, word in enumerate([*SPECIAL.values(), *sorted(said)])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    start, end = SPECIAL["bos_token"], SPECIAL["eos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} $B {end}",
        special_tokens=[(start, vocabulary[start]), (end, vocabulary[end])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=TOKENS,
        padding_side="right",
        model_input_names=["input_ids", "attention_mask"],
        **SPECIAL,
    )
