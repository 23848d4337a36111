"""The driver lab: a real CUDA build of PyTorch over a stand-in driver, and images that are broken for real.

PyTorch 2.2.0+cu121 with NVIDIA's own libraries decides what a driver is good for, and says so in its own words; the
stand-in libcuda only says which driver it is (tests/lab/cuda.c). Nothing here has a card.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from container_bed import Bed, cause

if "CUDA_MATRIX_TEST_LAB" not in os.environ:
    HOW = "needs the driver lab's images (5 GB): tests/README.md, then CUDA_MATRIX_TEST_LAB=1"
    pytestmark = pytest.mark.skip(reason=HOW)

Result = dict[str, Any]

A800 = {"labels": ["a800"], "gpu": "A800", "driver": "470.129.06"}
DRIVER = "a800 CM_FAKE_CUDA_VERSION="


def image(name: str, **keys: Any) -> dict[str, Any]:
    return {"id": name, "ref": f"cm-lab/{name}:test", **keys}


def item(result: Result, name: str) -> Result:
    return next(each for each in (*result["checks"], *result["benchmarks"]) if each["id"] == name)


@pytest.fixture
def on_a800(bed: Bed, show_card: Callable[[str], int]) -> Callable[[str], Result]:
    """Run the whole smoke profile of the sound image on an A800 host with this driver."""

    def run(driver: str, **payload: Any) -> Result:
        show_card(driver)
        config = bed.write_config(
            [image("torch220", expect={"torch": "2.2.0", "cuda": "12.1"})],
            runners={"a800": A800},
            payload={"profile": "smoke", "timeout": "3m", **payload},
            container={"shm_size": "1g", "memory": "8g"},
        )
        return bed.results(config)["torch220@a800"]

    return run


def test_the_articles_a800_is_too_old_for_cuda_12_1(on_a800: Callable[..., Result]) -> None:
    result = on_a800(DRIVER + "11040")
    assert (result["verdict"], cause(result)) == ("fail", "driver-too-old")
    assert result["diagnosis"]["where"] == "first-kernel"
    assert "The NVIDIA driver on your system is too old (found version 11040)" in result["diagnosis"]["evidence"]
    needy = ["numerics.gemm.fp32", "attention.sdpa", "training.transformer", "gemm.fp16", "resnet50.train"]
    assert {item(result, name)["status"] for name in needy} == {"skip"}
    facts = result["facts"]
    assert facts["torch"] == "2.2.0+cu121"
    assert (facts["torch_cuda"], facts["cudnn"], facts["nccl"]) == ("12.1", "8.9.2", "2.19.3")
    assert facts["arch_list"] == ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
    assert facts["cuda_available"] is False
    assert facts["cuda_runtimes"] == [
        {"path": "/opt/site/nvidia/cuda_runtime/lib/libcudart.so.12", "version": "12.1.105"}
    ]
    loaded = {library["soname"]: library["path"] for library in facts["libraries"]}
    assert loaded["libcudnn.so.8"] == "/opt/site/nvidia/cudnn/lib/libcudnn.so.8"
    assert loaded["libcublas.so.12"] == "/opt/site/nvidia/cublas/lib/libcublas.so.12"
    assert loaded["libcuda.so.1"] == "/usr/lib/x86_64-linux-gnu/libcuda.so.1"


# What keeps torch from the card: the simulated driver; the cause; a part of the evidence, in the software's own words.
OBSTACLES = {
    "no-libcuda": ("a800 no-libcuda", "driver-caps-missing", "libcuda.so.1: cannot open shared object file"),
    "no-device": (DRIVER + "12040 CM_FAKE_CUINIT=100", "unknown", "no CUDA-capable device is detected"),
    "driver-mismatch": (
        DRIVER + "12040 CM_FAKE_CUINIT=803",
        "compat-lib-mismatch",
        "unsupported display driver / cuda driver",
    ),
    "forward-compat": (
        DRIVER + "12040 CM_FAKE_CUINIT=804",
        "fwd-compat-unsupported",
        "forward compatibility was attempted",
    ),
    # 999, and no /dev/nvidia-uvm: the second says why.
    "unknown-error": (DRIVER + "12040 CM_FAKE_CUINIT=999", "uvm-module-missing", "/dev/nvidia-uvm: not there"),
    # CUDA 12.0 serves 12.1 by minor-version compatibility; what stops this one is that the stand-in is no driver: a
    # guess at best, which excuses no image.
    "past-the-gate": (DRIVER + "12000", "cuda-unknown-999", "Error 1: invalid argument"),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_keeps_torch_from_the_card(on_a800: Callable[..., Result], name: str) -> None:
    driver, code, words = OBSTACLES[name]
    result = on_a800(driver, checks=["host.driver", "driver.init", "first-kernel", "nvml-late"], benchmarks=[])
    assert result["verdict"] == ("host-failed" if code == "uvm-module-missing" else "fail")
    assert cause(result) == code
    assert words in result["diagnosis"]["evidence"]
    assert item(result, "first-kernel")["status"] == "fail"


# The image; the one check that must not pass, how it ends, its cause; a part of its evidence.
BROKEN = {
    "cudnn-swapped": ("libs.identity", "fail", "cudnn-version-mismatch", "VersionCheck: CUDNN_STATUS_VERSION_MISMATCH"),
    "cudart-shadowed": ("libs.identity", "warn", "nvlib-version-conflict", "/opt/shadow/libcudart.so.12 (12.4)"),
    "torchvision-other-abi": ("libs.stack", "fail", "torch-abi-mismatch", "torchvision 0.16.0"),
    "numpy2": ("libs.stack", "fail", "numpy-abi", "Numpy is not available"),
    "torch-missing": ("torch.import", "fail", "torch-missing", "No module named 'torch'"),
    "stub-libcuda": ("libs.identity", "fail", "libcuda-stub", "/usr/local/cuda/lib64/stubs/libcuda.so.1"),
}


@pytest.fixture(scope="module")
def broken(module_bed: Bed) -> dict[str, Result]:
    """The broken images and the sound one they were made of, where no card is needed; image → result."""
    checks = ["libs", "torch", "cuda.runtimes", "first-kernel", "numerics.gemm", "training.cnn", "export"]
    config = module_bed.write_config(
        [image(name) for name in (*BROKEN, "torch220")],
        payload={"profile": "smoke", "checks": checks, "benchmarks": [], "timeout": "3m"},
        container={"shm_size": "1g", "memory": "8g"},
    )
    return {cell.partition("@")[0]: result for cell, result in module_bed.results(config).items()}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_image_is_named_by_the_right_check_alone(broken: dict[str, Result], name: str) -> None:
    check, status, code, words = BROKEN[name]
    found = {each["id"]: each["status"] for each in broken[name]["checks"]}
    assert {each: how for each, how in found.items() if how not in {"pass", "skip"}} == {check: status}
    assert item(broken[name], check)["cause"] == code
    assert words in item(broken[name], check)["evidence"]
    assert broken[name]["verdict"] == status
    if status == "fail":
        assert cause(broken[name]) == code


def test_the_sound_image_passes(broken: dict[str, Result]) -> None:
    assert broken["torch220"]["verdict"] == "pass", broken["torch220"]["reason"]
    assert item(broken["torch220"], "libs.identity")["status"] == "pass"
