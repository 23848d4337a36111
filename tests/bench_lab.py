"""What the benchmarks' tests share: their rows of the real table over a first-kernel that says where to run."""

from __future__ import annotations

from cuda_matrix.reference import load_items

SIZE = 128  # rows and columns of a product on the pretended card
# The peaks are stated for 2000 MHz, and the pretended clock is 1000 MHz: a product in 1 ms reaches 84 % of them.
CARD = {
    "id": "pretended",
    "name": "Pretended card",
    "match": "Pretended",
    "cc": "8.9",
    "sm": 1,
    "memory_gb": [24],
    "bandwidth_gbs": 11,
    "l2_mb": 1,
    "boost_mhz": 2000,
    "tensor_peak_mhz": 2000,
    "pcie_gen": 4,
    "nvlink_gbs": 0,
    "peak_tflops": dict.fromkeys(("fp32", "tf32", "fp16", "bf16", "fp8", "int8"), 0.01),
    "uncertain": [],
}
FIRST_KERNEL = """
from .context import passed

def first_kernel(context):
    context.keep("device", {{"name": "Pretended card", "capability": "8.9"}})
    return passed("stands in for the real one", device={device!r})
"""
# Sizes and seconds that a test can afford.
SMALL = """
def mutate(torch):
    import sys
    if "cuda_matrix_payload" not in sys.modules:
        return  # a fresh process of a start-up benchmark
    from cuda_matrix_payload import bench_gemm, bench_memory, bench_startup, telemetry, timing
    bench_gemm.CUDA_SIZES = ((0.0, SIDE),)
    bench_gemm.CPU_SIZE = 64
    bench_memory.BYTES = bench_memory.CPU_BYTES = bench_memory.LINK_BYTES = 1 << 22
    bench_startup.BUDGET_S["standard"] = 0.0
    timing.FLUSH_BYTES = 1 << 20
    timing.PLANS["standard"] = timing.Plan((0.02, 0.1), (0.02, 0.1), (0.02, 0.1))
"""
# Every step runs, and takes 1 ms by the card's own clock; NVML sees a busy card.
FIXED_CLOCK = """
    def sample(self, steps):
        self._step()
        return 0.001
    timing.CudaTimer.sample = sample
    telemetry.Watch.summary = lambda self: {
        "samples": 4, "busy_samples": 4, "watched_s": 0.5, "throttle_share": 0.0, "sm_clock_mhz": 1000,
        "energy_j": 10.0, "pcie_generation_seen": 4, "pcie_width_seen": 2,
    }
"""


def benchmarks(deployed, site, *ids, device="cuda:0", source="", cards=()):
    """Install a real torch, with a pretended card where the device is one, and choose these items; their ids."""
    rows = []
    for item in load_items().items:
        if item.id in ("torch.import", "first-kernel", *ids):
            rows.append(item.model_dump(mode="json", exclude_none=True))
            if item.id == "first-kernel":
                rows[-1]["run"] = "checks_stub:first_kernel"
    deployed.items(*rows, checks=FIRST_KERNEL.format(device=device))
    deployed.cards(*cards)
    deployed.use(site)
    if device != "cpu":
        deployed.pretend_cuda(capability=(8, 9), name="Pretended card")
    deployed.mutate(SMALL.replace("SIDE", str(SIZE)) + source)
    return ids
