"""tools/installing.sh: what a newcomer reads when the packages cannot be installed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "tools/installing.sh"
# As pip 24 prints them (shortened).
OFFLINE = """\
WARNING: Retrying (Retry(total=4, connect=None)) after connection broken by 'NewConnectionError(\
'<HTTPSConnection object>: Failed to establish a new connection: [Errno -3] Temporary failure in name resolution')'
ERROR: Could not find a version that satisfies the requirement annotated-types==0.8.0 (from versions: none)
ERROR: No matching distribution found for annotated-types==0.8.0
"""
NOT_THERE = "ERROR: No matching distribution found for annotated-types==99\n"


def pip(folder: Path, body: str) -> list[str]:
    program = folder / "pip"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return ["sh", str(SCRIPT), str(program), "install"]


def ended(command: list[str]) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("said", "code", "told"),
    [
        (
            OFFLINE,
            1,
            (
                "make: no package index answers (Temporary failure in name resolution): "
                "the packages need a network once, or PIP_INDEX_URL names a mirror\n"
            ),
        ),
        (NOT_THERE, 1, NOT_THERE),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES\n", 3, "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES\n"),
        ("WARNING: a word\n", 0, "WARNING: a word\n"),
        ("", 0, ""),
    ],
)
def test_what_is_said(tmp_path: Path, said: str, code: int, told: str) -> None:
    assert ended(pip(tmp_path, f"cat >&2 <<'END'\n{said}END\nexit {code}")) == (code, told)


def test_an_interrupt_is_one_line_without_pip_s_traceback(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    body = f"trap 'echo Traceback >&2; exit 2' INT\n: > {ready}\nwhile :; do sleep 0.05; done"
    # A shell's background job ignores Ctrl-C, and so do its children: this one must not, wherever the tests run.
    with subprocess.Popen(
        pip(tmp_path, body),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no thread here
    ) as process:
        deadline = time.monotonic() + 20
        while not ready.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        _, told = process.communicate(timeout=20)
    assert (process.returncode, told) == (130, "make: interrupted while installing; run it again\n")


def test_the_makefile_installs_through_it() -> None:
    makefile = (SCRIPT.parent.parent / "Makefile").read_text(encoding="utf-8")
    steps = [line for line in makefile.splitlines() if "pip install" in line or "-m venv" in line]
    assert len(steps) == 3
    assert all("sh tools/installing.sh $(" in line for line in steps)
