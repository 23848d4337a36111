"""Whole profiles in real containers, with the CPU builds of PyTorch that Debian packs: 1.13, 2.6 and its newest."""

from __future__ import annotations

from typing import Any

import pytest

from container_bed import Bed, cause
from cuda_matrix.reference import load_items

IMAGES = ["torch113", "torch26", "torch-newest"]
BAD = {"fail", "crash", "timeout"}

Results = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def smoke(module_bed: Bed) -> Results:
    """Everything that smoke has, one image after another; image → result."""
    config = module_bed.write_config(
        IMAGES,
        payload={"profile": "smoke", "checks": ["*"], "benchmarks": ["*"], "timeout": "4m"},
        container={"shm_size": "1g", "memory": "8g"},
    )
    return {cell.partition("@")[0]: result for cell, result in module_bed.results(config).items()}


@pytest.mark.parametrize("image", IMAGES)
def test_smoke_is_green(smoke: Results, image: str) -> None:
    result = smoke[image]
    items = (*result["checks"], *result["benchmarks"])
    assert {each["id"]: each["summary"] for each in items if each["status"] in BAD} == {}
    # A busy machine may scatter samples; nothing else may be remarked.
    assert result["verdict"] in {"pass", "warn"}
    assert [remark for remark in result["remarks"] if "samples vary" not in remark] == []
    passed = {each["id"] for each in items if each["status"] == "pass"}
    assert {"torch.import", "first-kernel", "numerics.gemm.fp32", "numerics.conv2d", "numerics.rng"} <= passed
    assert {"attention.sdpa", "training.cnn", "training.transformer", "export.roundtrip", "libs.stack"} <= passed


@pytest.mark.parametrize("image", IMAGES)
def test_every_item_of_the_profile_has_its_result(smoke: Results, image: str) -> None:
    found = [each["id"] for each in (*smoke[image]["checks"], *smoke[image]["benchmarks"])]
    assert sorted(found) == sorted(item.id for item in load_items().items if "smoke" in item.limits_s)


def test_the_newest_torch_is_newer_than_the_other_two(smoke: Results) -> None:
    versions = [tuple(map(int, smoke[image]["facts"]["torch"].split(".")[:2])) for image in IMAGES]
    assert versions == sorted(versions)
    assert versions[-1] >= (2, 14)


def test_dockers_own_64_mb_of_shared_memory_are_found_out(bed: Bed) -> None:
    config = bed.write_config(
        ["torch26"],
        payload={"profile": "standard", "checks": ["container.shm", "dataloader"], "benchmarks": [], "timeout": "3m"},
        container={"shm_size": "64m", "memory": "8g"},
    )
    result = bed.results(config)["torch26@cpu"]
    statuses = {each["id"]: each["status"] for each in result["checks"]}
    assert (statuses["container.shm"], statuses["dataloader"]) == ("warn", "fail")
    assert (result["verdict"], cause(result)) == ("fail", "shm-too-small")
