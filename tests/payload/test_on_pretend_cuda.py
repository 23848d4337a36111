"""The real table of items on a pretended card (tests/lab/pretend_cuda.py): every CUDA branch runs, none stumbles.

What it proves is that the payload uses torch's CUDA API as it is, on cards of three generations, and ends every item
with a verdict. It proves no number: the arithmetic is the CPU's.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from cuda_matrix.protocol import payload_sources
from cuda_matrix.reference import load_reference

CARDS = {
    "7.0": {"name": "Tesla V100-SXM2-16GB", "capability": (7, 0)},
    "8.6": {"name": "NVIDIA GeForce RTX 3090", "capability": (8, 6)},
    "9.0": {"name": "NVIDIA H100 80GB HBM3", "capability": (9, 0)},
}
# Enough for a group of benchmarks, and little enough for the host, whose memory it is.
MEMORY_GB = 3
PARTS = {
    "image": ("python", "host", "torch", "driver", "cuda", "image", "container", "first-kernel", "arch", "libs"),
    "device": ("silent-cpu", "numerics"),
    "models": ("attention", "training", "faults", "export"),
    "rest": (
        "compile",
        "memory",
        "dataloader",
        "multi-gpu",
        "packages",
        "health",
        "throttle",
        "nvml-late",
    ),
    "extension": ("extension",),
    "rates": ("startup", "gemm", "memory", "pcie", "launch", "ops"),
    "networks": ("resnet50", "gpt2", "nccl", "dataloader"),
}

# Sizes that are a card's work, and a CPU's for an hour.
SMALLER = {
    "checks_device": "_MANY = 1024",
    "checks_gemm": "CUDA_LARGE_OTHERWISE = (512, 512, 512)",
    "bench_gemm": "CUDA_SIZES = ((0.0, 1024),)",
    "bench_memory": "BYTES = 64 << 20; LINK_BYTES = 64 << 20",
    "bench_ops": "SHAPES['cuda'] = SHAPES['cpu']",
    "bench_resnet50": "CUDA_BATCHES = ((0.0, 2),)",
    "gpt2": "SMALL = TINY",
    "timing": "PLANS['standard'] = PLANS['smoke']",
}
ONLY_IN_FULL = {"services.jupyter", "services.ssh", "soak.train"}  # and the fp32 and TF32 twins of resnet50
# What cannot be right where nothing but torch pretends, and why: no other item may fail.
NO_DRIVER = "there is no libcuda and no nvidia-smi: torch alone pretends"
NO_TRITON = "no GPU runs Triton's kernels"
NO_NCCL = "NCCL itself looks for a GPU"
NO_COMPILER = "torch's compiler and exporter make CUDA tensors in C++, past the modes by which a card is pretended"
MAY_FAIL = {
    "host.driver": NO_DRIVER,
    "driver.init": NO_DRIVER,
    "nvml-late": NO_DRIVER,
    "compile.inductor": NO_COMPILER,
    "export.roundtrip": NO_COMPILER,
    "gpt2.train.compiled": NO_COMPILER,
    "packages.triton": NO_TRITON,
    "multi-gpu.nccl": NO_NCCL,
    "nccl.busbw": NO_NCCL,
}
# What a card of this capability lacks, so that the item is skipped; all other checks of the device must pass on it.
LACKING = {
    "7.0": {"numerics.gemm.tf32", "numerics.gemm.fp8", "numerics.gemm.int8", "numerics.tf32-truth"},
    "8.6": {"numerics.gemm.fp8"},
    "9.0": set(),
}
GOOD = {"pass", "warn", "skip", "unknown", "invalid"}  # invalid: a CPU that others use is no steady clock


@pytest.fixture
def on_card(deployed, real_torch):
    """A function that runs a part of the table on one card; it gives the run."""

    def run(cc: str, profile: str, part: str, gpus: int = 1) -> Any:
        sources = {name: source.decode() for name, source in payload_sources(load_reference()).items()}
        deployed.items(*json.loads(sources["items.json"])["items"])  # without the profiles' time budgets
        for module, change in SMALLER.items():
            source = sources[f"cuda_matrix_payload/{module}.py"]
            for name in re.findall(r"([A-Z_]+)(?: = |\[)", change):
                assert f"\n{name} = " in source, f"{module}.{name} has gone"
            deployed.module(module, f"{source}\n{change}\n")
        deployed.use(real_torch)
        deployed.pretend_cuda(gpus=gpus, memory_gb=MEMORY_GB, **CARDS[cc])
        kinds = {"rates": "benchmarks", "networks": "benchmarks"}
        asked = {"checks": (), "benchmarks": (), kinds.get(part, "checks"): PARTS[part]}
        # One thread: several wait for each other on a machine that others use.
        return deployed.run(env={"OMP_NUM_THREADS": "1"}, profile=profile, gpu_required=True, limit_s=250.0, **asked)

    return run


def stumbles(run: Any) -> dict[str, str]:
    """Items that did not end as an item on this card may end: id → what they said."""
    found = {}
    for item, end in run.ends().items():
        raised = str(end.get("summary", "")).startswith("raised ")
        if raised or (end["status"] not in GOOD and not (end["status"] == "fail" and item in MAY_FAIL)):
            found[item] = " | ".join(str(end.get(key)) for key in ("status", "summary", "evidence"))
    return found


# Everything on the newest card; what depends on the card's generation on the older ones as well.
CASES = [("standard", "9.0", part) for part in PARTS] + [("smoke", cc, "device") for cc in ("7.0", "8.6")]
CASES.append(("smoke", "7.0", "models"))


@pytest.mark.parametrize(("profile", "cc", "part"), CASES)
def test_no_item_stumbles_on_a_card(on_card, profile, cc, part):
    run = on_card(cc, profile, part)
    assert run.code == 0, run.stderr.decode()
    assert set(run.planned()) == set(run.ends())
    assert stumbles(run) == {}
    if part != "extension":  # it needs no card
        assert run.end("first-kernel")["status"] == "pass"
        assert run.end("first-kernel")["device"] == "cuda:0"
    for item, end in run.ends().items():
        if item.startswith(("silent-cpu", "numerics.", "attention.", "training.")):
            expected = ("skip", None) if item in LACKING[cc] else ("pass", "cuda:0")
            assert (end["status"], end.get("device") if expected[1] else None) == expected, item
    if "export.roundtrip" in run.ends():
        assert run.end("export.roundtrip")["numbers"]["state_dict"] == 0.0
        assert run.end("export.roundtrip")["numbers"]["jit"] == 0.0


def test_two_cards(on_card):
    run = on_card("8.6", "smoke", "rest", gpus=2)
    assert run.end("multi-gpu.p2p")["status"] in {"pass", "warn"}, run.end("multi-gpu.p2p")


def test_a_wrong_call_of_the_cuda_api_is_seen(on_card, deployed):
    deployed.mutate("def mutate(torch): del torch.cuda.Event.elapsed_time")
    found = stumbles(on_card("8.6", "smoke", "device"))
    assert set(found) == {"silent-cpu"}
    assert "elapsed_time" in found["silent-cpu"]


def test_every_item_of_the_profiles_has_its_part():
    rows = json.loads(payload_sources(load_reference())["items.json"])["items"]
    named = {name for part in PARTS.values() for name in part}
    missing = {row["id"] for row in rows if row["id"] not in named and row["id"].split(".")[0] not in named}
    assert missing == ONLY_IN_FULL
