"""A tiny text in text8's format: words drawn from a small vocabulary by a seeded generator."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np


def make_text(characters: int = 20_000, seed: int = 0) -> str:
    rng = np.random.default_rng(seed)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    words = ["".join(rng.choice(letters, size=rng.integers(2, 8))) for _ in range(40)]
    return " ".join(rng.choice(words, size=characters))[:characters]


def write_text(path: Path, **options: int) -> Path:
    text = make_text(**options).encode()
    path.write_bytes(lzma.compress(text) if path.suffix == ".xz" else text)
    return path
