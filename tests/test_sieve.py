"""What a regex of the catalogue matches in text, its words and its widened form find in bytes."""

from __future__ import annotations

import json
import random
import re
import sys
from types import ModuleType

import pytest

import regex_lab
from cuda_matrix.reading import compiled
from cuda_matrix.reference import load_reference
from cuda_matrix.sieve import RegexSieve, WordSieve, widened, word_sets
from cuda_matrix.signs import Signs
from regex_lab import matching

SIGNS = Signs(load_reference().catalogue)


def as_go_writes(text: str) -> bytes:
    """A line of docker's json-file driver: quotes, <, > and & are escaped."""
    said = json.dumps({"log": text}, ensure_ascii=False)
    return said.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").encode()


def test_nothing_that_a_signature_matches_escapes_the_search() -> None:
    rng = random.Random(7)
    wide = RegexSieve(SIGNS.patterns)
    every_word = sorted({word for sets in SIGNS.words for words in sets for word in words})
    words = WordSieve(every_word)
    untried = []
    for index, pattern in enumerate(SIGNS.patterns):
        lines = [line for _ in range(6) if (line := matching(pattern, rng)) is not None]
        untried += [pattern] if not lines else []
        for line in lines:
            coloured = f"\x1b[31m{line}\x1b[0m".encode()
            for raw in (line.encode(), coloured):
                assert index in wide.first_ends(raw), (pattern, widened(pattern), raw)
            for raw in (line.encode(), coloured, as_go_writes(line)):
                found = {every_word[each] for each in words.first_ends(raw)}
                assert SIGNS.words[index]
                assert all(found & set(words) for words in SIGNS.words[index]), (pattern, SIGNS.words[index], raw)
    assert untried == []


# What a `\\W` or a gap may meet besides what one types: control characters (no line ends) and other scripts.
STRANGE = [chr(code) for code in (*range(1, 10), *range(14, 32), 127)] + list("é’«»\u00a0あ\U0001f600")


def test_neither_control_characters_nor_other_scripts_hide_a_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regex_lab, "PRINTABLE", STRANGE + regex_lab.PRINTABLE)
    rng = random.Random(13)
    wide = RegexSieve(SIGNS.patterns)
    tried = 0
    for index, pattern in enumerate(SIGNS.patterns):
        for _ in range(2):
            line = regex_lab.made(pattern, rng)
            if compiled(pattern).search(line):
                tried += 1
                raw = line.encode()
                assert index in wide.first_ends(raw), (pattern, widened(pattern), raw)
                assert all(any(word in raw.lower() for word in words) for words in SIGNS.words[index]), (pattern, raw)
    assert tried > 1.5 * len(SIGNS.patterns)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("couldn.t communicate", "couldn’t communicate"),
        (r"error: \W?(\w{1,4})\W?$", "error: «größ»"),
        (r"a.{0,3}b", "aあああb"),
        (r"file\s{1,2}size", "file\u00a0size"),
        (r"[^x]{2}z", "ééz"),
    ],
)
def test_characters_beyond_ascii_count_as_one(pattern: str, text: str) -> None:
    assert re.search(pattern, text, re.IGNORECASE)
    assert RegexSieve([pattern]).first_ends(text.encode()) == {0: len(text.encode())} or RegexSieve(
        [pattern]
    ).first_ends(text.encode())


def test_a_match_never_crosses_a_line() -> None:
    assert RegexSieve([r"out of.{0,20}memory", r"a\W{1,3}b"]).first_ends(b"out of\nmemory a\r\nb") == {}


def test_each_word_is_reported_where_it_ends_first_in_whatever_case() -> None:
    assert WordSieve([b"memory", b"absent", b"out"]).first_ends(b"OUT of Memory, out of memory") == {0: 13, 2: 3}


def test_a_regex_with_two_parts_has_two_sets_of_words() -> None:
    assert word_sets(r"\b(error|code)\W{1,3}804\b|cudaErrorCompat") == [
        frozenset({"error", "code", "cudaerrorcompat"}),
        frozenset({"804", "cudaerrorcompat"}),
    ]
    assert word_sets(r"(a|bc)?\d{3}") == []


def test_every_word_is_found_wherever_it_stands() -> None:
    rng = random.Random(11)
    every = sorted({word for sets in SIGNS.words for words in sets for word in words} | {b"cc", b"ab"})
    found = WordSieve(every)
    for _ in range(400):
        chosen = rng.sample(every, 3)
        filler = [bytes(rng.choices(b"abc019 .:/-\n", k=rng.choice((0, 1, 7, 63, 64, 200)))) for _ in range(4)]
        block = b"".join(part for pair in zip(filler, [*chosen, b""], strict=True) for part in pair).upper()
        lowered = block.lower()
        assert found.first_ends(block) == {
            index: lowered.find(word) + len(word) for index, word in enumerate(every) if word in lowered
        }


class OldProcessor(ModuleType):
    """What Hyperscan does on a processor without SSSE3: it loads, and compiles nothing."""

    HS_FLAG_CASELESS = HS_FLAG_SINGLEMATCH = 0

    class ArchitectureError(Exception):
        pass

    class Database:
        def compile(self, **_arguments: object) -> None:
            raise OldProcessor.ArchitectureError


@pytest.mark.parametrize("module", [None, OldProcessor("hyperscan")], ids=["not installed", "old processor"])
def test_without_hyperscan_words_are_found_all_the_same(
    module: ModuleType | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hyperscan", module)
    assert not WordSieve([b"memory"]).is_quick
    assert WordSieve([b"memory", b"absent", b"out"]).first_ends(b"OUT of Memory, out of memory") == {0: 13, 2: 3}
    assert RegexSieve(["memory"]).first_ends(b"memory") == {}


def test_nothing_to_search_for_is_found_nowhere() -> None:
    assert RegexSieve([]).first_ends(b"anything") == {}
    assert WordSieve([]).first_ends(b"anything") == {}
