"""The verb from the outside: any log in, words or one JSON object out."""

from __future__ import annotations

import gzip
import json
import os
import pty
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import make_result
from cuda_matrix.commands.diagnose import command
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.model import Verdict
from cuda_matrix.result import Exit

ERROR = "RuntimeError: CUDA error: no kernel image is available for execution on the device"
KEYS = [
    "cause",
    "confidence",
    "evidence",
    "fix",
    "source",
    "alternatives",
    "title",
    "side",
    "explanation",
    "where",
    "line",
]


def diagnosed(log: str | bytes, *arguments: str) -> dict[str, object]:
    result = CliRunner().invoke(command, [*arguments, "--json"], input=log, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert isinstance(document, dict)
    return document


MEASURED = """
import re, sys
from cuda_matrix.commands.diagnose import command
command(sys.argv[1:], standalone_mode=False)
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr)
"""


def process(*arguments: str, **options: object) -> subprocess.Popen[bytes]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([sys.executable, "-m", "cuda_matrix", "diagnose", *arguments], **pipes)  # type: ignore[call-overload,no-any-return]


def test_the_document_has_the_six_keys_first() -> None:
    document = diagnosed(f"epoch 1\n{ERROR}\n")
    assert list(document) == KEYS
    assert document["cause"] == "arch-no-kernel"
    assert document["evidence"] == ERROR
    assert document["line"] == 2
    assert isinstance(document["fix"], list)
    assert str(document["source"]).startswith("https://")


def test_words_for_a_reader() -> None:
    result = CliRunner().invoke(command, ["-"], input=f"one\ntwo\n{ERROR}\n")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("cause        arch-no-kernel: ")
    assert lines[1].startswith("confidence   sure (0.")
    assert lines[2] == f"evidence     line 3: {ERROR}"
    assert [line[:13].strip() for line in lines[3:6]] == ["meaning", "fix", ""]
    assert lines[4][13:].startswith("1. ")


def test_what_a_log_says_cannot_steer_the_terminal_or_the_job() -> None:
    log = f"\x1b]0;owned\x07::add-mask::x \u202e {ERROR}\x1b[2J ::error::y\n"
    result = CliRunner().invoke(command, [], input=log.encode())
    assert "\x1b" not in result.stdout
    assert "\u202e" not in result.stdout
    assert "::error::" not in result.stdout
    assert CliRunner().invoke(command, ["--json"], input=log.encode()).stdout.isascii()


def test_unknown_says_what_to_collect() -> None:
    result = CliRunner().invoke(command, [], input="FrobnicationError: the widget failed with code 0xdead\n")
    assert result.exit_code == 0
    assert result.stdout.startswith("cause        unknown: ")
    assert "\ncollect      1. " in result.stdout


def test_a_log_without_a_failure_is_one_line() -> None:
    result = CliRunner().invoke(command, [], input="step 1 loss 0.5\nstep 2 loss 0.4\nfinished\n")
    assert result.exit_code == 0
    assert result.stdout.startswith("cause        none: ")
    assert result.stdout.count("\n") == 1


@pytest.mark.parametrize(("log", "note"), [("", "the log is empty"), (" \n\n", "the log says nothing")])
def test_an_empty_log_is_no_good_news(log: str, note: str) -> None:
    result = CliRunner().invoke(command, ["--json"], input=log)
    assert json.loads(result.stdout)["cause"] == "unknown"
    assert note in result.stderr


def test_files_packed_and_plain(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(ERROR)
    (tmp_path / "a.log.gz").write_bytes(gzip.compress(ERROR.encode()))
    (tmp_path / "cut.gz").write_bytes(gzip.compress((ERROR + "\n").encode() * 9)[:-4])
    for name in ("a.log", "a.log.gz", "cut.gz"):
        result = CliRunner().invoke(command, [str(tmp_path / name), "--json"], catch_exceptions=False)
        assert json.loads(result.stdout)["cause"] == "arch-no-kernel"
        assert ("ends in the middle" in result.stderr) == (name == "cut.gz")


def test_a_context_alone_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "inspect.json"
    path.write_text(json.dumps([{"State": {"Status": "exited", "OOMKilled": True, "ExitCode": 137}}]))
    with process("--context", str(path), "--json", stdin=subprocess.DEVNULL) as child:
        out, err = child.communicate(timeout=60)
    document = json.loads(out)
    assert (document["cause"], document["where"], document["line"]) == ("host-oom-kill", "exit", None)
    assert err == b""


def test_a_result_file_is_diagnosed_again(tmp_path: Path) -> None:
    result = make_result("a@b", verdict=Verdict.FAIL, log=f"Traceback\n{ERROR}", exit=Exit(code=1))
    (tmp_path / "a@b.json").write_text(result.model_dump_json())
    with process("--context", str(tmp_path / "a@b.json"), "--json", stdin=subprocess.DEVNULL) as child:
        out, _ = child.communicate(timeout=60)
    assert json.loads(out)["cause"] == "arch-no-kernel"


def test_a_context_sharpens_what_the_log_says(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"gpu_requested": false, "docker": "docker run without --gpus"}')
    log = "RuntimeError: CUDA error: CUDA driver version is insufficient for CUDA runtime version\n"
    assert diagnosed(log)["cause"] != "gpu-not-exposed"
    assert diagnosed(log, "--context", str(path))["cause"] == "gpu-not-exposed"


def test_a_context_from_standard_input(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(f"{ERROR}\n")
    inspected = json.dumps([{"State": {"Status": "exited", "OOMKilled": True, "ExitCode": 137}}])
    assert diagnosed(inspected, "--context", "-")["cause"] == "host-oom-kill"
    assert diagnosed(inspected, str(tmp_path / "a.log"), "--context", "-")["line"] == 1
    result = CliRunner().invoke(command, ["-", "--context", "-"], input=inspected)
    assert result.exit_code == 2
    assert "cannot both be standard input" in result.stderr


def test_a_context_without_an_end_is_refused() -> None:
    result = CliRunner().invoke(command, ["--context", "/dev/zero"], input="x")
    assert isinstance(result.exception, ConfigurationError)
    assert "larger than 8 MiB" in str(result.exception.problems[0])


@pytest.mark.parametrize("context", [{"driver": "535.129.03"}, {"gpus": ["RTX 4090"]}, {"facts": {}}])
def test_a_context_that_tells_of_no_end_is_no_good_news(context: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(context))
    assert diagnosed("", "--context", str(tmp_path / "c.json"))["cause"] == "unknown"


def test_bytes_that_are_no_text_are_no_good_news() -> None:
    result = CliRunner().invoke(command, ["--json"], input=random.Random(5).randbytes(30_000))
    assert json.loads(result.stdout)["cause"] == "unknown"
    assert "hardly a text" in result.stderr


def test_an_archive_is_refused() -> None:
    result = CliRunner().invoke(command, [], input=b"PK\x03\x04" + bytes(100))
    assert isinstance(result.exception, ConfigurationError)


def test_a_pipe_that_never_ends_is_read_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cuda_matrix.commands.diagnose._STREAM_LIMIT_BYTES", 3 << 20)
    result = CliRunner().invoke(command, ["/dev/zero", "--json"])
    assert json.loads(result.stdout)["cause"] == "unknown"
    assert "only the first 3 MiB were read" in result.stderr


def test_a_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with process(str(tmp_path / "pipe"), "--json") as child:
        (tmp_path / "pipe").write_text(f"one\n{ERROR}\n")  # waits for the reader
        out, _ = child.communicate(timeout=60)
    assert json.loads(out)["line"] == 2


@pytest.mark.parametrize("words", ["\\ud800 CUDA error: out of memory", "CUDA \\udfff error: out of memory \\udc00"])
def test_half_a_character_breaks_nothing(words: str, tmp_path: Path) -> None:
    record = f'{{"log": "{words}"}}'
    (tmp_path / "c.json").write_text(record)
    for document in (diagnosed(record), diagnosed("", "--context", str(tmp_path / "c.json"))):
        assert document["fix"]
        str(document["evidence"]).encode("utf-8", "strict")


def test_a_wrong_context_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"exit_code": "x"}')
    result = CliRunner().invoke(command, ["--context", str(path)], input="x")
    assert isinstance(result.exception, ConfigurationError)
    assert f"{path}:1:15: exit_code" in str(result.exception.problems[0])


@pytest.mark.parametrize(("name", "words"), [("missing.log", "No such file"), (".", "Is a directory")])
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str, words: str) -> None:
    with process(str(tmp_path / name)) as child:
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (2, b"")
    assert words in err.decode()
    assert "hint: " in err.decode()


def test_a_terminal_without_input_gets_told_how() -> None:
    leader, follower = pty.openpty()
    try:
        with process(stdin=follower) as child:
            out, err = child.communicate(timeout=60)
    finally:
        os.close(leader)
        os.close(follower)
    assert (child.returncode, out) == (2, b"")
    assert "docker logs NAME 2>&1 | cuda-matrix diagnose" in err.decode()


def test_no_standard_input_at_all() -> None:
    with process(stdin=None, preexec_fn=lambda: os.close(0)) as child:
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (2, b"")
    assert "there is no log" in err.decode()


def test_ctrl_c_while_it_waits_for_input() -> None:
    with process() as child:
        assert child.stdin is not None
        child.stdin.write(b"one line\n")
        child.stdin.flush()
        time.sleep(3)
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=60) == 130
        assert child.stderr is not None
        said = child.stderr.read().decode()
    assert "interrupted" in said
    assert "Traceback" not in said


def test_a_reader_that_has_gone() -> None:
    read, write = os.pipe()
    os.close(read)
    with process(stdout=write) as child:
        _, err = child.communicate(ERROR.encode(), timeout=60)
    os.close(write)
    assert child.returncode == 141
    assert b"Traceback" not in err


def test_a_log_of_any_size_takes_little_memory_and_time_in_proportion() -> None:
    """200 MB and half of it; the processor's time is bounded generously, for a machine that has more to do."""
    line = "2026-11-21 12:00:00 INFO step %07d loss 0.9990 lr 1.0e-04 throughput 812.3 img/s nvidia decoder status ok\n"
    block = "".join(line % number for number in range(10_000)).encode()
    seconds = []
    for blocks in (94, 188):
        # Not the system's ru_maxrss: it begins with the memory of the process that started this one.
        with subprocess.Popen(
            [sys.executable, "-c", MEASURED, "--json"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            assert child.stderr is not None
            for index in range(blocks):
                child.stdin.write(f"{ERROR}\n".encode() + block if index == blocks // 2 else block)
            child.stdin.close()
            document = json.loads(child.stdout.read())
            peak_kib = int(child.stderr.read().split()[-1])
            _, _, usage = os.wait4(child.pid, 0)
            child.returncode = 0
        assert document["line"] == blocks // 2 * 10_000 + 1
        assert document["evidence"] == ERROR
        assert peak_kib < 200_000
        seconds.append(usage.ru_utime + usage.ru_stime)
    assert len(block) * 188 > 200e6
    assert seconds[1] < 12
    assert seconds[1] < 2.5 * seconds[0]


@settings(max_examples=40, database=None, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=2_000), st.text(max_size=1_000).map(lambda text: text.encode("utf-8", "replace"))))
def test_any_input_gives_a_diagnosis(log: bytes) -> None:
    try:
        document = diagnosed(log)
    except ConfigurationError:  # an archive or a picture
        return
    assert list(document) == KEYS
    assert document["fix"]
