"""A GPU that is needed and cannot be used fails, with PyTorch's own words, and nothing runs on the CPU instead."""

from __future__ import annotations

import pytest

# What PyTorch does on a host whose driver is too old: `is_available` is False and warns, real use raises.
TORCH = """
import types, warnings
__version__ = "2.2.0+cu121"
version = types.SimpleNamespace(cuda={cuda!r}, hip=None)
_C = types.SimpleNamespace(_cuda_getArchFlags=lambda: "sm_80 sm_86 sm_90")
backends = types.SimpleNamespace(cudnn=types.SimpleNamespace(version=lambda: 8902))

def _is_available():
    {warn}
    return False

def _init():
    {init}

class _Zeros:
    def cuda(self):
        return self

def zeros(*size):
    return _Zeros()

cuda = types.SimpleNamespace(
    is_available=_is_available, init=_init, nccl=types.SimpleNamespace(version=lambda: (2, 19, 3)), get_arch_list=list
)
"""
TOO_OLD = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver."
GPU_ITEMS = ("numerics.gemm.fp32", "training.cnn", "gemm.bf16", "resnet50.train")


def run(deployed, cuda="12.1", warn="pass", init="pass", **request):
    deployed.torch(TORCH.format(cuda=cuda, warn=warn, init=init))
    result = deployed.run(**{"gpu_required": True, **request})
    assert result.kinds()[-1] == "done"
    return result


def test_a_driver_that_is_too_old_speaks_through_first_kernel(deployed):
    result = run(
        deployed, warn=f"warnings.warn('CUDA initialization: {TOO_OLD}')", init=f"raise RuntimeError('{TOO_OLD}')"
    )
    end = result.end("first-kernel")
    assert (end["status"], end["device"], end.get("cause")) == ("fail", "cpu", None)
    assert end["evidence"] == f"RuntimeError: {TOO_OLD}"
    assert "CUDA initialization" in end["log"]
    assert result.end("torch.cuda-build")["status"] == "pass"
    assert result.facts()["arch_list"] == ["sm_80", "sm_86", "sm_90"]
    assert (result.facts()["cudnn"], result.facts()["nccl"]) == ("8.9.2", "2.19.3")
    for item in GPU_ITEMS:
        assert (result.end(item)["status"], result.end(item)["summary"]) == ("skip", "no usable GPU")


def test_a_gpu_that_is_silently_not_used_is_named(deployed):
    end = run(deployed).end("first-kernel")
    assert (end["status"], end["cause"]) == ("fail", "silent-cpu-fallback")
    assert end["evidence"]


def test_a_cpu_build_where_a_gpu_is_needed(deployed):
    result = run(deployed, cuda=None, init="raise AssertionError('Torch not compiled with CUDA enabled')")
    assert (result.end("torch.cuda-build")["status"], result.end("torch.cuda-build")["cause"]) == (
        "fail",
        "cpu-only-torch",
    )
    assert result.end("first-kernel")["evidence"] == "AssertionError: Torch not compiled with CUDA enabled"
    assert result.end("resnet50.train")["status"] == "skip"


@pytest.mark.parametrize(
    ("expect", "gpu_required", "status"), [({"cuda": "none"}, True, "pass"), ({}, False, "skip"), ({}, True, "fail")]
)
def test_a_cpu_build_is_right_where_it_is_declared(deployed, expect, gpu_required, status):
    result = run(deployed, cuda=None, expect=expect, gpu_required=gpu_required)
    assert result.end("torch.cuda-build")["status"] == status


def test_a_wrong_version_is_a_mismatch(deployed):
    end = run(deployed, expect={"torch": "2.2.0", "cuda": "11.8", "cudnn": "8.9"}).end("image.expect")
    assert (end["status"], end["cause"]) == ("fail", "expectation-mismatch")
    assert end["evidence"] == "cuda: expected 11.8, found 12.1"
