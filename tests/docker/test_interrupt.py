"""Runs that are stopped: by a person, by a workflow that is cancelled, by a kill, by an engine that goes away."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from container_bed import Bed, cause, read_results, wait_until

CELL = "cuda-matrix.cell"


def start_until_it_hangs(bed: Bed, config: Path, out: str) -> tuple[subprocess.Popen[str], str]:
    """Start a run, wait until its hanging container runs: the process and the container's id."""
    before = set(bed.containers(f"{CELL}=hang@cpu"))
    process = bed.start("run", "--config", config, "--out", out)

    def new_one() -> str | None:
        running = bed.docker("ps", "--quiet", "--no-trunc", "--filter", f"label={CELL}=hang@cpu").split()
        return next((each for each in running if each not in before), None)

    container = wait_until("the hanging container runs", new_one)
    return process, container


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interruption_leaves_no_container_and_a_valid_partial_result(bed: Bed, number: signal.Signals) -> None:
    config = bed.write_config(["bare", "hang", "python"])
    process, container = start_until_it_hangs(bed, config, "results")
    wait_until("matmul hangs", lambda: "hanging" in bed.docker("top", container, "-o", "pid,comm"))
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert bed.containers() == []
    assert "Traceback" not in stderr

    results = read_results(bed.work / "results")
    assert set(results) == {"bare@cpu", "hang@cpu"}
    assert cause(results["bare@cpu"]) == "python-missing"
    partial = results["hang@cpu"]
    assert partial["exit"]["interrupted"]
    assert partial["verdict"] == "inconclusive"
    assert {item["id"]: item["status"] for item in partial["checks"]} == {
        "torch.import": "pass",
        "first-kernel": "unknown",
    }

    table = bed.run("report", "results", "--format", "markdown").stdout
    assert "1 required cell did not run" in table


def test_what_a_killed_run_leaves_the_next_removes_but_not_a_living_runs(bed: Bed) -> None:
    config = bed.write_config(["hang"])
    killed, orphan = start_until_it_hangs(bed, config, "killed")
    living, wanted = start_until_it_hangs(bed, config, "living")
    assert set(bed.containers()) == {orphan, wanted}, "a second run leaves the first one's container alone"

    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert orphan in bed.containers()

    ended = bed.run("run", "--config", bed.write_config(["bare"]), "--out", "next")
    assert bed.containers() == [wanted]
    assert "removed 1 container" in ended.stderr

    living.send_signal(signal.SIGTERM)
    living.communicate(timeout=30)
    assert living.returncode == 130
    assert bed.containers() == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_engine_that_goes_away_is_exit_3_and_finished_results_stay(bare_engine: Bed, number: signal.Signals) -> None:
    # `bare` has no entrypoint of its own and ends by itself; the other one waits until somebody stops it.
    config = bare_engine.write_config(
        ["bare", "entrypoint-waits", "python"],
        container={"shm_size": "64m", "entrypoint": "image"},
    )
    process = bare_engine.start("run", "--config", config, "--out", "results")

    def second_container() -> str:
        if process.poll() is not None:
            pytest.fail("the run ended before its second container: " + "\n".join(process.communicate()))
        return bare_engine.docker("ps", "--quiet", "--filter", f"label={CELL}=entrypoint-waits@cpu")

    wait_until("the second container runs", second_container)
    pidfile = Path(bare_engine.docker_host.removeprefix("unix://")).with_name("docker.pid")
    dockerd = int(pidfile.read_text())
    os.kill(dockerd, number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 3, stderr
    assert "hint: " in stderr
    assert "Traceback" not in stderr
    wait_until("dockerd has ended", lambda: not _command_line(dockerd))  # it gives the container 10 s to stop
    results = read_results(bare_engine.work / "results")
    assert set(results) == {"bare@cpu"}
    assert cause(results["bare@cpu"]) == "python-missing"


def _command_line(pid: int) -> bytes:
    """Empty for a process that has ended, reaped or not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
