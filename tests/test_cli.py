"""Errors become words once, and the exit code that README.md promises."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cuda_matrix.cli import VERBS

GOOD = """
version: 1
images: [{id: a, ref: "example.org/a:1"}]
runners: {r: {labels: [x]}}
"""


def cuda_matrix(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GITHUB_ACTIONS": "", "DOCKER_HOST": "unix:///nowhere/docker.sock", **environ}
    command = [sys.executable, "-m", "cuda_matrix", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_help_lists_every_verb(tmp_path: Path) -> None:
    done = cuda_matrix("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert all(f"  {verb} " in done.stdout and text in done.stdout for verb, text in VERBS.items())


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(tmp_path: Path, verb: str) -> None:
    done = cuda_matrix(verb, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: cuda-matrix {verb}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["paln"], "No such command 'paln'. Did you mean 'plan'?"),
        (["run", "--engine", "local", "--out", "cuda-matrix.yml"], "cuda-matrix.yml: File exists"),
        (["run", "--engine", "local", "--out", "/proc/nowhere"], "/proc/nowhere"),
        (["demo", "--out", "/proc/nowhere"], "/proc/nowhere"),
        (["run", "--engine", "simulated"], "no host for the runner 'r'"),
        (["plan", "--max-jobs", "257"], "257"),
        (["run", "--engine", "podman"], "podman"),
        (["run", "--python", "python3"], "--python goes with --engine local"),
        (["run", "--lane", "7"], "lane 7 has no cell"),
        (["run", "--engine", "simulated", "--scenario", "missing.yml"], "missing.yml"),
        (["run", "--plan", "missing.json"], "missing.json"),
        (["report", "nothing-here"], "plan.json"),
        (["gate", "nothing-here"], "plan.json"),
        (["plan", "--select", "nothing*", "--offline"], "nothing*"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "cuda-matrix.yml").write_text(GOOD)
    done = cuda_matrix(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [["plan", "--max-jobs", "##[error]x"], ["run", "--engine", "::add-mask::x"]])
def test_wrong_usage_commands_no_runner(tmp_path: Path, arguments: list[str]) -> None:
    told = cuda_matrix(*arguments, cwd=tmp_path).stderr
    assert "##[" not in told
    assert "::add-mask" not in told


def test_problems_are_printed_with_their_place_and_again_for_github(tmp_path: Path) -> None:
    (tmp_path / "cuda-matrix.yml").write_text(GOOD.replace("labels", "lables"))
    plain = cuda_matrix("validate", cwd=tmp_path)
    assert plain.returncode == 2
    assert "cuda-matrix.yml:4:15: runners.r" in plain.stderr
    assert "did you mean 'labels'?" in plain.stderr
    assert "::error" not in plain.stderr
    on_github = cuda_matrix("validate", cwd=tmp_path, GITHUB_ACTIONS="true")
    assert "::error file=cuda-matrix.yml,line=4,col=15::runners.r" in on_github.stderr


@pytest.mark.parametrize(
    ("verb", "out_of_reach"),
    [("run", "unix:///nowhere/docker.sock"), ("plan", "no registry answers: localhost:1/a:1: ")],
)
def test_docker_or_registry_out_of_reach_ends_with_3_and_a_way_out(
    verb: str, out_of_reach: str, tmp_path: Path
) -> None:
    (tmp_path / "cuda-matrix.yml").write_text(GOOD.replace("example.org", "localhost:1"))
    done = cuda_matrix(verb, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert out_of_reach in done.stderr
    assert "hint:" in done.stderr


def test_the_reader_may_close_the_pipe(tmp_path: Path) -> None:
    (tmp_path / "cuda-matrix.yml").write_text(GOOD)
    command = f"{sys.executable} -m cuda_matrix schema config | head -c 10"
    shell = ["/bin/bash", "-o", "pipefail", "-c", command]
    done = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    assert done.returncode in {0, 141}  # 141: it noticed that nobody reads any more


def test_a_gate_that_nobody_reads_is_not_good(tmp_path: Path) -> None:
    (tmp_path / "cuda-matrix.yml").write_text(GOOD)
    with (tmp_path / "closed").open("w") as closed:
        read, write = os.pipe()
        os.close(read)
        command = [sys.executable, "-m", "cuda_matrix", "schema", "config"]
        done = subprocess.run(command, cwd=tmp_path, stdout=write, stderr=closed, check=False, timeout=60)
        os.close(write)
    assert done.returncode == 141


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_with_130_and_keeps_a_valid_partial_result(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "cuda-matrix.yml").write_text(GOOD)
    sleeper = tmp_path / "python3"
    sleeper.write_text("#!/bin/sh\nexec sleep 600\n")
    sleeper.chmod(0o755)
    command = [sys.executable, "-m", "cuda_matrix", "run", "--engine", "local", "--python", str(sleeper)]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 30
        while not (tmp_path / "results/plan.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    report = cuda_matrix("gate", "results", cwd=tmp_path)
    assert report.returncode == 1
    assert "a@r" in report.stdout
    assert '"verdict": "inconclusive"' in (tmp_path / "results/a@r.json").read_text()


def test_a_bug_of_ours_ends_with_4_and_a_report_to_paste(tmp_path: Path) -> None:
    (tmp_path / "cuda-matrix.yml").write_text(GOOD)
    script = (
        "import sys, cuda_matrix.commands.schema as verb\n"
        "def broken(**_): raise ZeroDivisionError('by token=hunter2')\n"
        "verb.command.callback = broken\n"
        "from cuda_matrix.cli import run\n"
        "sys.exit(run(['schema', 'config']))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    path = Path(done.stderr.split("please paste ")[1].split(" into")[0])
    text = path.read_text()
    path.unlink()
    assert "ZeroDivisionError" in text
    assert "hunter2" not in text
