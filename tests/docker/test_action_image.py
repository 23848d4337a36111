"""A runner without Python: the action's scripts, the image of our Dockerfile, and cells on the test bed's engine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from container_bed import Bed, read_results, wait_until

ROOT = Path(__file__).parents[2]
IMAGE = "cm-test/cuda-matrix"
# python:3.13-slim is not to be had everywhere; the Dockerfile takes any base with a python3 that has venv. The CA file
# is this machine's: it may stand behind a proxy.
BASE = """
FROM cm-base:trixie
RUN apt-get -qq update && apt-get -qq -y install --no-install-recommends python3-venv ca-certificates >/dev/null
COPY ca.crt /etc/ssl/certs/ca-certificates.crt
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt
"""


@pytest.fixture(scope="module")
def image(engine: Bed, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("base")
    (folder / "Dockerfile").write_text(BASE)
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", folder / "ca.crt")
    environ = {**os.environ, "DOCKER_HOST": engine.docker_host, "DOCKER_BUILDKIT": "0"}
    for arguments in (
        ["--tag", f"{IMAGE}-base", str(folder)],
        ["--tag", IMAGE, "--build-arg", f"BASE={IMAGE}-base", str(ROOT)],
    ):
        command = ["docker", "build", "--quiet", "--network", "host", *arguments]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=280)
        assert done.returncode == 0, done.stdout + done.stderr
    return IMAGE


def start(bed: Bed, image: str, *arguments: str, **inputs: str) -> subprocess.Popen[str]:
    """main.sh as action.yml calls it where install.sh found no Python."""
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(bed.work),
        "DOCKER_HOST": bed.docker_host,
        "GITHUB_OUTPUT": str(bed.work / "output"),
        "GITHUB_WORKSPACE": str(bed.work),
        "CUDA_MATRIX_IMAGE": image,
        "INPUT_PLAN": "results/plan.json",
        "INPUT_RESULTS": "results",
        "INPUT_REPORT": "report",
        "INPUT_OFFLINE": "true",
        **{f"INPUT_{name.upper()}": value for name, value in inputs.items()},
    }
    command = ["bash", str(ROOT / "action/main.sh"), *arguments]
    process = subprocess.Popen(
        command, cwd=bed.work, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    bed.started.append(process)
    return process


def run(bed: Bed, image: str, *arguments: str, **inputs: str) -> tuple[int, str]:
    process = start(bed, image, *arguments, **inputs)
    text, _ = process.communicate(timeout=200)
    return process.returncode, text


def test_plan_run_report_from_the_image(bed: Bed, image: str) -> None:
    config = bed.write_config(["torch26"])
    for arguments, mode in ((["plan"], "plan"), ([], "run"), ([], "report")):
        given = {"config": str(config)} if mode == "plan" else {}
        code, text = run(bed, image, *arguments, mode=mode, **given)
        assert code == 0, text
    assert {cell: one["verdict"] for cell, one in read_results(bed.work / "results").items()} == {"torch26@cpu": "pass"}
    assert (bed.work / "report/report.md").stat().st_uid == os.getuid()
    assert "verdict<<" in (bed.work / "output").read_text()


def test_a_cancelled_step_ends_the_cell_and_both_containers(bed: Bed, image: str) -> None:
    code, text = run(bed, image, "plan", mode="plan", config=str(bed.write_config(["hang"])))
    assert code == 0, text
    process = start(bed, image, mode="run")
    wait_until("the cell runs", lambda: bed.containers("cuda-matrix.cell=hang@cpu"))
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert bed.containers() == []
    assert bed.docker("ps", "--quiet", "--filter", f"ancestor={image}") == ""
    assert read_results(bed.work / "results")["hang@cpu"]["exit"]["interrupted"]


def test_a_living_run_in_the_image_is_left_alone_by_the_next(bed: Bed, image: str) -> None:
    """Its process has another number inside than outside, and must still be found."""
    run(bed, image, "plan", mode="plan", config=str(bed.write_config(["hang"])))
    living = start(bed, image, mode="run")
    [container] = wait_until("the cell runs", lambda: bed.containers("cuda-matrix.cell=hang@cpu"))
    bed.run("run", "--config", bed.write_config(["bare"]), "--out", "next")
    assert bed.containers() == [container]
    living.send_signal(signal.SIGTERM)
    living.communicate(timeout=60)
    assert bed.containers() == []
