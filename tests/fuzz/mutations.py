"""Damage valid inputs: bytes of any format, texts, and the values of JSON and TOML. All depends on a seed."""

import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

EXTREMES = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    2**60,
    2**63 - 1,
    2**64 - 1,
)
"""Values that replace length fields, offsets and counts."""
HOSTILE = (
    "",
    " ",
    "\0",
    "\n",
    "a\nb",
    "\r\n",
    "\x1b[2J",
    "\x1b]52;c;ZQ==\x07",
    "\x9b31m",
    "\u2028",
    "\u202egnp.tac",
    "\udcff",
    "[red]",
    "[link=http://x]",
    "[/]",
    "{0}",
    "%s%n",
    "../../etc/passwd",
    "/dev/zero",
    "pipe:touch x",
    "http://127.0.0.1:9/",
    "CON",
    "-",
    "--help",
    "@file",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "9" * 5000,
    "0x" + "f" * 400,
    "1_0",
    "\u0661",
    "\ufeff",
    "x" * 300,
    "x" * 70_000,
    "[" * 3000,
    "{" * 3000,
    '"',
    "'",
    "\\",
    "a\u0301" * 50,
    "\U0001f468\u200d\U0001f469",
    "true",
    "null",
)
"""Words that have broken programs."""
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    0.5,
    -0.0,
    1e308,
    10**18,
    2**63,
    10**30,
    [],
    {},
    [[]],
    [None],
    {"": None},
    "x",
    [0] * 1000,
)
"""Replacements of a JSON value, in addition to words."""


def mutated(content: bytes, rng: random.Random, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Return `content` with one to six places damaged, with parts of `others` and with `words` of the format."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        rng.choice(_DAMAGES)(data, rng, others, words)
    return bytes(data[: 1 << 22])


def _flip(data: bytearray, rng: random.Random, others: Sequence[bytes], words: Sequence[bytes]) -> None:
    for _ in range(min(len(data), rng.choice((1, 1, 2, 8)))):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _extreme(data: bytearray, rng: random.Random, others: Sequence[bytes], words: Sequence[bytes]) -> None:
    width, order = rng.choice((1, 2, 4, 8)), rng.choice("<>")
    value = rng.choice(EXTREMES) % (1 << 8 * width)
    place = _place(data, rng)
    data[place : place + width] = struct.pack(
        f"{order}{ {1: 'B', 2: 'H', 4: 'I', 8: 'Q'}[width] }".replace(" ", ""), value
    )


def _cut(data: bytearray, rng: random.Random, others: Sequence[bytes], words: Sequence[bytes]) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _drop(data: bytearray, rng: random.Random, others: Sequence[bytes], words: Sequence[bytes]) -> None:
    place = _place(data, rng)
    del data[place : place + rng.choice((1, 2, 4, 16, 256))]


def _repeat(data: bytearray, rng: random.Random, others: Sequence[bytes], words: Sequence[bytes]) -> None:
    place = _place(data, rng)
    data[place:place] = data[place : place + rng.choice((1, 4, 64, 1024))] * rng.choice((1, 2, 50))


def _splice(data: bytearray, rng: random.Random, others: Sequence[bytes], words: Sequence[bytes]) -> None:
    other = rng.choice(others)
    start = rng.randrange(len(other) + 1)
    place = _place(data, rng)
    data[place : place + rng.choice((0, 16, 1 << 20))] = other[start : start + rng.choice((4, 64, 1 << 20))]


def _word(data: bytearray, rng: random.Random, others: Sequence[bytes], words: Sequence[bytes]) -> None:
    word = rng.choice(words) if words and rng.random() < 0.7 else rng.choice(HOSTILE).encode("utf-8", "surrogateescape")
    place = _place(data, rng)
    data[place : place + rng.choice((0, len(word)))] = word


def _noise(data: bytearray, rng: random.Random, others: Sequence[bytes], words: Sequence[bytes]) -> None:
    place = _place(data, rng)
    data[place : place + 16] = rng.randbytes(rng.choice((1, 16, 200)))


def _place(data: bytearray, rng: random.Random) -> int:
    """Return a random position; headers are near the beginning, and indices near the end."""
    if not data:
        return 0
    near = min(len(data), rng.choice((16, 64, 512, len(data))))
    return rng.randrange(near) if rng.random() < 0.75 else len(data) - 1 - rng.randrange(near)


_DAMAGES: tuple[Callable[[bytearray, random.Random, Sequence[bytes], Sequence[bytes]], None], ...] = (
    _flip,
    _flip,
    _extreme,
    _extreme,
    _cut,
    _drop,
    _repeat,
    _splice,
    _word,
    _noise,
)


def mutated_json(content: bytes, rng: random.Random, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Return JSON of another shape, one value in it replaced, removed or nested; sometimes damaged as bytes instead."""
    if rng.random() < 0.25:
        return mutated(content, rng, others, words)
    root = [json.loads(content)]
    for _ in range(rng.choice((1, 1, 2))):
        _corrupt(root, rng)
    text = json.dumps(root[0])
    if rng.random() < 0.1:
        text = text.replace(rng.choice(("1", "0", "2")), rng.choice(("NaN", "-Infinity", "1e999", "9" * 5000)), 1)
    if rng.random() < 0.1:
        text = text.replace("{", '{"a": 1, "a": 2, ', 1)
    return text.encode()


def _corrupt(root: list[Any], rng: random.Random) -> None:
    place: Any = root
    key: Any = 0
    while isinstance(place[key], dict | list) and place[key] and rng.random() < 0.85:
        place = place[key]
        key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
    kind = rng.random()
    if kind < 0.15 and place is not root:
        del place[key]
    elif kind < 0.25:
        for _ in range(rng.choice((3, 70, 300))):
            place[key] = [place[key]] if rng.random() < 0.5 else {"a": place[key]}
    elif kind < 0.35 and isinstance(place, dict):
        place[rng.choice(HOSTILE)] = rng.choice(VALUES)
    else:
        place[key] = rng.choice(VALUES) if rng.random() < 0.6 else rng.choice(HOSTILE)


def mutated_text(text: str, rng: random.Random, words: Sequence[str]) -> str:
    """Return a line with words replaced, characters inserted, or parts repeated."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        place = rng.randrange(len(text) + 1)
        end = place + rng.choice((0, 0, 1, 4, 100))
        kind = rng.random()
        if kind < 0.4:
            new = rng.choice(HOSTILE)
        elif kind < 0.7 and words:
            new = rng.choice(words)
        elif kind < 0.85:
            new = text[place:end] * rng.choice((2, 20))
        else:
            new = chr(rng.choice((rng.randrange(128), rng.randrange(0x3000), rng.randrange(0x110000))))
        text = text[:place] + new + text[end:]
    return text
