"""Who else may use the card: compute mode, MIG, MPS, foreign load."""

from __future__ import annotations

import json
import os

import pytest

from builders import item_row
from cuda_matrix.payload import checks_sharing
from cuda_matrix.protocol import payload_sources
from cuda_matrix.reference import load_reference
from fake_nvml import FakeNvml, compiled

HEALTHY = {
    "container.compute-mode": "pass",
    "container.mig": "pass",
    "container.mps": "pass",
    "container.foreign-load": "pass",
    "neighbour": "pass",
}
CHECKS = """
from .context import passed

def neighbour(context):
    return passed("fine")

def crash(context):
    import os
    os.abort()
"""
LIMITS = {"memory_used_mib": 500, "utilisation_percent": 5}


@pytest.fixture(scope="module")
def library_folder(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def fake(library_folder, tmp_path):
    return FakeNvml(library_folder, tmp_path)


@pytest.fixture
def sharing(deployed, fake, tmp_path):
    """Run the four checks, and a neighbour."""
    rows = {row["id"]: row for row in json.loads(payload_sources(load_reference())["items.json"])["items"]}

    def run(*lines, first=(), **variables):
        chosen = [*first, *(rows[name] for name in HEALTHY if name in rows)]
        deployed.items(*chosen, item_row("neighbour", "checks_stub:neighbour"), checks=CHECKS)
        return deployed.run(
            env={"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path / "no-mps"), **fake.set(*lines).environment, **variables}
        )

    return run


def statuses(run):
    return {name: status for name, status in run.statuses().items() if name in HEALTHY}


@pytest.mark.parametrize(
    ("lines", "check", "status", "cause"),
    [
        ([], "neighbour", "pass", None),
        (["compute_mode 2"], "container.compute-mode", "fail", "device-busy-exclusive"),
        (["compute_mode 3"], "container.compute-mode", "warn", None),
        (["compute_mode 1"], "container.compute-mode", "warn", None),
        (["compute_mode !3"], "container.compute-mode", "skip", None),
        (["mig 1"], "container.mig", "warn", None),
        (["mig_pending 1"], "container.mig", "warn", None),
        (["mig !3"], "container.mig", "skip", None),
        (["mig !999"], "container.mig", "unknown", None),
        (["mps 2"], "container.mps", "warn", None),
        (["memory_used 501"], "container.foreign-load", "warn", None),
        (["memory_used 500", "utilisation 5", "processes 1"], "container.foreign-load", "pass", None),
        (["utilisation 30"], "container.foreign-load", "warn", None),
        (["utilisation 100,0,0,0,0"], "container.foreign-load", "pass", None),  # one look is our own last process
        (["memory_total !3", "utilisation !3"], "container.foreign-load", "skip", None),
    ],
)
def test_each_state_is_seen_by_its_check_alone(sharing, lines, check, status, cause):
    run = sharing(*lines)
    assert statuses(run) == {**HEALTHY, check: status}
    assert run.end(check).get("cause") == cause


def test_mig_without_an_instance_fails(sharing):
    run = sharing("mig 1", CM_FAKE_CUINIT="100")
    assert statuses(run) == {**HEALTHY, "container.mig": "fail"}
    assert run.end("container.mig")["cause"] == "mig-config"


def test_the_pipe_of_mps_is_enough(sharing, tmp_path):
    directory = tmp_path / "mps"
    directory.mkdir()
    variables = {"CUDA_MPS_PIPE_DIRECTORY": str(directory), "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "25"}
    assert sharing(**variables).end("container.mps")["summary"] == "CUDA_MPS_ variables are set, and no MPS is at work"
    os.mkfifo(directory / "control")
    run = sharing(**variables)
    assert statuses(run) == {**HEALTHY, "container.mps": "warn"}
    assert "at most 25 % of the card" in run.end("container.mps")["summary"]


def test_only_the_cards_that_cuda_uses_are_judged(sharing):
    lines = ["count 2", "1.compute_mode 2", "1.mig 1", "1.mps 1", "1.memory_used 9000"]
    hidden = sharing(*lines, CM_FAKE_COUNT="2", CUDA_VISIBLE_DEVICES="0")
    assert statuses(hidden) == HEALTHY
    both = sharing(*lines, CM_FAKE_COUNT="2")
    assert both.end("container.foreign-load")["numbers"]["memory_used_mib"] == 9000
    seen = {name: status for name, status in statuses(both).items() if status != "pass"}
    assert seen == {
        "container.compute-mode": "fail",
        "container.mig": "warn",
        "container.mps": "warn",
        "container.foreign-load": "warn",
    }


def test_without_nvml_all_are_skipped_and_with_a_broken_one_unknown(sharing, tmp_path):
    names = [name for name in HEALTHY if name != "neighbour"]
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    absent = sharing(LD_LIBRARY_PATH=str(tmp_path))
    assert statuses(absent) == {**HEALTHY, **dict.fromkeys(names, "skip")}
    broken = sharing("init 18")
    assert statuses(broken) == {**HEALTHY, **dict.fromkeys(names, "unknown")}
    assert broken.end(names[0])["evidence"] == "Failed to initialize NVML: Driver/library version mismatch"
    assert statuses(sharing("count 0", CM_FAKE_COUNT="0")) == {**HEALTHY, **dict.fromkeys(names, "skip")}


def test_a_driver_that_killed_its_check_is_left_alone(sharing):
    run = sharing(first=[item_row("driver.init", "checks_stub:crash")])
    assert run.end("driver.init")["status"] == "crash"
    assert run.end("container.mig")["summary"] == "the driver did not answer (driver.init)"


def test_of_several_cards_the_fullest_counts():
    judge = checks_sharing.judge_foreign_load
    end = judge([4, None, 700], [0.0, 3.0, None], 0, {}, LIMITS)
    assert (end["status"], end["numbers"]["memory_used_mib"], end["numbers"]["utilisation_percent"]) == (
        "warn",
        700,
        3.0,
    )
    assert judge([None], [4.0], 0, {}, LIMITS)["status"] == "pass"
