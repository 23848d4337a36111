"""Texts made from a regex's own tree: what it matches, and what nearly matches and costs the most."""

from __future__ import annotations

import random
import re
import sys
from importlib import import_module
from typing import Any

_syntax: Any = import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")
PRINTABLE = [chr(code) for code in range(32, 127)]


def matching(pattern: str, rng: random.Random) -> str | None:
    """A printable line that the regex finds something in; None where chance found none."""
    regex = re.compile(pattern, re.IGNORECASE)
    for _ in range(30):
        text = _made(_syntax.parse(pattern, re.IGNORECASE), rng)
        if regex.search(text):
            return text
    return None


def made(pattern: str, rng: random.Random) -> str:
    """A text after the regex's tree; its boundaries and look-arounds may not hold."""
    return _made(_syntax.parse(pattern, re.IGNORECASE), rng)


def literals(pattern: str) -> list[str]:
    """Every run of literal characters of the regex, in every branch."""
    found: list[str] = []
    _collect(_syntax.parse(pattern, re.IGNORECASE), found)
    return [text for text in dict.fromkeys(found) if text]


def hostile(pattern: str, length: int) -> list[str]:
    """Lines of one length that keep a backtracking engine busy: its literals over and over."""
    words = literals(pattern)
    beads = [*words[:6], "".join(words), " ".join(words), "".join(words[:-1]), " ".join(reversed(words))]
    beads += [word[:-1] for word in words[:6]] + [
        f"{words[0]} " if words else "",
        " ",
        "a",
        "0",
        ".",
        "/",
        "a ",
        "1.",
        "a/",
    ]
    lines = [(bead * length)[:length] for bead in dict.fromkeys(beads) if bead]
    lines += [(words[0] + filler * length)[:length] for filler in " a0./:-_" if words]
    return lines


def _collect(nodes: Any, found: list[str]) -> None:
    run = ""
    for op, value in nodes:
        name = str(op)
        if name == "LITERAL":
            run += chr(value)
            continue
        found.append(run)
        run = ""
        if name == "SUBPATTERN":
            _collect(value[-1], found)
        elif name.endswith("_REPEAT"):
            _collect(value[2], found)
        elif name == "BRANCH":
            for branch in value[1]:
                _collect(branch, found)
        elif name.startswith("ASSERT"):
            _collect(value[1], found)
    found.append(run)


def _made(nodes: Any, rng: random.Random) -> str:
    return "".join(_part(str(op), value, rng) for op, value in nodes)


def _part(name: str, value: Any, rng: random.Random) -> str:
    if name == "LITERAL":
        return rng.choice((chr(value).upper(), chr(value).lower()))
    if name == "SUBPATTERN":
        return _made(value[-1], rng)
    if name == "BRANCH":
        return _made(rng.choice(value[1]), rng)
    if name.endswith("_REPEAT"):
        least, most = value[0], min(value[1], value[0] + 12)
        return "".join(_made(value[2], rng) for _ in range(rng.choice((least, most, rng.randint(least, most)))))
    if name in {"ANY", "NOT_LITERAL", "IN"}:
        return rng.choice([each for each in PRINTABLE if _is_one(name, value, each)] or [" "])
    return ""


def _is_one(name: str, value: Any, character: str) -> bool:
    if name == "IN":
        members = list(value)
        negated = str(members[0][0]) == "NEGATE"
        return any(_is_member(str(op), each, character) for op, each in members) != negated
    return name == "ANY" or chr(value) != character


def _is_member(name: str, value: Any, character: str) -> bool:
    if name == "LITERAL":
        return chr(value) == character
    if name == "RANGE":
        return bool(value[0] <= ord(character) <= value[1])
    kinds = {"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w", "NOT_DIGIT": r"\D", "NOT_SPACE": r"\S", "NOT_WORD": r"\W"}
    return name == "CATEGORY" and re.match(kinds[str(value).removeprefix("CATEGORY_")], character) is not None


def has_endless_gap(pattern: str) -> bool:
    """Whether anything in the regex may be repeated without a limit."""
    return _is_endless(_syntax.parse(pattern, re.IGNORECASE))


def _is_endless(nodes: Any) -> bool:
    for op, value in nodes:
        name = str(op)
        if name.endswith("_REPEAT") and (value[1] == _syntax.MAXREPEAT or _is_endless(value[2])):
            return True
        inner = [value[-1]] if name == "SUBPATTERN" else value[1] if name == "BRANCH" else []
        if any(_is_endless(each) for each in inner):
            return True
    return False
