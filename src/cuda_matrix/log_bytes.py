"""Owns the first step of reading a log: bytes as they lie on disk → plain bytes, whatever packing or encoding.

Must not know what a line is or what it says. gzip and UTF-16 are undone piece by piece, so that memory stays bounded.
"""

from __future__ import annotations

import codecs
import itertools
import zlib
from collections.abc import Iterable, Iterator

UNPACKED_LIMIT_BYTES = 1 << 30  # of a packed log: 1 MB of gzip may hold 1 GB of nothing
PIECE_BYTES = 1 << 20

_GZIP = b"\x1f\x8b\x08"  # RFC 1952: magic number, and deflate, the only method
_GZIP_WINDOW = 31  # zlib: the largest window, with gzip's header
_SNIFFED_BYTES = 4_096
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_MOSTLY = 0.4  # share of NULs at every second place from which on ASCII in UTF-16 is meant


class LogBytes:
    """The pieces of a log, unpacked, in UTF-8 where it was UTF-16; other encodings pass as they are.

    Iterate once. Afterwards `remarks` says in words what could not be read to its end.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.remarks: list[str] = []
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        start, pieces = _peek(iter(self._pieces))
        if start.startswith(_GZIP):
            start, pieces = _peek(self._unpacked(pieces))
        mark, encoding = _encoding(start)
        if mark:
            pieces = _without(pieces, len(mark))
        return pieces if encoding == "utf-8" else _recoded(pieces, encoding)

    def _unpacked(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Every member of a gzip file, one after another; a broken one ends the log where it breaks."""
        room = UNPACKED_LIMIT_BYTES
        unpacker, fresh = zlib.decompressobj(_GZIP_WINDOW), True
        for piece in pieces:
            packed = piece
            while packed := packed.lstrip(b"\0") if fresh else packed:  # zeros may stand between members
                try:
                    plain = unpacker.decompress(packed, min(PIECE_BYTES, room))
                except zlib.error as error:
                    self.remarks.append(f"the packed log is broken: read up to there ({error})")
                    return
                room -= len(plain)
                yield plain
                if room <= 0:
                    limit = UNPACKED_LIMIT_BYTES >> 20
                    self.remarks.append(f"only the first {limit} MiB of the unpacked log were read")
                    return
                fresh, packed = False, unpacker.unconsumed_tail
                if unpacker.eof:
                    packed = unpacker.unused_data
                    unpacker, fresh = zlib.decompressobj(_GZIP_WINDOW), True
        if not fresh:
            self.remarks.append("the packed log ends in the middle")


def _peek(pieces: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes, and all pieces again."""
    taken = [b""]
    for piece in pieces:
        taken.append(piece)
        if sum(map(len, taken)) >= _SNIFFED_BYTES:
            break
    start = b"".join(taken)
    return start[:_SNIFFED_BYTES], itertools.chain((start,), pieces)


def _encoding(start: bytes) -> tuple[bytes, str]:
    """The byte order mark, if any, and the encoding."""
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return mark, encoding
    half = len(start) // 2
    if half and start[1::2].count(0) > _MOSTLY * half > start[::2].count(0):
        return b"", "utf-16-le"
    if half and start[::2].count(0) > _MOSTLY * half > start[1::2].count(0):
        return b"", "utf-16-be"
    return b"", "utf-8"


def _without(pieces: Iterator[bytes], count: int) -> Iterator[bytes]:
    """The pieces without the first `count` bytes, which all lie in the first piece."""
    return itertools.chain((next(pieces)[count:],), pieces)


def _recoded(pieces: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    for piece in pieces:
        yield decoder.decode(piece).encode("utf-8", "replace")
