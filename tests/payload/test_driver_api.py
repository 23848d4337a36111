"""The driver's own entry, on doubles of libcuda and NVML: who counts what, what a code means, what a kernel does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cuda_matrix.payload import checks_driver, cudriver, probe_kernel

LAB = Path(__file__).resolve().parents[1] / "lab"
CHECKS = ("driver.init", "cuda.driver-api", "nvml-late")
BOTH = {"driver.init": "pass", "cuda.driver-api": "pass", "nvml-late": "pass"}


@pytest.fixture(scope="session")
def doubles(tmp_path_factory) -> Path:
    """A folder with libcuda.so.1 and libnvidia-ml.so.1."""
    folder = tmp_path_factory.mktemp("doubles")
    subprocess.run([sys.executable, str(LAB / "build.py"), str(folder)], check=True)
    return folder


@pytest.fixture
def card(deployed, doubles):
    """A function that runs the driver's checks on the doubles."""

    def run(library_path=None, **env):
        env = {"LD_LIBRARY_PATH": str(library_path or doubles), **env}
        return deployed.run(checks=CHECKS, benchmarks=(), gpu_required=True, env=env)

    return run


def compiled(folder: Path, source: str) -> Path:
    """A libcuda.so.1 of one's own."""
    folder.mkdir(parents=True)
    (folder / "own.c").write_text(source)
    command = ["gcc", "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(folder / "own.c")]
    subprocess.run(command, check=True)
    return folder


def test_a_good_driver_passes_and_says_its_numbers(card, doubles):
    run = card(CM_FAKE_COUNT="2", CM_FAKE_CUDA_VERSION="12080", CM_FAKE_CC="9.0", CM_FAKE_NAME="NVIDIA H100")
    assert run.statuses() == BOTH
    numbers = run.end("driver.init")["numbers"]
    assert numbers["libcuda"] == str(doubles / "libcuda.so.1")
    assert (numbers["driver_cuda"], numbers["names"], numbers["capabilities"]) == ("12.8", "NVIDIA H100", "9.0")
    assert (numbers["cuda_cards"], numbers["nvml_cards"]) == (2, 2)
    end = run.end("cuda.driver-api")
    assert (end["numbers"]["cards"], end["numbers"]["elements"], end["device"]) == (2, probe_kernel.COUNT, "cuda:0")
    assert end["thresholds"] == {"mismatches": 0, "overrun": 0}


@pytest.mark.parametrize(
    ("code", "cause", "words"),
    [
        (100, "gpu-not-exposed", "no CUDA-capable device is detected"),
        (3, None, "initialization error"),
        (34, "libcuda-stub", "CUDA driver is a stub library"),
        (304, None, "OS call failed or operation not supported on this OS"),
        (802, "fabric-manager", "system not yet initialized"),
        (803, "compat-lib-mismatch", "unsupported display driver / cuda driver combination"),
        (804, "fwd-compat-unsupported", "forward compatibility was attempted on non supported HW"),
        (999, "cuda-unknown-999", "unknown error"),
        (12345, None, "12345 of unknown name"),
    ],
)
def test_what_cuinit_says_is_the_evidence(card, code, cause, words):
    run = card(CM_FAKE_CUINIT=str(code))
    end = run.end("driver.init")
    assert (end["status"], end.get("cause")) == ("fail", cause)
    assert f"cuInit: {code} " in end["evidence"]
    assert words in end["evidence"]
    assert run.statuses()["cuda.driver-api"] == "skip"


@pytest.mark.parametrize(
    ("kernel", "evidence", "cause"),
    [
        ("wrong", "element 20018: ", "numerics-wrong"),
        ("stale", "element 0: ", "numerics-wrong"),
        ("overrun", "1 elements behind the end were written", "numerics-wrong"),
        ("fault", "cuCtxSynchronize: 700 CUDA_ERROR_ILLEGAL_ADDRESS", None),
        ("nojit", "222 CUDA_ERROR_UNSUPPORTED_PTX_VERSION: the provided PTX was compiled", None),
    ],
)
def test_a_kernel_that_goes_wrong_on_one_card_fails_that_check_alone(card, kernel, evidence, cause):
    run = card(CM_FAKE_COUNT="2", CM_FAKE_KERNEL=kernel, CM_FAKE_WRONG_DEVICE="1")
    end = run.end("cuda.driver-api")
    assert run.statuses() == {**BOTH, "cuda.driver-api": "fail"}
    assert evidence in end["evidence"]
    assert end["evidence"].startswith("card 1 (")
    assert end.get("cause") == cause


def test_a_kernel_that_kills_its_process_is_a_crash_of_that_check_alone(card):
    run = card(CM_FAKE_KERNEL="crash")
    assert run.statuses() == {**BOTH, "cuda.driver-api": "crash"}
    assert "Aborted" in run.end("cuda.driver-api")["evidence"]


def test_a_kernel_that_hangs_is_a_timeout_of_that_check_alone(card, deployed):
    table = json.loads(deployed._sources["items.json"])
    for row in table["items"]:
        if row["id"] == "cuda.driver-api":
            row["limits_s"]["smoke"] = 2
    deployed._sources["items.json"] = json.dumps(table).encode()
    assert card(CM_FAKE_KERNEL="hang").statuses() == {**BOTH, "cuda.driver-api": "timeout"}


@pytest.mark.parametrize(
    ("visible", "status", "cause", "words"),
    [
        ("0", "pass", None, "cards: 1"),
        ("1,0", "pass", None, "cards: 2"),
        ("0,-1,1", "pass", None, "cards: 1"),
        ("0,7", "warn", None, "'7' is no card"),
        ("0 1", "fail", "device-id-invalid", "'0 1' hides every card"),
        ("all", "fail", "device-id-invalid", "'all' hides every card"),
        ("", "fail", "device-id-invalid", "'' hides every card"),
    ],
)
def test_a_list_of_visible_cards_that_hides_some_is_said(card, visible, status, cause, words):
    end = card(CM_FAKE_COUNT="2", CUDA_VISIBLE_DEVICES=visible).end("driver.init")
    assert (end["status"], end.get("cause")) == (status, cause)
    assert words in end["summary"]


def test_a_card_that_only_nvml_sees_is_a_failure(card, tmp_path):
    (tmp_path / "nvml").write_text("count 2\n")
    run = card(CM_FAKE_NVML=str(tmp_path / "nvml"), CM_FAKE_COUNT="1")
    assert run.end("driver.init")["status"] == "fail"
    assert run.end("driver.init")["evidence"] == "NVML 2, CUDA 1"


def test_without_nvml_the_count_is_not_vouched_for(card, doubles, tmp_path):
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "libcuda.so.1").symlink_to(doubles / "libcuda.so.1")
    run = card(library_path=tmp_path / "only")
    assert run.statuses() == {"driver.init": "warn", "cuda.driver-api": "pass", "nvml-late": "warn"}
    assert "libnvidia-ml.so.1: cannot open shared object file" in run.end("driver.init")["evidence"]


@pytest.mark.parametrize(
    ("place", "code", "verdict"),
    [
        ("cuda-12.4/compat", 0, ("warn", None)),
        ("cuda/lib64/stubs", 0, ("warn", None)),
        ("cuda/lib64/stubs", 3, ("fail", "libcuda-stub")),
        ("cuda-12.4/compat", 803, ("fail", "compat-lib-mismatch")),
    ],
)
def test_a_libcuda_out_of_the_image_is_named_by_its_path(card, doubles, tmp_path, place, code, verdict):
    folder = tmp_path / place
    folder.mkdir(parents=True)
    for name in ("libcuda.so.1", "libnvidia-ml.so.1"):
        (folder / name).write_bytes((doubles / name).read_bytes())
    end = card(library_path=folder, CM_FAKE_CUINIT=str(code)).end("driver.init")
    assert (end["status"], end.get("cause")) == verdict
    assert str(folder / "libcuda.so.1") in end["summary"]


def test_a_libcuda_without_functions_is_a_failure_and_no_crash(card, doubles, tmp_path):
    folder = compiled(tmp_path / "bare", "int nothing;")
    (folder / "libnvidia-ml.so.1").symlink_to(doubles / "libnvidia-ml.so.1")
    end = card(library_path=folder).end("driver.init")
    assert end["status"] == "fail"
    assert "cuInit: this libcuda.so.1 has no such function" in end["evidence"]


def test_a_libcuda_that_is_an_empty_file_is_a_failure(card, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "libcuda.so.1").write_bytes(b"")
    end = card(library_path=tmp_path / "empty").end("driver.init")
    assert (end["status"], end["summary"]) == ("fail", "libcuda cannot be loaded")
    assert "file too short" in end["evidence"]


@pytest.mark.parametrize(("needed", "status"), [(True, "fail"), (False, "skip")])
def test_without_any_driver(deployed, needed, status):
    run = deployed.run(checks=CHECKS, benchmarks=(), gpu_required=needed)
    end = run.end("driver.init")
    assert end["status"] == status
    assert not needed or "libcuda.so.1: cannot open shared object file" in end["evidence"]
    assert end.get("cause") == ("gpu-not-exposed" if needed else None)
    assert run.statuses() == {"driver.init": status, "cuda.driver-api": "skip", "nvml-late": "skip"}


def test_cards_that_are_lost_while_the_job_runs_are_the_hosts_fault(card, tmp_path):
    (tmp_path / "nvml").write_text("[after 1]\ninit !999\n")
    run = card(CM_FAKE_NVML=str(tmp_path / "nvml"))
    assert run.statuses() == {**BOTH, "nvml-late": "fail"}
    end = run.end("nvml-late")
    assert (end["cause"], end["evidence"]) == ("cgroup-device-lost", "Failed to initialize NVML: Unknown Error")


def seen(**changes):
    base = {
        "visible": None,
        "nodes": ["/dev/nvidia0"],
        "uvm": True,
        "kernel": "550.54.15",
        "cuda_count": 1,
        "devices": [{"name": "NVIDIA A100", "capability": "8.0", "pci_bus_id": None}],
        "nvml_count": 1,
        "nvml_error": "",
        "load_error": None,
        "path": "/usr/lib/libcuda.so.1",
        "cuda_version": "12.4",
        "cuinit": 0,
        "said": "",
        "torch_count": None,
    }
    return {**base, **changes}


MIG = [{"name": "NVIDIA A100 MIG 1g.5gb", "capability": "8.0", "pci_bus_id": None}]


@pytest.mark.parametrize(
    ("changes", "needed", "status", "cause"),
    [
        ({}, True, "pass", None),
        ({"torch_count": 1}, True, "pass", None),
        ({"torch_count": 2}, True, "fail", None),
        ({"torch_count": 0}, True, "pass", None),  # torch has refused the driver: first-kernel has its words
        ({"nvml_count": 2, "devices": MIG}, True, "pass", None),
        ({"nvml_count": 4, "visible": "GPU-8932f937"}, True, "pass", None),
        ({"nvml_count": 4, "visible": "0,1"}, True, "fail", None),
        ({"cuda_count": 0, "devices": []}, True, "fail", None),
        ({"cuda_count": 0, "devices": []}, False, "skip", None),
        ({"cuinit": 999, "said": "cuInit: 999", "uvm": False}, True, "fail", "uvm-module-missing"),
        ({"cuinit": 100, "said": "cuInit: 100"}, False, "skip", None),
        ({"cuinit": 999, "said": "cuInit: 999"}, False, "warn", None),
        ({"load_error": "x", "said": "libcuda.so.1: No such file"}, True, "fail", "driver-caps-missing"),
        ({"load_error": "x", "said": "No module named '_ctypes'"}, True, "fail", None),
    ],
)
def test_verdicts_on_the_entry(changes, needed, status, cause):
    verdict = checks_driver.judge_entry(seen(**changes), needed)
    assert (verdict["status"], verdict.get("cause")) == (status, cause)
    assert verdict["status"] in {"pass", "skip"} or verdict.get("evidence") or verdict["summary"]


@pytest.mark.parametrize(
    ("before", "now", "status_before", "status", "cause"),
    [
        ({}, {}, "pass", "pass", None),
        ({}, {"nvml_count": None, "nvml_error": "Failed: Unknown Error"}, "pass", "fail", "cgroup-device-lost"),
        ({}, {"nvml_count": None, "nvml_error": "GPU is lost"}, "pass", "fail", None),
        ({}, {"cuinit": 100, "said": "cuInit: 100", "cuda_count": None}, "pass", "fail", None),
        ({"nvml_count": 2, "cuda_count": 2}, {}, "pass", "fail", None),
        ({}, {"torch_count": 2}, "pass", "fail", None),
        ({}, {"torch_count": 0}, "pass", "pass", None),
        ({"nvml_count": None}, {"nvml_count": None}, "warn", "warn", None),
        ({"nvml_count": None, "cuinit": 100}, {"nvml_count": None, "cuinit": 100}, "fail", "skip", None),
        ({"cuinit": 999}, {"cuinit": 999}, "fail", "warn", None),
    ],
)
def test_verdicts_on_the_late_entry(before, now, status_before, status, cause):
    verdict = checks_driver.judge_late(seen(**before), seen(**now), status_before)
    assert (verdict["status"], verdict.get("cause")) == (status, cause)


def test_the_loaded_file_is_read_from_the_maps():
    maps = "7f00 r-xp 0 08:01 5 /usr/lib/libcudart.so.12\n7f01 r-xp 0 08:01 6 /opt/compat/libcuda.so.550.54.15\n"
    assert cudriver.loaded_path(maps) == "/opt/compat/libcuda.so.550.54.15"
    assert cudriver.origin("/usr/local/cuda-12.4/compat/libcuda.so.1") == "compat"
    assert cudriver.origin("/usr/local/cuda/lib64/stubs/libcuda.so") == "stub"
    assert cudriver.origin("/usr/lib/x86_64-linux-gnu/libcuda.so.1") == "driver"


@pytest.mark.parametrize(
    ("version", "words"),
    [("11040", "driver on your system is too old (found version 11040)"), ("12010", "Error 1: invalid argument")],
)
def test_a_real_cuda_build_meets_the_double(real_torch, doubles, version, words):
    """PyTorch's own gate: 11.4 is too old for CUDA 12.1; 12.1 passes it, and ends where the double does."""
    env = {"LD_LIBRARY_PATH": str(doubles), "PYTHONPATH": str(real_torch), "CM_FAKE_CUDA_VERSION": version}
    command = [sys.executable, "-c", "import torch; torch.cuda.init()"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert words in done.stderr
