"""The entrypoint of `init --entrypoint` as it is, in real containers: as PID 1, before real commands."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from container_bed import Bed
from cuda_matrix.reference import load_reference
from cuda_matrix.starter import write_entrypoint

# A root of its own inside the container, so that /proc shows a driver: dash, what it loads, and the machine's files.
CHROOT = """
set -e
mkdir -p /fake/proc/driver/nvidia /fake/dev /fake/usr/bin /fake/usr/lib/x86_64-linux-gnu
for path in lib lib64 bin; do ln -s usr/$path /fake/$path; done
cp --parents /usr/bin/dash /usr/lib/x86_64-linux-gnu/libc.so.6 /usr/lib64/ld-linux-x86-64.so.2 /fake
ln -s dash /fake/usr/bin/sh
cp --dereference /usr/lib64/ld-linux-x86-64.so.2 /fake/usr/lib64/
cp /entrypoint.sh /fake/entrypoint.sh
touch /fake/dev/nvidia0 /fake/dev/null /fake/usr/lib/x86_64-linux-gnu/libcuda.so.1 /fake/usr/bin/nvidia-smi
chmod 755 /fake/usr/bin/nvidia-smi
echo "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.129.06  Thu May 12 22:52:02 UTC 2022" \
    >/fake/proc/driver/nvidia/version
mkdir -p /fake/usr/local/lib/python3.11/dist-packages/torch
printf "__version__ = '2.4.1+cu121'\\ncuda: Optional[str] = '12.1'\\n" \
    >/fake/usr/local/lib/python3.11/dist-packages/torch/version.py
exec chroot /fake /entrypoint.sh sh -c 'echo "became $$ with $1"' - "two words"
"""

Start = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def start(bed: Bed, tmp_path: Path) -> Start:
    """`start(image, options, command…)`: a container whose entrypoint is ours; both of its streams."""
    script = write_entrypoint(tmp_path, load_reference().drivers)
    tmp_path.chmod(0o755)

    def run(image: str, options: tuple[str, ...] = (), *command: str) -> subprocess.CompletedProcess[str]:
        ours = ["--volume", f"{script}:/entrypoint.sh:ro", "--entrypoint", "/entrypoint.sh", "--network", "none"]
        return subprocess.run(
            [
                "docker",
                "run",
                "--rm",
                "--label",
                "cuda-matrix.run=self-check",
                *ours,
                *options,
                bed.ref(image),
                *command,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


def test_a_container_without_a_gpu(start: Start) -> None:
    done = start("bare", (), "sh", "-c", 'echo "$$ $#"; exit 7', "-", "", "a  b", "*")
    assert (done.returncode, done.stdout) == (7, "1 3\n")
    assert "gpu-check: no GPU in this container: nvidia-smi and /dev/nvidia0 missing" in done.stderr
    assert "docker run --gpus all" in done.stderr


def test_a_container_with_the_simulated_gpu(start: Start) -> None:
    """nvidia-smi and libcuda come from the hook; torch is Debian's, for the CPU. A device file cannot be simulated."""
    gpu = ("--gpus", "all", "--env", "NVIDIA_VISIBLE_DEVICES=all", "--device", "/dev/null:/dev/nvidia0")
    done = start("torch113", gpu, "true")
    assert done.returncode == 0
    found, problem, _ = done.stderr.splitlines()
    assert found.startswith("gpu-check: torch 1.13.")
    assert found.endswith("no CUDA build; host driver unknown; 1 GPU")
    assert "is no CUDA build" in problem


@pytest.mark.parametrize(
    "options",
    [
        ("--read-only",),
        ("--user", "65534:65534"),
        ("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only", "--user", "1000"),
        ("--env", "CUDA_MATRIX_SELF_CHECK=off"),
    ],
    ids=" ".join,
)
def test_no_circumstance_stops_a_start(start: Start, options: tuple[str, ...]) -> None:
    done = start("python", options, "python3", "-c", "import sys; print(sys.argv[1:])", "a b", "")
    assert (done.returncode, done.stdout) == (0, "['a b', '']\n")
    assert ("gpu-check" in done.stderr) == ("CUDA_MATRIX_SELF_CHECK=off" not in options)


def test_an_image_without_a_command_gets_a_shell(start: Start) -> None:
    """`--entrypoint` drops the image's CMD, as ENTRYPOINT in a Dockerfile does."""
    done = start("bare")
    assert done.returncode == 0
    assert "gpu-check: no command given, starting /bin/bash" in done.stderr


def test_a_host_whose_driver_is_too_old(start: Start) -> None:
    done = start("bare", ("--entrypoint", "/bin/sh"), "-c", CHROOT)
    assert done.stdout.endswith(" with two words\n"), done.stderr
    assert "gpu-check: torch 2.4.1+cu121, CUDA 12.1; host driver 470.129.06; 1 GPU" in done.stderr
    assert "CUDA 12.1 needs driver 525.60.13 or newer, the host has 470.129.06" in done.stderr
    assert "an image built for CUDA 11.x" in done.stderr


def test_docker_stop_reaches_the_command(bed: Bed, tmp_path: Path) -> None:
    script = write_entrypoint(tmp_path, load_reference().drivers)
    tmp_path.chmod(0o755)
    name = bed.docker(
        "run", "--detach", "--label", "cuda-matrix.run=self-check", "--network", "none",
        "--volume", f"{script}:/entrypoint.sh:ro", "--entrypoint", "/entrypoint.sh",
        bed.ref("bare"), "sh", "-c", "trap 'echo stopped; exit 3' TERM; echo ready; while :; do sleep 0.1; done",
    )  # fmt: skip
    try:
        while "ready" not in bed.docker("logs", name):
            time.sleep(0.1)
        begin = time.monotonic()
        bed.docker("stop", "--time", "30", name)
        assert time.monotonic() - begin < 15
        assert bed.docker("inspect", "--format", "{{.State.ExitCode}}", name) == "3"
        assert "stopped" in bed.docker("logs", name)
    finally:
        bed.docker("rm", "--force", name)
