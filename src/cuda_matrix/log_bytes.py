"""Owns the first step of reading a log: bytes as they lie on disk → plain bytes, whatever packing or encoding.

Must not know what a line is or what it says. gzip and UTF-16 are undone piece by piece, so that memory stays bounded.
"""

from __future__ import annotations

import codecs
import itertools
import zlib
from collections.abc import Iterable, Iterator

from cuda_matrix.errors import ConfigurationError

UNPACKED_LIMIT_BYTES = 1 << 30  # of a packed log: 1 MB of gzip may hold 1 GB of nothing
MEMBERS_LIMIT = 100_000  # of a packed log: bgzip makes one of 64 KB
PIECE_BYTES = 1 << 20

_UNPACK, _COPY = "unpack it first, and give the text", "copy the words of the log, and give them as text"
_OTHERS = {
    b"PK\x03\x04": ("a ZIP archive", _UNPACK),
    b"\xfd7zXZ\0": ("packed with xz", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("packed with zstd", _UNPACK),
    b"BZh": ("packed with bzip2", _UNPACK),
    b"7z\xbc\xaf": ("a 7z archive", _UNPACK),
    b"\x89PNG\r\n": ("a picture (PNG)", _COPY),
    b"\xff\xd8\xff": ("a picture (JPEG)", _COPY),
    b"%PDF-": ("a PDF document", _COPY),
}
_GZIP = b"\x1f\x8b\x08"  # RFC 1952: magic number, and deflate, the only method
_SLICE_BYTES = 16 << 10  # unpacked at once: what is left of it is copied for each member
_GZIP_WINDOW = 31  # zlib: the largest window, with gzip's header
_SNIFFED_BYTES = 4_096
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_MOSTLY = 0.4  # share of NULs at every second place from which on ASCII in UTF-16 is meant


class LogBytes:
    """The pieces of a log, unpacked, in UTF-8 where it was UTF-16; other encodings pass as they are.

    Iterate once. Afterwards `remarks` says in words what could not be read to its end.

    Raises:
        ConfigurationError: it is an archive or a picture, which is not undone here.
    """

    def __init__(self, pieces: Iterable[bytes], limit_bytes: int | None = None) -> None:
        """`limit_bytes`: where to stop, as the source may never end."""
        self.remarks: list[str] = []
        self._pieces = pieces
        self._limit_bytes = limit_bytes

    def __iter__(self) -> Iterator[bytes]:
        start, pieces = _peek(self._limited(iter(self._pieces)))
        for magic, (what, remedy) in _OTHERS.items():
            if start.startswith(magic):
                msg = f"the log is {what}, no text"
                raise ConfigurationError(msg, hint=remedy)
        if start.startswith(_GZIP):
            start, pieces = _peek(self._unpacked(pieces))
        mark, encoding = _encoding(start)
        if mark:
            pieces = _without(pieces, len(mark))
        return pieces if encoding == "utf-8" else _recoded(pieces, encoding)

    def _limited(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        limit = self._limit_bytes
        if limit is None:
            yield from pieces
            return
        left = limit
        for piece in pieces:
            yield piece[:left]
            left -= len(piece)
            if left <= 0:
                self.remarks.append(f"only the first {limit >> 20} MiB were read: give a larger log as a file")
                return

    def _unpacked(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Every member of a gzip file, one after another; a broken one ends the log where it breaks."""
        room, members = UNPACKED_LIMIT_BYTES, 1
        unpacker, fresh = zlib.decompressobj(_GZIP_WINDOW), True
        for piece in _slices(pieces):
            packed = piece
            while packed := packed.lstrip(b"\0") if fresh else packed:  # zeros may stand between members
                try:
                    plain = unpacker.decompress(packed, min(PIECE_BYTES, room))
                except zlib.error as error:
                    self.remarks.append(f"the packed log is broken: read up to there ({error})")
                    return
                room -= len(plain)
                if plain:
                    yield plain
                if room <= 0:
                    limit = UNPACKED_LIMIT_BYTES >> 20
                    self.remarks.append(f"only the first {limit} MiB of the unpacked log were read")
                    return
                fresh, packed = False, unpacker.unconsumed_tail
                if unpacker.eof:
                    packed = unpacker.unused_data
                    unpacker, fresh = zlib.decompressobj(_GZIP_WINDOW), True
                    members += 1
                if members > MEMBERS_LIMIT:
                    self.remarks.append(f"only the first {MEMBERS_LIMIT:,} parts of the packed log were read")
                    return
        if not fresh:
            self.remarks.append("the packed log ends in the middle")


def _slices(pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield from (piece[place : place + _SLICE_BYTES] for place in range(0, len(piece), _SLICE_BYTES))


def _peek(pieces: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes, and all pieces again."""
    taken: list[bytes] = []
    size = 0
    for piece in pieces:
        taken.append(piece)
        size += len(piece)
        if size >= _SNIFFED_BYTES:
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
