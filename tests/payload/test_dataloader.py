"""The DataLoader: items that are lost, doubled or damaged, workers that die, and a /dev/shm that is too small."""

from __future__ import annotations

import shutil
import subprocess
from textwrap import indent

import pytest

from cuda_matrix.payload import checks_dataloader

GOOD = {"torch.import": "pass", "dataloader": "pass"}


@pytest.fixture
def loader(deployed, real_torch):
    """A function that runs the check after some lines have broken torch, with a command before the payload's own."""

    def run(lines="", before=(), **request):
        deployed.use(real_torch)
        if lines:
            deployed.mutate("def mutate(torch):\n" + indent(lines.strip() + "\n", "    "))
        command = [*before, *deployed.command()]
        return deployed.run(
            command, checks=("dataloader",), benchmarks=(), profile="standard", limit_s=110.0, **request
        )

    return run


def test_every_item_arrives_with_every_setting(loader):
    run = loader()
    assert run.statuses() == GOOD
    numbers = run.end("dataloader")["numbers"]
    assert numbers["batch_mb"] > 64
    rates = {name: numbers[f"{name}.items_per_s"] for name in checks_dataloader.SETTINGS}
    assert f"the fastest here: {max(rates, key=rates.get)}" in run.end("dataloader")["summary"]


# `fetch` in torch/utils/data/_utils/fetch.py makes each batch of a list of indices.
FETCH = """
import torch.utils.data._utils.fetch as fetch
true = fetch._MapDatasetFetcher.fetch
def broken(self, indices):
    LINE
fetch._MapDatasetFetcher.fetch = broken
"""


@pytest.mark.parametrize(
    ("line", "evidence"),
    [
        ("return true(self, indices[:-1] if 89 in indices else indices)", "1 items lost (the first: 89)"),
        ("return true(self, [*indices, 3] if 3 in indices else indices)", "1 items doubled (the first: 3)"),
        ("batch = true(self, indices); batch[-1, -1] = 0; return batch", "items damaged (the first: 17)"),
    ],
    ids=["drops", "doubles", "damages"],
)
def test_items_that_do_not_arrive_once_and_whole(loader, line, evidence):
    end = loader(FETCH.replace("LINE", line)).end("dataloader")
    assert end["status"] == "fail"
    assert evidence in end["evidence"]
    assert "cause" not in end


def test_a_worker_that_is_killed_is_told(loader):
    kill = (
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL) if 40 in indices else None; return true(self, indices)"
    )
    end = loader(FETCH.replace("LINE", kill)).end("dataloader")
    assert (end["status"], end["cause"]) == ("fail", "host-oom-kill")
    assert "a worker was killed" in end["summary"]


def test_docker_s_own_shared_memory_is_too_small(loader):
    mount = ["unshare", "--mount", "--map-root-user"]
    tmpfs = "mount -t tmpfs -o size=64m tmpfs /dev/shm"
    tried = shutil.which("unshare") and subprocess.run([*mount, "sh", "-c", tmpfs], capture_output=True, check=False)
    if not tried or tried.returncode:
        pytest.skip("this machine allows no mount namespace")
    run = loader(before=[*mount, "sh", "-c", f'{tmpfs} && exec "$@"', "-"])
    end = run.end("dataloader")
    assert (end["status"], end["cause"]) == ("fail", "shm-too-small")
    assert "67.1 MB were free in /dev/shm" in end["summary"]
    assert "bus error" in end["evidence"].lower()


@pytest.mark.parametrize(
    ("words", "meaning", "cause"),
    [
        (
            "RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error. It is",
            "shared memory",
            "shm-too-small",
        ),
        ("ERROR: Unexpected bus error encountered in worker. This might be", "shared memory", "shm-too-small"),
        ("RuntimeError: unable to write to file </torch_7_1>: No space left on device (28)", None, None),
        ("unable to allocate shared memory(shm) for file </torch_7>: No space left", "shared memory", "shm-too-small"),
        ("RuntimeError: DataLoader worker (pid 7) is killed by signal: Killed.", "killed", "host-oom-kill"),
        ("RuntimeError: DataLoader worker (pid(s) 7) exited unexpectedly", "died", None),
        ("RuntimeError: DataLoader timed out after 20 seconds", "hangs", None),
        ("RuntimeError: received 0 items of ancdata", "open files", None),
        ("TypeError: an integer is required", None, None),
    ],
)
def test_what_a_dead_worker_means(words, meaning, cause):
    said, line, found = checks_dataloader.blame("first line\n" + words + "\nlast line")
    assert found == cause
    assert said is None if meaning is None else meaning in said
    assert line == ("" if meaning is None else words)
