"""Owns the step from a log of any size to the few lines of it that a diagnosis needs to see.

A small log is taken whole. Of a large one, read in blocks: its head, its tail, and for each sign the first lines that
bear it, and those in the tail. Time is linear in the log; memory and the excerpt are bounded. Must not know what a
sign means (diagnose).
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from cuda_matrix.log_lines import said
from cuda_matrix.signs import Judged, Search, Signs
from cuda_matrix.wording import reads_as_text

WHOLE_BYTES, WHOLE_LINES = 64 << 10, 2_000  # a log up to here is not searched but taken as it is
EXCERPT_LINES, EXCERPT_CHARACTERS = 2_000, 66_000

_BLOCK_BYTES = 256 << 10
_STEP_BYTES = 4 << 10  # between two places of a block up to which its lines are counted
_OVERLAP_BYTES = 8 << 10  # what lies across two blocks is seen with its neighbours in the second
_HEAD_LINES, _TAIL_LINES, _END_LINES, _TAIL_BYTES = 150, 300, 10, 256 << 10
_NEIGHBOURS = 3  # lines before and after a sighting
_FIRST = 2  # sightings of a sign that matter most, and whose neighbours are kept
_AROUND_BYTES = 500  # of a long line, before and after the sign's words
_LONG_LINE_BYTES = 8 << 10  # a longer one is looked at around the sign alone
_COLOURS_LIMIT = 400_000  # escape sequences that are removed before the search, about 1 µs each

_ESCAPE = b"\x1b"
_COLOUR = re.compile(rb"\x1b(?:\[[0-?]{0,64}[ -/]{0,8}[@-~]|[ -/][0-~]|[\]P^_X][^\x07\x1b\r\n]{0,200}(?:\x07|\x1b\\))")
_NO_BREAK_SPACE = "\u00a0".encode()


class Line(NamedTuple):
    """One line of the excerpt, cleaned. `number` counts the log's lines from 1."""

    number: int
    text: str


@dataclass(frozen=True)
class Excerpt:
    """What was kept, in the log's order, and what the log was: its size in bytes (unpacked) and in lines."""

    lines: tuple[Line, ...]
    size_bytes: int
    size_lines: int
    whole: bool

    @property
    def text(self) -> str:
        """The lines as one text."""
        return "\n".join(line.text for line in self.lines)

    @property
    def is_text(self) -> bool:
        """Whether it reads like a text, and not like the bytes of a program, say."""
        return reads_as_text(self.text)

    def number_of(self, quoted: str) -> int | None:
        """The line of the log in which a quoted text stands first; None where it is not from here."""
        wanted = quoted.strip()
        return next((line.number for line in self.lines if wanted in line.text), None) if wanted else None


def excerpt(pieces: Iterable[bytes], signs: Signs) -> Excerpt:
    """Read a log to its end and keep what is worth reading.

    Args:
        pieces: the log's bytes, in pieces of any size.
        signs: what to look for in a log too large to be kept whole.
    """
    blocks = _blocks(pieces)
    start = _start(blocks)
    if len(start) <= WHOLE_BYTES:
        speaking = sum(not raw.isspace() for raw in start.split(b"\n") if raw)
        lines = list(_numbered(start, 1)) if speaking <= WHOLE_LINES else []
        if speaking <= WHOLE_LINES and len(lines) <= WHOLE_LINES:
            return Excerpt(_fitting(dict.fromkeys(lines, 0)), len(start), _count(start), whole=True)
    reader = _Reader(signs)
    reader.head(start)
    for position in range(0, len(start), _BLOCK_BYTES):
        reader.take(start[position : position + _BLOCK_BYTES])
    for block in blocks:
        reader.take(block)
    return reader.finish()


class _Reader:
    """Takes block after block; `kept` maps a line to how much it matters (the least number most)."""

    def __init__(self, signs: Signs) -> None:
        self._signs = signs
        self._search = Search(signs)
        self._seen: set[tuple[int, Line]] = set()
        self._counts: Counter[int] = Counter()
        self._kept: dict[Line, int] = {}
        self._rest = b""  # of the blocks before: looked at again with the next one
        self._rest_number = 1  # of the line in which it begins
        self._tail = b""
        self._bytes = self._newlines = self._colours = 0
        self._last = b""

    def head(self, start: bytes) -> None:
        for line in itertools.islice(_numbered(start, 1), _HEAD_LINES):
            self._keep(line, 2)

    def take(self, block: bytes) -> None:
        self._bytes += len(block)
        self._tail = (self._tail + block)[-_TAIL_BYTES:]
        self._last = block[-1:] or self._last
        self._newlines += block.count(b"\n")
        plain = self._rest + self._plain(block)
        cut = plain.rfind(b"\n", len(plain) // 2) + 1 or len(plain)
        self._look(plain[:cut], self._rest_number, self._search)
        keep = _line_start(plain, max(0, cut - _OVERLAP_BYTES), cut)
        self._rest = plain[keep:]
        self._rest_number = 1 + self._newlines - self._rest.count(b"\n")

    def finish(self) -> Excerpt:
        self._look(self._rest, self._rest_number, self._search)
        tail = self._tail[_line_start(self._tail, 0, len(self._tail)) if self._bytes > _TAIL_BYTES else 0 :]
        number = 1 + self._newlines - tail.count(b"\n")
        self._seen, self._counts = set(), Counter()
        self._look(_COLOUR.sub(b"", tail), number, Search(self._signs, hot_limit=0))
        for line in reversed(list(itertools.islice(_numbered(tail, number, last_first=True), _TAIL_LINES))):
            self._keep(line, 1)
        for line in itertools.islice(_numbered(tail, number, last_first=True), _END_LINES):
            self._keep(line, -1)
        total = self._newlines + (self._last not in {b"", b"\n"})
        return Excerpt(_fitting(self._kept), self._bytes, total, whole=False)

    def _keep(self, line: Line, rank: int) -> None:
        self._kept[line] = min(rank, self._kept.get(line, rank))

    def _plain(self, block: bytes) -> bytes:
        """The block without what may stand inside a word, or for a space (log_lines.seen, at the speed of a search)."""
        if b"\0" in block:
            block = block.translate(None, b"\0")
        if _NO_BREAK_SPACE in block:
            block = block.replace(_NO_BREAK_SPACE, b" ")
        if self._colours >= _COLOURS_LIMIT or _ESCAPE not in block:
            return block
        self._colours += block.count(_ESCAPE)
        return _COLOUR.sub(b"", block)

    def _look(self, block: bytes, number: int, search: Search) -> None:
        """Find the signs of one block. `number` is that of the line in which the block begins."""
        known: dict[tuple[int, int], list[Line]] = {}
        newlines = _Newlines(block)

        def judge(index: int, place: int) -> Judged:
            span = _span(block, place)
            if span not in known:
                here = number + newlines.before(span[0])
                known[span] = [Line(here, text) for text in said(block[span[0] : span[1]])]
            regex = _regex(self._signs.patterns[index])
            bearing = next((line for line in known[span] if regex.search(line.text)), None)
            if bearing is None:
                return Judged(False, span[1])
            if (index, bearing) in self._seen:
                return Judged(None, span[1])
            self._seen.add((index, bearing))
            self._counts[index] += 1
            self._keep(bearing, min(3, self._counts[index] - 1))
            for line in _around(block, span, bearing.number) if self._counts[index] <= _FIRST else ():
                self._keep(line, 4)
            return Judged(True, span[1])

        search.look(block, judge)


class _Newlines:
    """How many lines end before a place in a block, without counting from its beginning each time."""

    def __init__(self, block: bytes) -> None:
        self._block = block
        self._sums: list[int] = []

    def before(self, place: int) -> int:
        if not self._sums:
            counts = (self._block.count(b"\n", at, at + _STEP_BYTES) for at in range(0, len(self._block), _STEP_BYTES))
            self._sums = list(itertools.accumulate(counts, initial=0))
        step = place // _STEP_BYTES
        return self._sums[step] + self._block.count(b"\n", step * _STEP_BYTES, place)


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    """As a diagnosis reads it (reading.compiled)."""
    return re.compile(pattern, re.IGNORECASE | re.ASCII)


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in blocks of one size, whatever a pipe delivers."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _BLOCK_BYTES:
            joined = b"".join(waiting)
            full = size - size % _BLOCK_BYTES
            yield from (joined[place : place + _BLOCK_BYTES] for place in range(0, full, _BLOCK_BYTES))
            waiting, size = [joined[full:]], size - full
    if size:
        yield b"".join(waiting)


def _start(blocks: Iterator[bytes]) -> bytes:
    """The first blocks, one more than a log may have that is taken whole."""
    start = bytearray()
    for block in blocks:
        start += block
        if len(start) > WHOLE_BYTES:
            break
    return bytes(start)


def _count(text: bytes) -> int:
    return text.count(b"\n") + (text[-1:] not in {b"", b"\n"})


def _numbered(text: bytes, number: int, *, last_first: bool = False) -> Iterator[Line]:
    """Every line that says something."""
    raws = list(enumerate(text.split(b"\n"), number))
    for place, raw in reversed(raws) if last_first else raws:
        if raw and not raw.isspace():
            parts = said(raw)
            yield from (Line(place, part) for part in (reversed(parts) if last_first else parts))


def _span(block: bytes, end: int) -> tuple[int, int]:
    """Where the line lies in which a match ends; of a long line, the part around the match's end."""
    low, high = max(0, end - _LONG_LINE_BYTES), end + _LONG_LINE_BYTES
    start = max(block.rfind(mark, low, end) for mark in (b"\n", b"\r")) + 1
    stops = [stop for mark in (b"\n", b"\r") if (stop := block.find(mark, end, high)) >= 0]
    if start and stops and min(stops) - start <= _LONG_LINE_BYTES:
        return start, min(stops)
    return max(start, end - _AROUND_BYTES), min([*stops, end + _AROUND_BYTES, len(block)])


def _line_start(text: bytes, place: int, limit: int) -> int:
    """The start of the first line behind `place`; `place` itself where no line begins before `limit`."""
    found = text.find(b"\n", place, limit)
    return place if found < 0 or found + 1 == limit else found + 1


def _around(block: bytes, span: tuple[int, int], number: int) -> Iterator[Line]:
    """The neighbours of a sighting, as far as they lie near by."""
    before = block[max(0, span[0] - _OVERLAP_BYTES) : max(0, span[0] - 1)].split(b"\n")[-_NEIGHBOURS:]
    after = block[span[1] + 1 : span[1] + _OVERLAP_BYTES].split(b"\n")[:_NEIGHBOURS]
    for offset, raw in enumerate(before):
        yield from (Line(number - len(before) + offset, text) for text in said(raw))
    for offset, raw in enumerate(after):
        yield from (Line(number + 1 + offset, text) for text in said(raw))


def _fitting(kept: dict[Line, int]) -> tuple[Line, ...]:
    """What matters most, as much as fits, in the log's order."""
    room = EXCERPT_CHARACTERS
    chosen: list[Line] = []
    places = {line: place for place, line in enumerate(kept)}
    for line in sorted(kept, key=lambda each: (kept[each], places[each])):
        room -= len(line.text) + 1
        if room < 0 or len(chosen) >= EXCERPT_LINES:
            break
        chosen.append(line)
    return tuple(sorted(chosen, key=lambda each: (each.number, places[each])))
