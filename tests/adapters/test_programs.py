"""Asking programs that behave well and badly."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from cuda_matrix.adapters.looks import look
from cuda_matrix.adapters.programs import Programs
from host_machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_an_answer_has_its_words_and_its_code(machine: Machine) -> None:
    machine.program("tool", 'echo "out $*"; echo err >&2; exit 3')
    answer = machine.programs().ask("tool", "a b", "c")
    assert (answer.code, answer.out, answer.err, answer.why) == (3, "out a b c\n", "err\n", "")
    assert not answer.good
    assert answer.trouble == "tool (exit code 3): err"


def test_a_program_that_is_not_there_says_so(machine: Machine) -> None:
    answer = machine.programs().ask("tool")
    assert answer.path is None
    assert answer.trouble == "there is no tool on this machine's PATH"


def test_a_program_that_cannot_be_started_says_so(machine: Machine) -> None:
    path = machine.bin / "tool"
    path.write_text("#!/nowhere/interpreter\n")
    path.chmod(0o755)
    assert "No such file" in machine.programs().ask("tool").trouble


def test_a_hanging_program_is_left_and_its_children_with_it(machine: Machine, tmp_path: Path) -> None:
    machine.program("tool", f"sleep 600 & echo $! > {tmp_path}/child; echo begun; sleep 600")
    begin = time.monotonic()
    answer = machine.programs(limit_s=0.5).ask("tool")
    assert time.monotonic() - begin < 3
    assert answer.out == "begun\n"
    assert answer.trouble == "tool: no answer within 0 s"
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 3
    while (state := Path(f"/proc/{child}/stat")).exists() and state.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_grandchild_that_keeps_the_pipe_open_holds_nobody_up(machine: Machine) -> None:
    machine.program("tool", "sleep 600 &\necho done")
    begin = time.monotonic()
    answer = machine.programs(limit_s=0.5).ask("tool")
    assert time.monotonic() - begin < 3
    assert answer.out == "done\n"


def test_a_flood_is_cut(machine: Machine) -> None:
    machine.program("tool", "yes")
    answer = Programs(str(machine.bin), machine.environ, 10.0, limit_bytes=1 << 20).ask("tool")
    assert answer.trouble == "tool: it says more than 1 MiB"
    assert len(answer.out) < 3 << 20


def test_a_program_speaks_english_and_reads_nothing(machine: Machine) -> None:
    machine.program("tool", 'echo "$LC_ALL"; cat')
    assert machine.programs().ask("tool").out == "C\n"


def test_looks_run_beside_each_other_and_within_one_limit() -> None:
    begin = time.monotonic()
    found = look(
        {
            "quick": lambda: {"a": 1},
            "stuck": lambda: time.sleep(30) or {"b": 1},  # type: ignore[func-returns-value]
            "refused": lambda: {"c": os.listdir("/proc/self/fd/nowhere")},  # noqa: PTH208
        },
        {"stuck": lambda why: {"b_why": why}, "refused": lambda why: {"c_why": why}},
        limit_s=0.3,
    )
    assert time.monotonic() - begin < 2
    assert found["a"] == 1
    assert found["b_why"] == "stuck: no answer within 0 s"
    assert "No such file" in str(found["c_why"])


def test_a_bug_in_a_look_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        look({"bad": lambda: {"a": 1 // 0}}, {"bad": lambda why: {"a": why}}, limit_s=5)
