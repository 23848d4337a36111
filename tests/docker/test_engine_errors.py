"""What Docker, the registry and the machine can refuse: the real messages, each with its cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from container_bed import Bed, cause

RTX3090: dict[str, Any] = {"runners": {"gpu": {"labels": ["gpu"], "gpu": "RTX 3090"}}}


def test_launches_that_cannot_work(bed: Bed) -> None:
    nowhere = {"id": "registry-down", "ref": "127.0.0.1:9/cm/bare:test"}  # port 9 (discard): nobody listens
    missing = {"id": "no-such-tag", "ref": bed.ref("bare").replace(":test", ":none")}
    results = bed.results(bed.write_config([missing, nowhere, "arm64", "scratch"]))
    found = {cell.partition("@")[0]: (result["verdict"], cause(result)) for cell, result in results.items()}
    assert found == {
        "no-such-tag": ("fail", "image-not-found"),
        "registry-down": ("inconclusive", "registry-unreachable"),
        "arm64": ("fail", "platform-mismatch"),
        "scratch": ("fail", "no-shell"),
    }
    assert "manifest unknown" in results["no-such-tag@cpu"]["diagnosis"]["evidence"]
    assert "connection refused" in results["registry-down@cpu"]["diagnosis"]["evidence"]
    assert "exec format error" in results["arm64@cpu"]["diagnosis"]["evidence"]


@pytest.mark.parametrize(
    ("card", "expected"),
    [("no-driver", "toolkit-cannot-load-driver"), ("a800", "runner-card-mismatch")],
)
def test_a_machine_that_is_not_what_it_should_be(
    bed: Bed, show_card: Callable[[str], None], card: str, expected: str
) -> None:
    show_card(card)
    payload = {"profile": "smoke", "checks": ["host.driver"], "benchmarks": []}
    result = bed.results(bed.write_config(["python"], payload=payload, **RTX3090))["python@gpu"]
    assert (result["verdict"], cause(result)) == ("host-failed", expected)


def test_an_image_that_demands_a_newer_driver(bed: Bed, show_card: Callable[[str], None]) -> None:
    show_card("a800")
    image = {
        "id": "python",
        "ref": bed.ref("python"),
        "variants": {"cu121": {"env": {"NVIDIA_REQUIRE_CUDA": "cuda>=12.1"}}},
    }
    config = bed.write_config([image], runners={"gpu": {"labels": ["gpu"], "gpu": "A800"}})
    result = bed.results(config)["python+cu121@gpu"]
    assert cause(result) == "image-require-unsatisfied"
    assert "unsatisfied condition: cuda>=12.1" in result["diagnosis"]["evidence"]


def test_an_engine_without_gpu_support_is_the_machines_fault(bare_engine: Bed) -> None:
    result = bare_engine.results(bare_engine.write_config(["bare"], **RTX3090))["bare@gpu"]
    assert (result["verdict"], cause(result)) == ("host-failed", "toolkit-missing")
    assert 'could not select device driver "" with capabilities: [[gpu]]' in result["diagnosis"]["evidence"]
    assert result["timings"]["total_s"] > 0
    assert bare_engine.containers() == []


@pytest.mark.parametrize("docker_host", ["unix:///nonexistent/docker.sock", "tcp://127.0.0.1:9"])
def test_no_engine_at_all_is_exit_3_with_a_way_out(bed: Bed, docker_host: str) -> None:
    config = bed.write_config(["bare"])
    ended = bed.run("run", "--config", config, "--out", "results", docker_host=docker_host, code=3)
    assert docker_host.rpartition("/")[2] in ended.stderr
    assert "hint: " in ended.stderr
    assert "Traceback" not in ended.stderr
