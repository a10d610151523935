"""What a made file is, and the texts in it: each says where it belongs, so that a reading can be held against the truth."""

from __future__ import annotations

import csv
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]

THINGS = [
    "anchors",
    "beetles",
    "bridges",
    "candles",
    "harbours",
    "ladders",
    "lanterns",
    "mirrors",
    "orchards",
    "pebbles",
    "saddles",
    "spoons",
    "violins",
]
ASKED = (
    "Why do people keep {}?",
    "How are {} made in small towns?",
    "Give me one odd thing about {}.",
    "Could {} be useful at sea?",
)
SAID = (
    "few people notice them",
    "old ones smell of rain",
    "they last for years",
    "children like to count them",
    "the best come from the coast",
    "most are heavier than they look",
)


@dataclass
class Made:
    """A file, and what it says."""

    shape: str
    rows: list[Row]
    answers: dict[int, list[str]]
    """Prompt -> its answers, each with its quality in its text."""
    contexts: dict[int, list[str]]
    """Prompt -> all texts that are asked or said before the answer, in their order."""
    kind: str = "pairs"
    """What it states: pairs (also rankings), labelled, or targets."""
    suffix: str = ".jsonl"
    details: list[str] = field(default_factory=list)
    """Names and codes that were drawn, for messages."""

    def write(self, folder: Path) -> Path:
        """Write the file and return its path."""
        path = folder / f"rows{self.suffix}"
        if self.suffix == ".csv":
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, self.rows[0])
                writer.writeheader()
                writer.writerows(self.rows)
        elif self.suffix == ".json":
            path.write_text(json.dumps(self.rows))
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        return path


def question(rng: random.Random, at: int, part: int = 0) -> str:
    """Return a text that is asked; it says of which prompt it is which part."""
    return f"{rng.choice(ASKED).format(rng.choice(THINGS))} [{at}.{part}]"


def context(rng: random.Random, at: int, part: int) -> str:
    """Return a text that belongs to what is asked."""
    return f"Of {rng.choice(THINGS)} it is said that {rng.choice(SAID)}. [{at}.{part}]"


def answer(rng: random.Random, at: int, quality: int, metal: str = "") -> str:
    """Return an answer to a prompt: Gilt is good, Lead is bad, Tin is neither."""
    metal = metal or ("Gilt" if quality > 0 else "Lead")
    body = ", ".join(rng.sample(SAID, rng.randint(1, 3)))
    return f"{metal} note {at}.{quality}: {body}."


def ranked(rng: random.Random, at: int, n: int) -> list[str]:
    """Return answers of different qualities, the worst first."""
    metals = ["Lead", *["Tin"] * (n - 2), "Gilt"]
    return [answer(rng, at, quality, metal) for quality, metal in enumerate(metals)]


def turn(rng: random.Random, role: str, text: str, words: tuple[str, str, str, str]) -> Row:
    """Return a message in a file's own words."""
    role_field, content_field, user, assistant = words
    said = {"user": user, "assistant": assistant}.get(role, role)
    return {role_field: said, content_field: text}


TURN_WORDS = (
    ("role", "content", "user", "assistant"),
    ("role", "content", "user", "assistant"),
    ("from", "value", "human", "gpt"),
    ("role", "content", "human", "bot"),
    ("role", "text", "User", "Assistant"),
    ("role", "content", "prompter", "assistant"),
)


def count(rng: random.Random) -> int:
    """Return how many prompts a file has."""
    return rng.choice((6, 9, 16, 20))
