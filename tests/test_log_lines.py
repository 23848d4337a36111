"""What people paste, and the one line in it."""

from __future__ import annotations

import json

import pytest

from cuda_matrix.log_lines import LINE_LIMIT, said

WORDS = "RuntimeError: CUDA error: out of memory"


@pytest.mark.parametrize(
    "line",
    [
        WORDS,
        f"\x1b[31m{WORDS}\x1b[0m",
        "RuntimeError: \x1b[1;36mCUDA\x1b[0m error: out of memory",
        f"\x1b]0;a title\x07{WORDS}",
        f"2026-11-21T10:00:00.1234567Z {WORDS}",
        f"2026-11-21 10:00:00,123 {WORDS}",
        f"[2026-11-21 10:00:00] {WORDS}",
        f"trainer-1  | {WORDS}",
        f"[pod/train-7d9f/main] {WORDS}",
        f"2026-11-21T10:00:00.123456789+01:00 stderr F {WORDS}",
        f"Nov 21 10:00:00 node7 dockerd[1234]: {WORDS}",
        f"Nov 21 10:00:00.123456 node7 dockerd[1234]: {WORDS}",
        f"2026-11-21T10:00:00+0100 node7 dockerd[1234]: {WORDS}",
        f"[   12.345678] {WORDS}",
        f"<3>[   12.345678] {WORDS}",
        f"[Sat Nov 21 10:00:00 2026] {WORDS}",
        f"build\tRun tests\t2026-11-21T10:00:00.1234567Z {WORDS}",
        f"2026-11-21T10:00:00.123456Z 01E {WORDS}",
        f"2026-11-21T10:00:00.123456Z 00O+{WORDS}",
        f"\x1b_bk;t=1763719200000\x07{WORDS}",
        f"\x1b]8;;https://example.org\x1b\\{WORDS}\x1b]8;;\x1b\\",
        WORDS.replace(" ", "\x1b(B\x1b[m "),
        WORDS.replace(" ", "\u00a0"),
        WORDS.replace("r", "\u200br"),
        WORDS.replace("C", "C\x08C"),
        f"\ufeff{WORDS}",
        "\x02\0\0\0\0\0\0" + chr(len(WORDS)) + WORDS,
        f"#12 3.456 {WORDS}",
        f"[rank0]: {WORDS}",
        f"##[error]{WORDS}",
        f"> {WORDS}",
        f"`{WORDS}`",
        f"```{WORDS} ```",
        f"> > trainer-1 | [rank3]: {WORDS}\r",
        f"  {WORDS}  \r",
        WORDS.replace("", "\0"),
        json.dumps({"log": WORDS + "\n", "stream": "stderr", "time": "2026-11-21T10:00:00Z"}),
        json.dumps({"ts": 1.5, "level": "error", "msg": WORDS}),
        "trainer-1 | " + json.dumps({"message": f"\x1b[31m{WORDS}"}),
        json.dumps({"log": f"[rank0]: {WORDS}"}),
        json.dumps({"log": json.dumps({"msg": WORDS}) + "\n", "stream": "stderr"}),
        json.dumps({"MESSAGE": list(f"\x1b[31m{WORDS}".encode()), "PRIORITY": "3"}),
    ],
)
def test_what_tools_wrap_around_a_line_is_gone(line: str) -> None:
    assert said(line.encode()) == [WORDS]


@pytest.mark.parametrize("line", ["", "   ", "```", "```console", "\r", "\0\0", "\x1b[0m"])
def test_what_says_nothing_is_no_line(line: str) -> None:
    assert said(line.encode()) == []


def test_a_progress_bar_is_many_lines_and_a_record_as_many_as_it_holds() -> None:
    assert said(b" 1%|#\r 2%|##\rdone") == ["1%|#", "2%|##", "done"]
    assert said(json.dumps({"msg": "first\nsecond", "err": "third"}).encode()) == ["first", "second", "third"]


@pytest.mark.parametrize("line", ['{"a": 1}', "{not json}", "[1, 2]", '{"log": 5}', "{" * 3000 + "}"])
def test_what_is_no_record_of_a_logger_stays_as_it_is(line: str) -> None:
    assert said(line.encode())[0].startswith(line[:20])


def test_a_logger_before_the_words_is_no_host_and_no_program() -> None:
    assert said(b"2026-11-21 10:00:00,123 trainer RuntimeError: CUDA error") == ["trainer RuntimeError: CUDA error"]


def test_a_text_that_was_printed_as_a_literal_has_lines_again() -> None:
    assert said(rb"""b'first\nsecond "x"\r\nthird'""") == ["b'first", 'second "x"', "third'"]
    assert said(rb'"message": "a\\nselect driver \\\"\\\"\\nb"') == ['"message": "a', 'select driver ""', 'b"']
    assert said(rb'time="x" level=error msg="select driver \"\" with [[gpu]]"') == [
        'time="x" level=error msg="select driver "" with [[gpu]]"'
    ]
    assert said(rb'{"log": "a \u003c b \u0026 c", "cut') == ['{"log": "a < b & c", "cut']


def test_a_windows_path_is_no_line_end() -> None:
    line = r"cannot load C:\Windows\System32\nvml.dll nor C:\new\nccl.dll"
    assert said(line.encode()) == [line]


def test_what_a_web_page_has_escaped() -> None:
    assert said(b"cuda&gt;=12.1 &amp; &lt;none&gt; &quot;x&quot;&nbsp;y") == ['cuda>=12.1 & <none> "x" y']


def test_half_a_character_that_json_can_name_is_dropped() -> None:
    for line in said(rb'{"log": "\ud800 CUDA error: out of memory \udc00"}'):
        assert line.encode() == b"CUDA error: out of memory"


def test_other_encodings_are_read_as_well_as_can_be() -> None:
    assert said("Gerät fehlt: ñ ü ö ä ß é è à".encode("latin-1")) == ["Gerät fehlt: ñ ü ö ä ß é è à"]
    assert said("Gerät fehlt é".encode()[:-1]) == ["Gerät fehlt \ufffd"]


def test_a_long_line_comes_in_parts_that_overlap() -> None:
    text = "".join(f"{number:06d}" for number in range(2_000))
    parts = said(text.encode())
    assert max(map(len, parts)) == LINE_LIMIT
    assert all(text[place : place + 400] in "\n".join(parts) for place in range(0, len(text) - 400, 37))


def test_a_prompt_and_a_table_keep_what_they_say() -> None:
    assert said(b"| NVIDIA-SMI 535.129.03 | Driver Version: 535.129.03 |") == [
        "| NVIDIA-SMI 535.129.03 | Driver Version: 535.129.03 |"
    ]
    assert said(b">>> torch.cuda.is_available()") == ["torch.cuda.is_available()"]
