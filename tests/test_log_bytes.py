"""gzip and UTF-16 are undone piece by piece, a bomb is stopped, and other bytes pass."""

from __future__ import annotations

import codecs
import gzip
import random

import pytest

from cuda_matrix import log_bytes
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.log_bytes import LogBytes

TEXT = "".join(f"line {number}: grün ok\n" for number in range(3_000))


def read(data: bytes, piece: int = 1_000) -> tuple[bytes, list[str]]:
    source = LogBytes(data[place : place + piece] for place in range(0, len(data), piece))
    return b"".join(source), source.remarks


@pytest.mark.parametrize("piece", [1, 7, 1_000, 1 << 20])
@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
        gzip.compress(TEXT.encode()),
        gzip.compress(TEXT[:999].encode()) + gzip.compress(TEXT[999:].encode()) + b"\0" * 512,
        gzip.compress(TEXT.encode("utf-16")),
    ],
    ids=["utf-8", "mark", "utf-16", "utf-16-be", "le", "be", "gzip", "members", "both"],
)
def test_the_text_comes_out_whatever_it_was_packed_in(data: bytes, piece: int) -> None:
    assert read(data, piece) == (TEXT.encode(), [])


def test_a_bomb_is_read_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_bytes, "UNPACKED_LIMIT_BYTES", 1 << 20)
    plain, remarks = read(gzip.compress(bytes(64 << 20)))
    assert len(plain) == 1 << 20
    assert remarks == ["only the first 1 MiB of the unpacked log were read"]


def test_a_bomb_of_members_is_read_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_bytes, "MEMBERS_LIMIT", 1_000)
    members = gzip.compress(b"first\n") + gzip.compress(b"") * 998 + gzip.compress(b"last\n") * 2
    assert read(members, 1 << 20) == (b"first\nlast\n", ["only the first 1,000 parts of the packed log were read"])


@pytest.mark.parametrize("size", [*range((1 << 20) - 2, (1 << 20) + 3), (1 << 20) + 258, 2 << 20])
def test_the_end_of_a_packed_log_is_not_lost_at_a_full_piece(size: int) -> None:
    assert read(gzip.compress(bytes(size)), 1 << 20) == (bytes(size), [])


def test_a_source_without_an_end_is_read_up_to_the_limit() -> None:
    source = LogBytes(iter(lambda: b"x" * 700_000, b""), 1 << 20)
    assert sum(map(len, source)) == 1 << 20
    assert source.remarks == ["only the first 1 MiB were read: give a larger log as a file"]


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"PK\x03\x04\x14\0", "a ZIP archive"),
        (b"\xfd7zXZ\0\0", "packed with xz"),
        (b"\x28\xb5\x2f\xfd\x04", "packed with zstd"),
        (b"\x89PNG\r\n\x1a\n", "a picture (PNG)"),
    ],
)
def test_an_archive_and_a_picture_are_refused_with_a_way_out(start: bytes, words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"the log is {words[0]}") as caught:
        read(start + bytes(5_000))
    assert words in str(caught.value)
    assert "text" in caught.value.hint


def test_a_broken_packed_log_is_read_up_to_where_it_breaks() -> None:
    packed = bytearray(gzip.compress(random.Random(1).randbytes(100_000) + TEXT.encode()))
    packed[60_000:60_100] = bytes(100)
    plain, remarks = read(bytes(packed))
    assert len(plain) > 10_000
    assert len(remarks) == 1
    assert "broken" in remarks[0]


def test_a_packed_log_that_was_cut_off_is_read_up_to_there() -> None:
    plain, remarks = read(gzip.compress(TEXT.encode())[:-3_000])
    assert TEXT.encode().startswith(plain)
    assert plain
    assert remarks == ["the packed log ends in the middle"]


@pytest.mark.parametrize(
    "data", [b"", b"x", b"\0", b"\x1f\x8b", b"\x1f\x8c\x08", b"\xff\xfe", random.Random(2).randbytes(50_000)]
)
def test_other_bytes_pass(data: bytes) -> None:
    assert read(data)[0] == (b"" if data == b"\xff\xfe" else data)
