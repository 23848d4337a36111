"""What the tests of the networks' benchmarks share: networks that a test can afford, on a CPU or a pretended card."""

from __future__ import annotations

from bench_lab import FIRST_KERNEL, SIZE, SMALL
from cuda_matrix.reference import load_items

# Samples vary on a machine that others use: their spread is not what these tests are about.
TINY = """
    from cuda_matrix_payload import bench_gpt2, bench_ops, bench_resnet50, bench_soak, gpt2, resnet, samples
    resnet.STAGES = ((8, 1, 1), (8, 1, 2))
    bench_resnet50.CUDA_SIDE = bench_resnet50.CPU_SIDE = 32
    bench_resnet50.CUDA_BATCHES = bench_gpt2.CUDA_BATCHES = ((0.0, 4),)
    bench_resnet50.CPU_BATCH = bench_gpt2.CPU_BATCH = 4
    gpt2.SMALL = gpt2.TINY
    bench_ops.SHAPES["cuda"] = bench_ops.SHAPES["cpu"]
    bench_soak.WINDOW_S = (0.1, 0.1)
    bench_soak.QUEUE_S = 0.02
    samples.judge_spread = lambda *_: ("pass", "")
    timing.PLANS["full"] = timing.PLANS["standard"]
"""


def run(
    deployed, site, *ids, source="", device="cpu", profile="standard", cards=(), limit_s=None, thresholds=(), **request
):
    """Run these items with tiny networks on a stand-in for the first kernel; `source` is more of `mutate(torch)`.

    `limit_s`: seconds that each benchmark may take, instead of the table's; `thresholds`: names and numbers likewise.
    """
    rows = []
    for item in load_items().items:
        if item.id in ("torch.import", "first-kernel", *ids):
            rows.append(item.model_dump(mode="json", exclude_none=True))
            rows[-1]["needs"] = [need for need in item.needs if need in ("torch.import", "first-kernel")]
            if limit_s is not None and item.id in ids:
                rows[-1]["limits_s"] = {profile: limit_s}
            if item.id in ids:
                rows[-1].setdefault("thresholds", {}).update(thresholds)
            if item.id == "first-kernel":
                rows[-1]["run"] = "checks_stub:first_kernel"
    deployed.items(*rows, checks=FIRST_KERNEL.format(device=device))
    deployed.cards(*cards)
    deployed.use(site)
    if device != "cpu":
        deployed.pretend_cuda(capability=(8, 9), name="Pretended card")
    deployed.mutate(SMALL.replace("SIDE", str(SIZE)) + TINY + source)
    return deployed.run(checks=(), benchmarks=ids, profile=profile, **request)
