"""Owns a text made ready to be searched for the many regexes of the catalogue, each of which few lines can match.

Must not know what a regex stands for (diagnose). The cost grows with the text, not with the number of regexes.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache
from heapq import merge
from itertools import accumulate, pairwise
from typing import NamedTuple

from cuda_matrix.catalogue import anchors_of
from cuda_matrix.wording import is_mention, is_quotation

_WRAPPED_LINES_LIMIT = 400  # a longer text is no paste of a terminal, so its lines are whole
_WRAPPED_WIDTH = 60  # characters: a line that a terminal broke in the middle of a word is at least this long


class Line(NamedTuple):
    """One line, and the check or stage that it comes from."""

    where: str
    text: str


class Hit(NamedTuple):
    """Where a regex matched: the number of the line, and the match."""

    order: int
    match: re.Match[str]


class Reading:
    """Lines, and what else is known of the case (`told`). Regexes are case-insensitive and for one line."""

    def __init__(self, lines: Sequence[Line], told: Sequence[str] = ()) -> None:
        self.lines = lines
        self._told = told
        lower = [line.text.lower() for line in lines]
        self._text = "\n".join(lower)
        self._starts = list(accumulate((len(line) + 1 for line in lower), initial=0))
        self._numbers: dict[str, list[int]] = {}
        # What a terminal has wrapped, with the words whole again.
        self._joined = (" ".join(lower), "".join(lower)) if len(lines) <= _WRAPPED_LINES_LIMIT else ()

    def matching(self, pattern: str) -> list[int]:
        """The numbers of all lines that match."""
        search = compiled(pattern).search
        return [order for order in self._candidates(pattern) if search(self.lines[order].text)]

    def find(self, pattern: str) -> Hit | None:
        """The first line that matches and reports what it says, and does not merely mention it."""
        search = compiled(pattern).search
        for order in self._candidates(pattern):
            text = self.lines[order].text
            match = search(text)
            if match and not is_mention(text) and not is_quotation(text, *match.span()):
                return Hit(order, match)
        return None

    def find_wrapped(self, pattern: str) -> Hit | None:
        """The first match across two lines. Not for a regex with a gap, which would join what is unrelated."""
        words = anchors_of(pattern)
        if ".{" in pattern or not any(word in joined for joined in self._joined for word in words):
            return None
        search = compiled(pattern).search
        for order, (one, other) in enumerate(pairwise(line.text for line in self.lines)):
            match = search(f"{one} {other}") or (search(one + other) if len(one) >= _WRAPPED_WIDTH else None)
            # What lies in one line alone has been judged there.
            across = match is not None and match.start() < len(one) < match.end() - 1
            if match and across and not (is_mention(one) or is_mention(other)):
                return Hit(order, match)
        return None

    def says(self, pattern: str) -> bool:
        """Whether a line, or what else is known, matches."""
        return any(compiled(pattern).search(text) for text in self._told) or self.find(pattern) is not None

    def _candidates(self, pattern: str) -> list[int]:
        """The numbers of the lines that hold a literal without which the regex cannot match, in order."""
        words = anchors_of(pattern)
        if not words:
            return list(range(len(self.lines)))
        return list(dict.fromkeys(merge(*(self._lines_with(word) for word in words))))

    def _lines_with(self, word: str) -> list[int]:
        if word not in self._numbers:
            found = self._numbers[word] = []
            place = self._text.find(word)
            while place >= 0:
                order = bisect_right(self._starts, place) - 1
                found.append(order)
                place = self._text.find(word, self._starts[order + 1])
        return self._numbers[word]


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """The regex as the catalogue means it: without case, and with ASCII's letters and digits alone."""
    return re.compile(pattern, re.IGNORECASE | re.ASCII)
