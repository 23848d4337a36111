"""Owns the table of everything this payload can do, in the order in which it is done (docs/payload-protocol.md)."""

from __future__ import annotations

from .table import Item

_QUICK = (60, 60, 60)  # seconds for smoke, standard, full
_IMPORT = (120, 180, 180)
_WORK = (120, 180, 300)
_GEMM = (90, 180, 420)
_TRAIN = (180, 420, 1200)

_TORCH = ("torch.import",)
_DEVICE = ("torch.import", "first-kernel")

ITEMS = (
    Item("python", "check", "checks_host:python", _QUICK),
    Item("host.driver", "check", "checks_host:driver", _QUICK),
    Item("torch.import", "check", "checks_torch:imported", _IMPORT, torch=True),
    Item("torch.cuda-build", "check", "checks_torch:cuda_build", _QUICK, _TORCH),
    Item("cuda.runtimes", "check", "checks_host:runtimes", _QUICK),
    Item("image.expect", "check", "checks_torch:expect", _QUICK, _TORCH),
    Item("first-kernel", "check", "checks_device:first_kernel", _WORK, _TORCH),
    Item("numerics.gemm.fp32", "check", "checks_numerics:fp32", _WORK, _DEVICE),
    Item("numerics.gemm.fp16", "check", "checks_numerics:fp16", _WORK, _DEVICE),
    Item("numerics.gemm.bf16", "check", "checks_numerics:bf16", _WORK, _DEVICE),
    Item("training.cnn", "check", "checks_training:cnn", _WORK, _DEVICE),
    Item("gemm.fp32", "benchmark", "bench_gemm:fp32", _GEMM, _DEVICE, unit="TFLOP/s"),
    Item("gemm.fp16", "benchmark", "bench_gemm:fp16", _GEMM, _DEVICE, unit="TFLOP/s"),
    Item("gemm.bf16", "benchmark", "bench_gemm:bf16", _GEMM, _DEVICE, unit="TFLOP/s"),
    Item("resnet50.train", "benchmark", "bench_resnet50:train", _TRAIN, _DEVICE, unit="images/s"),
)
