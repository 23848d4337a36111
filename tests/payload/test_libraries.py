"""Library identity: broken copies of a real CUDA build of torch, and the rules on what was seen."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cuda_matrix.payload import checks_libraries, distributions, isolated, library_findings, versions

CHECKS = ("torch.cuda-build", "libs.identity", "libs.stack", "first-kernel")  # its neighbours look at the same files
CUDNN = "nvidia/cudnn/lib"
CUDART = "nvidia/cuda_runtime/lib/libcudart.so.12"


@pytest.fixture
def cuda_torch(real_torch):
    """A real torch that was built for CUDA, with its libraries from wheels."""
    if not (real_torch / CUDART).exists():
        pytest.skip(f"{real_torch} has no {CUDART}: not a CUDA build from wheels")
    return real_torch


@pytest.fixture
def farm(cuda_torch, tmp_path):
    """The real torch as a tree of links, in which single files can be replaced."""
    root = tmp_path / "farm"
    _link(cuda_torch, root, keep=("nvidia", "torch"))
    _link(cuda_torch / "torch", root / "torch", keep=("lib",))
    _link(cuda_torch / "torch/lib", root / "torch/lib")  # a library's $ORIGIN is where it was found
    shutil.copytree(cuda_torch / "nvidia", root / "nvidia", copy_function=os.symlink)
    return root


def _link(source: Path, target: Path, keep: tuple[str, ...] = ()) -> None:
    """A directory of links to all that another one has, but for some."""
    target.mkdir()
    for entry in source.iterdir():
        if entry.name not in keep:
            (target / entry.name).symlink_to(entry)


def compiled(path: Path, source: str, *flags: str) -> Path:
    """A small shared library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = ["cc", "-shared", "-fPIC", *flags, "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=source.encode(), check=True)
    return path


def run_with(deployed, site, **request):
    deployed.use(site)
    return deployed.run(checks=CHECKS, benchmarks=(), limit_s=110.0, **request)


def only_identity_fails(run, status="fail"):
    statuses = run.statuses()
    assert statuses.pop("libs.identity") == status
    assert set(statuses.values()) == {"pass"}
    return run.end("libs.identity")


def test_a_sound_torch_passes_and_says_its_libraries(deployed, cuda_torch):
    run = run_with(deployed, cuda_torch)
    end = only_identity_fails(run, "pass")
    numbers = end["numbers"]
    assert numbers["cuda_runtime"] == numbers["cuda_compiled"]
    assert numbers["cudnn_runtime"] == numbers["cudnn_compiled"]
    assert numbers["cudnn_checks_passed"] == numbers["cudnn_checks"] >= 4
    assert numbers["record_differences"] == 0 < numbers["record_files"]
    assert end["seconds"] < 10
    mapped = {library["soname"]: library["path"] for library in run.facts()["libraries"]}
    assert mapped["libcudart.so.12"] == str(cuda_torch / CUDART)
    assert any(name.startswith("libcudnn_ops") for name in mapped)  # loaded on first use only


FOREIGN_PART = """
int cudnnCnnTrainVersionCheck(void) { return 14; }
"""


def test_a_swapped_part_of_cudnn_is_named(deployed, farm):
    part = farm / CUDNN / "libcudnn_cnn_train.so.8"
    if not part.exists():
        pytest.skip("needs cuDNN 8")
    part.unlink()
    compiled(part, FOREIGN_PART, "-Wl,-soname,libcudnn_cnn_train.so.8")
    end = only_identity_fails(run_with(deployed, farm))
    assert end["cause"] == "cudnn-version-mismatch"
    assert "cudnnCnnTrainVersionCheck: CUDNN_STATUS" in end["evidence"]
    assert re.search(r"libcudnn_cnn_train.so.8: \d+ bytes recorded, \d+ bytes here \(nvidia", end["evidence"])


def test_a_part_of_cudnn_that_kills_its_process_is_named(deployed, farm):
    part = farm / CUDNN / "libcudnn_adv_train.so.8"
    if not part.exists():
        pytest.skip("needs cuDNN 8")
    part.unlink()
    part.write_bytes(b"not a library")
    end = only_identity_fails(run_with(deployed, farm))
    assert end["cause"] == "cudnn-version-mismatch"
    assert "Could not load library libcudnn_adv_train.so.8" in end["evidence"]
    assert "Aborted (signal 6)" in end["evidence"]


FOREIGN_RUNTIME = """
int cudaRuntimeGetVersion(int *version) { *version = VERSION; return 0; }
"""


def foreign_runtime(tmp_path: Path, version: int) -> Path:
    source = FOREIGN_RUNTIME.replace("VERSION", str(version))
    return compiled(tmp_path / "toolkit" / "libcudart.so.12", source, "-Wl,-soname,libcudart.so.12")


def test_a_library_path_that_offers_another_runtime_is_a_remark(deployed, cuda_torch, tmp_path):
    other = foreign_runtime(tmp_path, 12000)
    deployed.variables["LD_LIBRARY_PATH"] = str(other.parent)
    end = only_identity_fails(run_with(deployed, cuda_torch), "warn")
    assert end["cause"] == "nvlib-version-conflict"
    assert f"LD_LIBRARY_PATH selects {other} (12.0)" in end["evidence"]


def test_a_library_path_that_wins_over_a_wheels_own_library_fails(deployed, cuda_torch, tmp_path):
    """The wheel's libcusparse has a RUNPATH, so LD_LIBRARY_PATH comes first for its libnvJitLink."""
    wheel = cuda_torch / "nvidia/nvjitlink/lib/libnvJitLink.so.12"
    other = tmp_path / "toolkit" / wheel.name
    other.parent.mkdir()
    shutil.copyfile(wheel, other)  # the same version: a remark, since it is luck
    deployed.variables["LD_LIBRARY_PATH"] = str(other.parent)
    end = only_identity_fails(run_with(deployed, cuda_torch), "warn")
    assert end["cause"] == "nvlib-version-conflict"
    assert f"{other} hides {wheel}" in end["evidence"]


STUB = "int cuInit(unsigned flags) { return 34; }"


def test_a_stub_libcuda_is_named(deployed, cuda_torch, tmp_path):
    stub = compiled(tmp_path / "stubs" / "libcuda.so.1", STUB, "-Wl,-soname,libcuda.so.1")
    deployed.variables["LD_LIBRARY_PATH"] = str(stub.parent)
    end = only_identity_fails(run_with(deployed, cuda_torch))
    assert end["cause"] == "libcuda-stub"
    assert end["evidence"] == f"libcuda.so.1 is {stub}, cuInit gives 34"


def test_a_file_is_compared_by_its_size_and_in_the_profile_full_by_its_bytes(tmp_path):
    file = tmp_path / "libx.so.1"
    file.write_bytes(b"abc")
    digest = hashlib.sha256(b"abc").hexdigest()
    assert checks_libraries.difference(str(file), 3, digest) == ""
    assert checks_libraries.difference(str(file), 4, "") == "4 bytes recorded, 3 bytes here"
    assert checks_libraries.difference(str(tmp_path / "absent"), 3, "") == "recorded, but not there"
    file.write_bytes(b"abd")
    assert checks_libraries.difference(str(file), 3, "") == ""
    assert checks_libraries.difference(str(file), 3, digest) == "another SHA-256 than recorded"


SEEN = {
    "torch_cuda": "12.1",
    "compiled_cuda": 12010,
    "compiled_cudnn": "8.9.2",
    "cudnn_runtime": 8902,
    "cudnn_checks": {"cudnnOpsInferVersionCheck": ""},
    "cudnn_versions": {"/w/libcudnn_ops_infer.so.8": "8.9.2"},
    "mapped": ["/w/libcudart.so.12", "/w/libcudnn.so.8", "/w/libcudnn_ops_infer.so.8"],
    "versions": {"/w/libcudart.so.12": "12.1"},
    "work_error": "",
    "driver_library": {"path": "/usr/lib/libcuda.so.535.104.05", "cuinit": 0, "kernel": "535.104.05"},
}
LIBCUDA = {"path": "/usr/lib/libcuda.so.535.104.05", "cuinit": 0, "mounted": False, "kernel": None, "proven": False}


@pytest.mark.parametrize(
    ("changes", "status", "cause"),
    [
        ({}, "pass", None),
        ({"cudnn_runtime": 8907}, "warn", None),
        ({"cudnn_runtime": 8600}, "fail", "cudnn-version-mismatch"),
        ({"cudnn_runtime": 90100}, "fail", "cudnn-version-mismatch"),
        ({"cudnn_checks": {"cudnnOpsInferVersionCheck": "Aborted"}}, "fail", "cudnn-version-mismatch"),
        ({"cudnn_versions": {"/w/a": "8.9.2", "/w/b": "8.9.7"}}, "fail", "cudnn-version-mismatch"),
        ({"mapped": [*SEEN["mapped"], "/v/libcudnn_cnn_infer.so.8"]}, "fail", "cudnn-version-mismatch"),
        ({"mapped": [*SEEN["mapped"], "/v/libcudart.so.11.0"]}, "fail", "nvlib-version-conflict"),
        (
            {"mapped": [*SEEN["mapped"], "/v/libcublasLt.so.12", "/w/libcublasLt.so.12"]},
            "fail",
            "nvlib-version-conflict",
        ),
        ({"versions": {"/w/libcudart.so.12": "12.4"}}, "warn", "nvlib-version-conflict"),
        ({"versions": {"/w/libcudart.so.12": "12.0"}}, "fail", "nvlib-version-conflict"),
        ({"versions": {"/w/libcudart.so.12": "11.8"}}, "fail", "nvlib-version-conflict"),
        ({"linalg_error": "OSError: libcusolver.so.11: cannot open shared object file"}, "fail", None),
        ({"linalg_error": "OSError: libcuda.so.1: cannot open shared object file"}, "pass", None),
        ({"work_error": "RuntimeError: CUDNN_STATUS_NOT_INITIALIZED"}, "fail", None),
        ({"record_differences": ["/w/libcublas.so.12: 5 bytes recorded, 6 bytes here"]}, "warn", None),
        ({"mapped": []}, "unknown", None),
        ({"torch_cuda": None}, "skip", None),
        ({"torch_cuda": None, "driver_library": {**LIBCUDA, "cuinit": 34}}, "fail", "libcuda-stub"),
        (
            {"driver_library": {**LIBCUDA, "path": "/usr/local/cuda/lib64/stubs/libcuda.so"}},
            "fail",
            "libcuda-stub",
        ),
        ({"driver_library": {**LIBCUDA, "kernel": "470.57.02"}}, "fail", "compat-lib-mismatch"),
        ({"driver_library": {**LIBCUDA, "kernel": "470.57.02", "mounted": True}}, "pass", None),
        ({"driver_library": {**LIBCUDA, "kernel": "470.57.02", "proven": True}}, "pass", None),
        ({"driver_library": {**LIBCUDA, "cuinit": 100}}, "warn", None),
        (
            {"driver_library": {**LIBCUDA, "path": "/usr/local/cuda-12.1/compat/libcuda.so.530.30.02"}},
            "warn",
            "fwd-compat-unsupported",
        ),
        (
            {
                "driver_library": {
                    **LIBCUDA,
                    "path": "/usr/local/cuda/compat/libcuda.so.530",
                    "device_name": "NVIDIA GeForce RTX 3090",
                }
            },
            "fail",
            "fwd-compat-unsupported",
        ),
        ({"driver_library": {}}, "pass", None),
    ],
)
def test_what_was_seen_is_judged(changes, status, cause):
    verdict = checks_libraries.judge({**SEEN, **changes}, {}, "cpu")
    assert (verdict["status"], verdict.get("cause")) == (status, cause)
    if status in ("fail", "warn"):
        assert verdict["evidence"]
    assert all(value is None or isinstance(value, (str, int)) for value in verdict["numbers"].values())


@pytest.mark.parametrize(
    ("had", "wanted", "status"),
    [
        ("12.0", "12.1", "fail"),
        ("12.4", "12.1", "warn"),
        ("12.1", "12.1", "warn"),
        (None, "12.1", "warn"),
        ("13.0", "12.1", "fail"),
    ],
)
def test_a_library_in_place_of_the_wheels_own(had, wanted, status):
    seen = {**SEEN, "shadowed": {"/v/libnvJitLink.so.12": "/w/libnvJitLink.so.12"}}
    seen["versions"] = {**SEEN["versions"], "/v/libnvJitLink.so.12": had}
    seen["wheel_versions"] = {"/w/libnvJitLink.so.12": wanted}
    verdict = checks_libraries.judge(seen, {}, "cpu")
    assert (verdict["status"], verdict["cause"]) == (status, "nvlib-version-conflict")


def test_failures_come_before_remarks_in_the_evidence():
    seen = {**SEEN, "record_differences": ["/w/x: 1"], "cudnn_runtime": 8600}
    assert [finding.fails for finding in library_findings.of(seen)] == [True, False]


MOUNTS = """\
22 1 0:20 / / rw - overlay overlay rw
30 22 8:1 /usr/lib/libcuda.so.535 /usr/lib/libcuda.so.535 ro - ext4 /dev/sda1 ro
31 22 8:1 /nvidia /usr/local/nvidia ro - ext4 /dev/sda1 ro
32 22 8:1 /x /with\\040space ro - ext4 /dev/sda1 ro
"""


@pytest.mark.parametrize(
    ("path", "point"),
    [
        ("/usr/lib/libcuda.so.535", "/usr/lib/libcuda.so.535"),
        ("/usr/lib/libcuda.so.5", "/"),
        ("/usr/local/nvidia/lib64/libcuda.so.1", "/usr/local/nvidia"),
        ("/usr/local/nvidia-other/libcuda.so.1", "/"),
        ("/with space/libcuda.so.1", "/with space"),
    ],
)
def test_mount_points(path, point):
    assert checks_libraries.mount_of(path, MOUNTS) == point


@pytest.mark.parametrize(("number", "text"), [(21903, "2.19.3"), (2804, "2.8.4"), (22807, "2.28.7")])
def test_nccl_numbers(number, text):
    assert versions.library(number) == text


def test_a_question_that_crashes_or_hangs_costs_its_answer_only():
    assert isolated.call(lambda: {"x": 1}, 5).value == {"x": 1}
    died = isolated.call(lambda: os.kill(os.getpid(), 9), 5)
    assert (died.value, died.error, died.crashed) == (None, "Killed (signal 9)", True)
    raised = isolated.call(lambda: 1 / 0, 5)
    assert (raised.value, raised.error, raised.crashed) == (None, "ZeroDivisionError: division by zero", False)
    hung = isolated.call(lambda: __import__("time").sleep(60), 0.3)
    assert hung.timed_out
    assert hung.seconds < 5


def test_metadata_of_distributions(tmp_path):
    info = tmp_path / "Some_Lib-1.2.3+cu121.dist-info"
    info.mkdir()
    (info / "RECORD").write_text('nvidia/x/lib/libx.so.1,sha256=AAEC,12\n"a,b.so",,7\nsome_lib/__init__.py,,\n')
    egg = tmp_path / "old.egg-info"
    egg.write_text("Name: Old-One\nVersion: 0.9\n")
    found = distributions.installed([str(tmp_path / "absent"), str(tmp_path)])
    assert {name: each.version for name, each in found.items()} == {"some-lib": "1.2.3+cu121", "old-one": "0.9"}
    files = list(found["some-lib"].files(".so"))
    assert files == [(str(tmp_path / "nvidia/x/lib/libx.so.1"), "000102", 12), (str(tmp_path / "a,b.so"), "", 7)]
    assert distributions.top_level(found["some-lib"]) == ["some_lib"]
