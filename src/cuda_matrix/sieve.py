"""Owns the search for many words or regexes at once in bytes, in linear time.

Hyperscan does it (github.com/VectorCamp/vectorscan, its fork for every processor). A regex is widened to one without
counted gaps, which knows how bytes differ from text: what is found must be asked again with the regex itself.
Where there is no Hyperscan, Python's own search finds the same words, more than 100 times slower, and no regexes.
Must not know what the words mean or what a log is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

# The engine's own reader of regexes; it moved with Python 3.11.
_syntax: Any = import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")

_CATEGORIES = {"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w", "NOT_DIGIT": r"\D", "NOT_SPACE": r"\S", "NOT_WORD": r"\W"}
_HIGH = r"\x80-\xff"  # any part of a character beyond ASCII
_BYTES = 4  # that one character may have in UTF-8
_FEW = 8  # repetitions that are counted; more of them cost more than what they keep out
_PADDING = b"\n" * 64  # Vectorscan 5.4.12 misses a word of two bytes at the very end of what it is given
_LINE_ENDS = (10, 13)
_SAID_IN_JSON = {"<": r"\\u003c", ">": r"\\u003e", "&": r"\\u0026"}  # as Go's encoder writes them


class WordSieve:
    """Which of many lower-case words a block of bytes holds, in whatever case: about 0.6 GB/s."""

    def __init__(self, words: Sequence[bytes]) -> None:
        self._words = words
        self._database = _database([re.escape(word) for word in words])
        self.is_quick = self._database is not None or not words

    def first_ends(self, block: bytes) -> dict[int, int]:
        """Index of a word → offset behind its first place in the block; a word that is nowhere is absent."""
        if self._database is not None:
            return _scan(self._database, block)
        lowered = block.lower()
        places = {index: lowered.find(word) for index, word in enumerate(self._words)}
        return {index: place + len(self._words[index]) for index, place in places.items() if place >= 0}


class RegexSieve:
    """Where some regexes may match in a block of bytes. Some: hundreds of them together are slow (20 to 100 MB/s).

    Without Hyperscan nothing is found: a regex of Python's may take seconds for one hostile block.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._database = _database([widened(pattern).encode("ascii") for pattern in patterns])

    def first_ends(self, block: bytes) -> dict[int, int]:
        """Index of a regex → offset behind its first match; one that matches nowhere is absent."""
        return _scan(self._database, block) if self._database is not None else {}


def _database(expressions: Sequence[bytes]) -> Any | None:
    """One automaton of all; None where there is nothing to search for, or no Hyperscan for this machine."""
    hyperscan = _engine()
    if hyperscan is None or not expressions:
        return None
    database = hyperscan.Database()
    try:
        database.compile(
            expressions=list(expressions),
            ids=list(range(len(expressions))),
            elements=len(expressions),
            flags=[hyperscan.HS_FLAG_CASELESS | hyperscan.HS_FLAG_SINGLEMATCH] * len(expressions),
        )
    except hyperscan.ArchitectureError:  # a processor without the instructions that it needs (SSSE3)
        return None
    return database


def _engine() -> Any | None:
    """Hyperscan; None where there is none, or its library does not load (another libc)."""
    try:
        return import_module("hyperscan")  # only a log that is large needs it
    except ImportError:
        return None


def _scan(database: Any, block: bytes) -> dict[int, int]:
    ends: dict[int, int] = {}

    def found(index: int, _start: int, end: int, _flags: int, _context: object) -> None:
        ends.setdefault(index, end)

    database.scan(block + _PADDING, match_event_handler=found)
    return ends


def word_sets(pattern: str) -> list[frozenset[str]]:
    """Sets of lower-case words, of each of which every match of the regex holds one; the longest words first."""
    found = _word_sets(_syntax.parse(pattern, re.IGNORECASE))
    return sorted(dict.fromkeys(found), key=lambda words: -_shortest(words))


def _word_sets(nodes: Iterable[tuple[Any, Any]]) -> list[frozenset[str]]:
    found: list[frozenset[str]] = []
    run = ""
    for op, value in nodes:
        name = str(op)
        if name == "LITERAL" and value < 128:
            run += chr(value).lower()
        elif name not in {"AT", "ASSERT", "ASSERT_NOT"}:  # those stand between two characters: the word goes on
            found.append(frozenset({run}))
            run = ""
            if name == "SUBPATTERN":
                found += _word_sets(value[-1])
            elif name.endswith("_REPEAT") and value[0] > 0:
                found += _word_sets(value[2])
            elif name == "BRANCH":
                found += _of_branches([_word_sets(branch) for branch in value[1]])
    return [words for words in (*found, frozenset({run})) if _shortest(words) > 1]


def _of_branches(branches: list[list[frozenset[str]]]) -> list[frozenset[str]]:
    """Of every branch the longest words, and of every branch the others, where it has any."""
    if not all(branches):
        return []
    ordered = [sorted(sets, key=lambda words: -_shortest(words)) for sets in branches]
    return [frozenset().union(*(sets[0] for sets in ordered)), frozenset().union(*(sets[-1] for sets in ordered))]


def _shortest(words: frozenset[str]) -> int:
    return min((len(word) for word in words), default=0)


def widened(pattern: str) -> str:
    """A regex for bytes that matches wherever `pattern` matches the text of the same line, and in more places.

    Counts of repetitions, word boundaries, line starts and look-arounds are dropped. ASCII, in Hyperscan's dialect.
    """
    return _sequence(_syntax.parse(pattern, re.IGNORECASE))


def _sequence(nodes: Iterable[tuple[Any, Any]]) -> str:
    return "".join(_node(op, value) for op, value in nodes)


def _node(op: Any, value: Any) -> str:
    name = str(op)
    if name.endswith("_REPEAT"):
        return _repeat(*value)
    if name in {"ANY", "NOT_LITERAL", "IN"}:
        return f"{_class(name, value)}{{1,{_BYTES}}}"
    if name in {"SUBPATTERN", "ATOMIC_GROUP"}:
        return f"(?:{_sequence(value[-1] if name == 'SUBPATTERN' else value)})"
    if name == "BRANCH":
        return f"(?:{'|'.join(_sequence(branch) for branch in value[1])})"
    known = {"AT": "", "ASSERT": "", "ASSERT_NOT": "", "GROUPREF": r"[^\r\n]*"}
    return _literal(value) if name == "LITERAL" else known[name]


def _literal(code: int) -> str:
    character = chr(code)
    if code > 127:
        return f"[{_HIGH}]+"
    if character == '"':
        return r'\\?"'  # as it stands inside a JSON string
    if character == "\\":
        return r"\\{1,2}"
    escaped = re.escape(character)
    return f"(?:{escaped}|{_SAID_IN_JSON[character]})" if character in _SAID_IN_JSON else escaped


def _class(name: str, value: Any) -> str:
    """The bytes that one character may begin or go on with; never a line's end."""
    if name == "ANY":
        return r"[^\r\n]"
    members = [(_syntax.LITERAL, value)] if name == "NOT_LITERAL" else list(value)
    negated = name == "NOT_LITERAL" or str(members[0][0]) == "NEGATE"
    allowed = [code for code in range(128) if code not in _LINE_ENDS and _is_member(code, members) != negated]
    return "[" + "".join(rf"\x{code:02x}" for code in allowed) + _HIGH + "]"


def _is_member(code: int, members: list[tuple[Any, Any]]) -> bool:
    for op, value in members:
        name = str(op)
        if name == "LITERAL" and chr(code).lower() == chr(value).lower():
            return True
        if name == "RANGE" and any(
            value[0] <= ord(each) <= value[1] for each in (chr(code).lower(), chr(code).upper())
        ):
            return True
        if name == "CATEGORY" and re.match(_CATEGORIES[str(value).removeprefix("CATEGORY_")], chr(code)):
            return True
    return False


def _repeat(least: int, most: Any, nodes: Any) -> str:
    inner = list(nodes)
    name = str(inner[0][0]) if len(inner) == 1 else ""
    if name in {"ANY", "NOT_LITERAL", "IN"}:
        body = _class(name, inner[0][1])
        few = name != "ANY" and int(most) <= _FEW  # else `most` is as good as endless
        return f"{body}{{{least},{_BYTES * int(most)}}}" if few else f"{body}{'+' if least else '*'}"
    if least == 0 and most == 1:
        return f"(?:{_sequence(inner)})?"
    return f"(?:{_sequence(inner)}){'+' if least else '*'}"
