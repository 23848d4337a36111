"""Step 1 of the diagnosis: what nvidia-smi answers, refuses or withholds."""

from __future__ import annotations

import hashlib

import pytest

from cuda_matrix.payload import checks_host, nvidia

OK = """#!/bin/sh
case $1 in *compute_cap*) ;; *) exit 9 ;; esac
echo '0, NVIDIA GeForce RTX 3090, GPU-11111111-2222-3333-4444-555555555555, 24576, 8.6, 550.54.15'
echo '1, NVIDIA GeForce RTX 3090, GPU-99999999-2222-3333-4444-555555555555, [N/A], [N/A], 550.54.15'
"""
TOO_OLD = """#!/bin/sh
case $1 in *compute_cap*) echo 'Field "compute_cap" is not a valid field to query.'; exit 2 ;; esac
echo '0, A800-SXM4-80GB, GPU-11111111-2222-3333-4444-555555555555, 81251, 470.129.06'
"""
NO_DRIVER = """#!/bin/sh
echo "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that it runs." >&2
exit 9
"""
MISMATCH = """#!/bin/sh
echo 'Failed to initialize NVML: Driver/library version mismatch'
exit 18
"""
HANG = "#!/bin/sh\nsleep 600\n"


def driver(deployed, script, gpu_required=True):
    deployed.executable("nvidia-smi", script)
    return deployed.run(checks=("host.driver",), benchmarks=(), gpu_required=gpu_required)


def test_cards_become_facts_and_uuids_are_hashed(deployed):
    run = driver(deployed, OK)
    assert run.end("host.driver")["status"] == "pass"
    facts = run.facts()
    assert facts["nvidia_smi"] == "ok"
    assert facts["driver"] == "550.54.15"
    first, second = facts["gpus"]
    assert first == {
        "index": 0,
        "name": "NVIDIA GeForce RTX 3090",
        "uuid_hash": hashlib.sha256(b"GPU-11111111-2222-3333-4444-555555555555").hexdigest()[:16],
        "memory_mib": 24576,
        "compute_capability": "8.6",
    }
    assert (second["memory_mib"], second["compute_capability"]) == (None, None)
    assert b"GPU-1111" not in run.stdout


def test_a_driver_that_does_not_know_compute_cap_is_asked_without_it(deployed):
    run = driver(deployed, TOO_OLD)
    assert run.end("host.driver")["status"] == "pass"
    assert run.facts()["driver"] == "470.129.06"
    assert run.facts()["gpus"][0]["compute_capability"] is None


@pytest.mark.parametrize(
    ("script", "evidence"), [(NO_DRIVER, "couldn't communicate with the NVIDIA driver"), (MISMATCH, "version mismatch")]
)
@pytest.mark.parametrize(("gpu_required", "status"), [(True, "fail"), (False, "warn")])
def test_what_nvidia_smi_says_is_the_evidence(deployed, script, evidence, gpu_required, status):
    run = driver(deployed, script, gpu_required)
    end = run.end("host.driver")
    assert end["status"] == status
    assert evidence in end["evidence"]
    assert evidence in run.facts()["nvidia_smi"]
    assert "gpus" not in run.facts()


def test_an_nvidia_smi_that_hangs_is_given_up(deployed):
    source = deployed._sources["cuda_matrix_payload/nvidia.py"]
    deployed._sources["cuda_matrix_payload/nvidia.py"] = source.replace(b"QUERY_LIMIT_S = 20.0", b"QUERY_LIMIT_S = 1.0")
    run = driver(deployed, HANG)
    assert run.end("host.driver")["evidence"] == "nvidia-smi did not answer within 1 s"
    assert run.seconds < 10


def test_an_nvidia_smi_that_cannot_be_executed_is_said(deployed):
    run = driver(deployed, "#!/nonexistent/interpreter\n")
    assert run.end("host.driver")["status"] == "fail"
    assert "No such file" in run.end("host.driver")["evidence"]


def card(name="RTX 4090"):
    return {"index": 0, "name": name, "uuid_hash": "", "memory_mib": 24564, "compute_capability": "8.9"}


@pytest.mark.parametrize(
    ("query", "kernel", "nodes", "needed", "status", "cause"),
    [
        (nvidia.Query(None), None, [], True, "fail", "gpu-not-exposed"),
        (nvidia.Query(None), None, [], False, "skip", None),
        (nvidia.Query(None), "550.54.15", [], True, "fail", "gpu-not-exposed"),
        (nvidia.Query(None), "550.54.15", ["/dev/nvidia0", "/dev/nvidiactl"], True, "warn", None),
        (nvidia.Query("/x/nvidia-smi", message="No devices were found"), "550.54.15", [], True, "fail", None),
        (nvidia.Query("/x/nvidia-smi", [card()], "550.54.15"), None, [], True, "pass", None),
    ],
)
def test_verdicts(query, kernel, nodes, needed, status, cause):
    verdict = checks_host.judge_driver(query, kernel, nodes, needed)
    assert (verdict["status"], verdict.get("cause")) == (status, cause)
    assert verdict["status"] == "pass" or verdict["evidence"]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024", "550.54.15"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build  (root@x)", "570.86.10"),
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.129.06  Thu May 12 22:52:02 UTC 2022\nGCC 9.4",
            "470.129.06",
        ),
        ("", None),
        ("NVRM version: nonsense", None),
    ],
)
def test_kernel_module_version(text, version):
    assert nvidia.kernel_driver(text) == version


def test_lines_that_are_no_rows_are_not_cards():
    text = "WARNING: infoROM is corrupted at gpu 0000:01:00.0\nNo devices were found\nx, y, z, 1, 8.6, 550\n"
    assert nvidia.parse(text, nvidia.FIELDS) == ([], None)
