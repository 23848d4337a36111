"""Owns the search for the catalogue's signs in a log that comes in blocks, with bounded work for each sign.

A sign is looked for by its words. Where these stand on many lines that do not bear the sign (`status`, `999`), other
words of it are tried and then its regex, and where too many signs are of that kind (a hostile log), the last of them
are given up.
Must not know what a line is (the caller judges one) nor what follows from a sign.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

from cuda_matrix.catalogue import Catalogue
from cuda_matrix.sieve import RegexSieve, WordSieve, word_sets

SIGHTINGS = 6  # of each sign that are looked for

_HOT = 5  # lines with a sign's words and without the sign, from which on its regex is searched
_AGAIN = 50  # times that a line was judged for a sign before (one line without an end), until the sign is known
_PATIENCE = 200  # such lines, until a sign is given up where no search for regexes is at hand
_SHORTEST = 3  # characters of a word of a second set
_HOT_LIMIT = 20  # regexes searched at once: each costs time on every block
_ALARMS_LIMIT = 40  # lines that the widened regex lets through and the regex itself does not, until it is given up
_SECOND_LOOKS_BYTES = 16 << 20  # searched again for regexes, behind a line that has been dealt with
# A log whose lines hold the words of this many signs more than can be searched was made to hold things up: of its later
# blocks, one in so many is looked at, and each sign gets one chance.
_CROWDED, _CROWDED_BLOCKS, _CROWDED_SHARE = 24, 64, 4
_RENEWAL_BYTES = 8 << 20  # of the log, after which the search forgets the words that need no looking for; 20 ms
_SAID_IN_JSON = ((b'"', b'\\"'), (b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026"))  # as Go's encoder writes

# What speaks of a failure without naming a cause: worth showing where no sign of the catalogue is found.
_ALARMING = (
    r"traceback \(most recent call last\)",
    r"error: ",
    r"exception: ",
    r"(fatal|panic|critical)\W",
    r"\bfailed\b",
)


class Judged(NamedTuple):
    """What a line is worth to a sign. `bears` is None where it was known before; `end` is where the line ends."""

    bears: bool | None
    end: int


Judge = Callable[[int, int], Judged]  # (index of the sign, an offset inside the line or at its end)


class Signs:
    """What to look for: case-insensitive regexes for one line, each with words of which every match holds one."""

    def __init__(self, catalogue: Catalogue) -> None:
        rows = [each for cause in catalogue.causes.values() for each in cause.signatures]
        named = [pattern for row in rows for pattern in (row.pattern, row.also) if pattern is not None]
        self.patterns = tuple(dict.fromkeys([*named, *_ALARMING]))

    @cached_property
    def words(self) -> tuple[tuple[tuple[bytes, ...], ...], ...]:
        """For each regex sets of words, of each of which every match holds one, as they stand in a log; the best first.

        A second set is there where none of its words is so short that looking for it would slow everything down.
        """
        return tuple(tuple(_raw_forms(words) for words in _useful(word_sets(pattern))) for pattern in self.patterns)


class Search:
    """One pass over a log: give it block after block. `hot_limit`: for how many signs the regex is searched."""

    def __init__(self, signs: Signs, hot_limit: int = _HOT_LIMIT) -> None:
        self._hot_limit = hot_limit
        self._signs = signs
        self._seen: Counter[int] = Counter()
        self._alarms: Counter[int] = Counter()
        self._again: Counter[int] = Counter()
        self._set: Counter[int] = Counter()  # which of a sign's sets of words is in use
        self._hot: list[int] = []
        self._closed: set[int] = set()
        self._second_looks = self._given_up = self._blocks = 0
        self._hot_sieve = RegexSieve(())
        self._search_words(range(len(signs.patterns)))

    def look(self, block: bytes, judge: Judge) -> None:
        """Find the signs of one block; `judge` is called for each line that may bear one."""
        self._blocks += 1
        if self._given_up >= _CROWDED and self._blocks > _CROWDED_BLOCKS and self._blocks % _CROWDED_SHARE:
            return
        found = {self._words[index]: end for index, end in self._sieve.first_ends(block).items()}
        wanted = {index for word in found for index in self._owners[word] if index not in self._closed}
        if wanted:
            lowered = block.lower()
            hot = len(self._hot)
            for index in sorted(wanted):
                self._follow(index, lowered, judge)
            if len(self._hot) != hot:
                self._hot_sieve = RegexSieve([self._signs.patterns[index] for index in self._hot])
        if self._hot:
            self._look_for_hot(block, judge)
        self._age_bytes += len(block)
        is_wasteful = self._searched + len(self._closed) > len(self._signs.patterns)
        if self._is_stale or (is_wasteful and self._age_bytes >= _RENEWAL_BYTES):
            self._search_words([index for index in range(len(self._signs.patterns)) if index not in self._closed])

    def _search_words(self, indexes: Sequence[int]) -> None:
        self._owners: dict[bytes, list[int]] = {}
        for index in indexes:
            for word in self._words_of(index):
                self._owners.setdefault(word, []).append(index)
        self._words = list(self._owners)
        self._sieve = WordSieve(self._words)
        self._patience = _HOT if self._sieve.is_quick else _PATIENCE
        self._searched = len(indexes)
        self._age_bytes = 0
        self._is_stale = False

    def _words_of(self, index: int) -> Sequence[bytes]:
        return self._signs.words[index][self._set[index]] if self._signs.words[index] else ()

    def _follow(self, index: int, lowered: bytes, judge: Judge) -> None:
        """Every line of this block that holds one of the sign's words, until enough is known."""
        start, words = 0, _Words(self._words_of(index), lowered)
        while (place := words.from_(start)) >= 0:
            judged = judge(index, place + 1)
            self._count(index, judged)
            if self._is_known(index):
                self._closed.add(index)
                return
            if self._alarms[index] >= (1 if self._given_up >= _CROWDED else self._patience):
                self._alarms[index] = 0
                if self._set[index] + 1 >= len(self._signs.words[index]):
                    self._heat(index)
                    return
                self._set[index] += 1
                self._is_stale = True
                words = _Words(self._words_of(index), lowered)
            start = judged.end

    def _heat(self, index: int) -> None:
        self._closed.add(index)  # for the words
        if self._sieve.is_quick and len(self._hot) < self._hot_limit:
            self._hot.append(index)
        else:
            self._given_up += 1

    def _count(self, index: int, judged: Judged) -> None:
        counts = self._again if judged.bears is None else self._seen if judged.bears else self._alarms
        counts[index] += 1

    def _is_known(self, index: int) -> bool:
        return self._seen[index] >= SIGHTINGS or self._again[index] >= _AGAIN

    def _look_for_hot(self, block: bytes, judge: Judge) -> None:
        position = 0
        while position < len(block):
            ends = self._hot_sieve.first_ends(block[position:])
            following = len(block)
            for own, end in ends.items():
                index = self._hot[own]
                if self._is_hot(index):
                    judged = judge(index, position + end)
                    self._count(index, judged)
                    following = min(following, max(judged.end, position + end))
            position = following
            self._second_looks += len(block) - position
            if self._second_looks > _SECOND_LOOKS_BYTES:
                break
        still = [index for index in self._hot if self._is_hot(index)]
        if len(still) < len(self._hot):
            self._hot = still
            self._hot_sieve = RegexSieve([self._signs.patterns[index] for index in still])

    def _is_hot(self, index: int) -> bool:
        return not self._is_known(index) and self._alarms[index] < _ALARMS_LIMIT


def _useful(sets: list[frozenset[str]]) -> list[frozenset[str]]:
    return sets[:1] + [words for words in sets[1:2] if min(map(len, words)) >= _SHORTEST]


class _Words:
    """Where words stand in a text, asked for from its beginning to its end: each place is looked for once."""

    def __init__(self, words: Sequence[bytes], text: bytes) -> None:
        self._text = text
        self._places = {word: text.find(word) for word in words}

    def from_(self, start: int) -> int:
        """Where the first of them stands from a place on, which never goes back; -1 where none does."""
        for word, place in self._places.items():
            if 0 <= place < start:
                self._places[word] = self._text.find(word, start)
        return min((place for place in self._places.values() if place >= 0), default=-1)


def _raw_forms(words: frozenset[str]) -> tuple[bytes, ...]:
    forms: list[bytes] = []
    for word in sorted(words):
        plain = escaped = word.encode()
        for character, said in _SAID_IN_JSON:
            escaped = escaped.replace(character, said)
        forms += [plain] if plain == escaped else [plain, escaped]
    return tuple(forms)
