"""The lines worth reading of a log of any size and shape."""

from __future__ import annotations

import gzip
import json
import random
import sys
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuda_matrix.diagnose import Evidence, Fragment, diagnose
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.excerpt import EXCERPT_CHARACTERS, EXCERPT_LINES, WHOLE_BYTES, Excerpt, excerpt
from cuda_matrix.log_bytes import LogBytes
from cuda_matrix.reference import load_reference
from cuda_matrix.signs import Signs
from regex_lab import matching

REFERENCE = load_reference()
SIGNS = Signs(REFERENCE.catalogue)
ERROR = "RuntimeError: CUDA error: no kernel image is available for execution on the device"
BLOCK = 256 << 10


def ordinary(size: int, seed: int = 1) -> list[str]:
    """Lines of a training run, full of words that signs are made of; `size` in bytes."""
    rng = random.Random(seed)
    lines: list[str] = []
    length = 0
    while length < size:
        step = len(lines)
        line = rng.choice(
            (
                f"2026-11-21 12:00:{step % 60:02d} step {step} loss 0.{rng.randrange(10**6):06d} decoder status ok",
                f"[rank0]: NCCL INFO Channel {step % 32:02d}/0 : 0[0] -> 1[1] via P2P/CUMEM nvidia device memory",
                f"{step % 100}%|####    | {step}/99999 [00:01<00:12, 85.1it/s, loss=0.9993] error rate 0.1 code 999",
            )
        )
        lines.append(line)
        length += len(line) + 1
    return lines


COMMON = ordinary(3 * BLOCK + 70_000)


def pieces(data: bytes, size: int = 100_000) -> Iterator[bytes]:
    return (data[place : place + size] for place in range(0, len(data), size))


def taken(data: bytes, size: int = 100_000) -> Excerpt:
    return excerpt(LogBytes(pieces(data, size)), SIGNS)


def numbers(found: Excerpt, text: str) -> list[int]:
    return [line.number for line in found.lines if line.text == text]


def test_a_small_log_is_taken_whole() -> None:
    found = taken(b"first\n\n> second\r\n\x1b[31mthird\x1b[0m")
    assert [tuple(line) for line in found.lines] == [(1, "first"), (3, "second"), (4, "third")]
    assert (found.size_bytes, found.size_lines, found.whole) == (31, 4, True)
    assert found.number_of("second") == 3
    assert found.number_of("absent") is None
    assert found.number_of("") is None


@pytest.mark.parametrize("data", [b"", b"\n", b"\n" * 300_000, b"\0" * 10, b"   \n\r\n"])
def test_a_log_that_says_nothing_has_no_lines(data: bytes) -> None:
    assert taken(data).lines == ()
    assert taken(data).size_bytes == len(data)


@settings(max_examples=25, database=None, deadline=None)
@given(st.integers(0, len(COMMON)), st.sampled_from([1 << 20, 100_000, 4_097]))
def test_one_error_anywhere_is_found_with_its_line_number(place: int, piece: int) -> None:
    found = taken("\n".join([*COMMON[:place], ERROR, *COMMON[place:]]).encode(), piece)
    assert numbers(found, ERROR) == [place + 1]
    assert found.size_lines == len(COMMON) + 1
    assert not found.whole


@pytest.mark.parametrize("offset", [*range(-90, 91, 9), -8_193, -8_100, 8_192])
@pytest.mark.parametrize("blocks", [1, 2])
def test_an_error_across_two_blocks_is_found_once(blocks: int, offset: int) -> None:
    data = ("\n".join(COMMON)).encode()
    cut = data.rfind(b"\n", 0, blocks * BLOCK + offset - 45) + 1
    padded = data[:cut] + b"x" * (blocks * BLOCK + offset - 45 - cut) + b"\n" + ERROR.encode() + b"\n" + data[cut:]
    found = taken(padded)
    assert numbers(found, ERROR) == [padded[: padded.index(ERROR.encode())].count(b"\n") + 1]


@pytest.mark.parametrize("name", sorted(REFERENCE.messages))
def test_real_messages_survive_in_the_middle_of_a_large_log(name: str) -> None:
    text = [line.strip() for line in REFERENCE.messages[name].text.splitlines() if line.strip()]
    found = taken("\n".join([*COMMON[:4_000], *text, *COMMON[4_000:]]).encode())
    alone = diagnose(
        Evidence(stage="run", fragments=(Fragment(where="log", text="\n".join(text)),)),
        REFERENCE.catalogue,
        REFERENCE.drivers,
    )
    assert alone.cause == "unknown" or 4_000 < (found.number_of(alone.evidence) or 0) <= 4_000 + len(text)


def test_every_sign_of_the_catalogue_is_kept_from_a_log_of_signs() -> None:
    rng = random.Random(5)
    signs = [line for pattern in SIGNS.patterns[:150] if (line := matching(pattern, rng)) is not None]
    lines = list(COMMON)
    for number, sign in enumerate(signs):
        lines.insert(20 + number * 50, sign.strip())
    found = taken("\n".join(lines).encode())
    kept = {line.text for line in found.lines}
    missing = [sign for sign in signs if sign.strip() and not any(sign.strip() in text for text in kept)]
    assert len(missing) <= len(signs) // 10, missing  # what a prefix is taken for, and what does not fit


def test_the_first_and_the_last_of_many_are_kept_with_their_neighbours() -> None:
    lines = [ERROR if number % 3 == 0 else f"line {number}" for number in range(40_000)]
    found = taken("\n".join(lines).encode())
    kept = numbers(found, ERROR)
    assert {1, 4} <= set(kept)
    assert max(kept) == 39_999 + 1
    assert "line 1" in found.text
    assert "line 39998" in found.text


def test_one_line_of_any_length_is_looked_at_around_its_signs() -> None:
    middle = " ".join(COMMON)
    found = taken(f"{middle} {ERROR} {middle}".encode())
    assert any(ERROR in line.text for line in found.lines)
    assert {line.number for line in found.lines} == {1}
    assert found.size_lines == 1


def test_progress_bars_without_a_line_end_are_lines() -> None:
    bars = "\r".join(f"{number}%|####" for number in range(60_000))
    found = taken(f"{bars}\r{ERROR}\r{bars}".encode())
    assert numbers(found, ERROR) == [1]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda line: f"trainer-1  | {line}".encode(),
        lambda line: f"2026-11-21T10:00:00.1234567Z {line}".encode(),
        lambda line: line.replace(" ", " \x1b[1m").encode(),
        lambda line: json.dumps({"log": line + "\n", "stream": "stdout"}).replace(">", "\\u003e").encode(),
        lambda line: f"{line}\r".encode(),
        lambda line: line.replace(" ", "\u00a0").encode(),
        lambda line: line.replace("", "\0").encode(),
        lambda line: line.replace(" ", "\x1b(B\x1b[m ").encode(),
        lambda line: f"\x1b_bk;t=1763719200000\x07{line}".encode(),
    ],
    ids=["compose", "actions", "colours", "json", "crlf", "no-break spaces", "nuls", "character sets", "buildkite"],
)
def test_a_large_log_that_tools_have_wrapped(wrap) -> None:  # type: ignore[no-untyped-def]
    data = b"\n".join(wrap(line) for line in [*COMMON[:5_000], ERROR, *COMMON[5_000:]])
    assert numbers(taken(data), ERROR) == [5_001]


@pytest.mark.parametrize("encode", [lambda text: text.encode("utf-16"), lambda text: gzip.compress(text.encode(), 1)])
def test_a_large_log_in_another_form(encode) -> None:  # type: ignore[no-untyped-def]
    data = encode("\n".join([*COMMON[:5_000], ERROR, *COMMON[5_000:]]))
    assert numbers(taken(data), ERROR) == [5_001]


@pytest.mark.parametrize("end", [b" ", b"\n"], ids=["one line", "lines"])
def test_what_is_said_again_and_again_costs_in_proportion(end: bytes) -> None:
    """Every sign's words, over and over; a second is generous for 2 MB more, minutes are what it took once."""
    words = b" ".join(sorted({word for sets in SIGNS.words for words in sets for word in words})) + end
    seconds = []
    for size in (6 << 20, 8 << 20):
        start = time.process_time()
        excerpt(pieces(words * (size // len(words)), 1 << 20), SIGNS)
        seconds.append(time.process_time() - start)
    assert seconds[0] < 15
    assert seconds[1] < seconds[0] + 1


@pytest.mark.parametrize("byte", [b"\0", b"\x1b", b"\n", b"{", b">", b" "])
def test_one_byte_over_and_over_costs_little(byte: bytes) -> None:
    start = time.process_time()
    found = excerpt(pieces(byte * (16 << 20), 1 << 20), SIGNS)
    assert time.process_time() - start < 4
    assert found.size_bytes == 16 << 20


@pytest.mark.parametrize(
    ("data", "is_text"),
    [
        (ERROR.encode(), True),
        ("ошибка: нет памяти 错误".encode(), True),
        ("Fehler: Gerät größer".encode("latin-1"), True),
        (random.Random(3).randbytes(40_000), False),
        (random.Random(3).randbytes(400_000), False),
    ],
)
def test_the_bytes_of_a_program_are_told_from_a_text(data: bytes, is_text: bool) -> None:
    assert taken(data).is_text is is_text


def test_a_large_log_without_hyperscan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hyperscan", None)
    found = taken("\n".join([*COMMON[:5_000], ERROR, *COMMON[5_000:]]).encode())
    assert numbers(found, ERROR) == [5_001]


def test_a_hostile_log_gives_a_bounded_excerpt_and_its_end() -> None:
    words = " ".join(sorted(word.decode() for sets in SIGNS.words for words in sets for word in words))
    found = taken(f"{words}\n".encode() * 400 + b"the end\n")
    assert len(found.lines) <= EXCERPT_LINES
    assert len(found.text) <= EXCERPT_CHARACTERS
    assert found.lines[-1].text == "the end"


@settings(max_examples=60, database=None, deadline=None)
@given(
    st.lists(
        st.one_of(st.binary(max_size=200), st.sampled_from([ERROR.encode(), b"\r", b"{", b'{"log":"x"}', b"\x1f\x8b"]))
    ),
    st.integers(1, 3_000),
)
def test_any_bytes_give_lines_that_can_be_printed(parts: list[bytes], times: int) -> None:
    data = b"\n".join(parts)
    data *= min(times, 1 + 2 * WHOLE_BYTES // max(1, len(data)))
    try:
        found = taken(data)
    except ConfigurationError:  # an archive or a picture
        return
    assert found.size_bytes == len(data)
    assert all("\n" not in line.text and line.text.strip() for line in found.lines)
    found.text.encode("utf-8", "strict")
