"""Images that misbehave: each verdict exact, nothing left behind, and our own process stays small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from container_bed import Bed, Ended, cause, read_results

Results = dict[str, dict[str, Any]]

OVERRIDDEN = ["segfault", "flood", "no-tmp", "nonroot", "exit-at-once", "entrypoint-swallows"]


@pytest.fixture(scope="module")
def overridden(module_bed: Bed) -> tuple[Results, Ended]:
    """Every check, in images that misbehave although their entrypoint is overridden; and the process that ran them."""
    config = module_bed.write_config(OVERRIDDEN, payload={"profile": "smoke", "benchmarks": [], "timeout": "2m"})
    ended = module_bed.run("run", "--config", config, "--out", "overridden")
    assert module_bed.containers() == []
    return read_results(module_bed.work / "overridden"), ended


@pytest.fixture(scope="module")
def through_entrypoint(module_bed: Bed) -> Results:
    """The same idea with `entrypoint: image`."""
    config = module_bed.write_config(
        ["exit-at-once", "entrypoint-swallows", "torch113"],
        container={"shm_size": "1g", "entrypoint": "image"},
    )
    results = module_bed.results(config)
    assert module_bed.containers() == []
    return results


def statuses(result: dict[str, Any]) -> dict[str, str]:
    return {item["id"]: item["status"] for item in result["checks"]}


def test_a_segfault_costs_one_check_and_not_the_run(overridden: tuple[Results, Ended]) -> None:
    result = overridden[0]["segfault@cpu"]
    assert (result["verdict"], cause(result)) == ("fail", "native-crash")
    assert result["diagnosis"]["where"] == "numerics.gemm.bf16"
    found = statuses(result)
    assert found["numerics.gemm.bf16"] == "crash"
    assert [found[item] for item in ("first-kernel", "numerics.gemm.fp32", "training.cnn")] == ["pass"] * 3
    assert result["exit"]["code"] == 0


def test_a_flood_of_200_mb_changes_no_verdict_and_takes_no_memory(overridden: tuple[Results, Ended]) -> None:
    result = overridden[0]["flood@cpu"]
    assert (result["verdict"], cause(result)) == ("pass", None)
    assert statuses(result)["torch.import"] == "pass", "the flood holds forged events without the marker"
    assert len(result["log"]) <= 16_000
    assert "0123456789abcdef" in result["log"]
    assert overridden[1].max_rss_mib < 300


@pytest.mark.parametrize("image", ["no-tmp", "nonroot", "exit-at-once", "entrypoint-swallows"])
def test_an_odd_image_passes_where_its_torch_works(overridden: tuple[Results, Ended], image: str) -> None:
    result = overridden[0][f"{image}@cpu"]
    assert (result["verdict"], cause(result)) == ("pass", None)
    assert {item["device"] for item in result["checks"] if item["id"] == "training.cnn"} == {"cpu"}


def test_the_user_of_the_image_is_kept(overridden: tuple[Results, Ended]) -> None:
    assert overridden[0]["nonroot@cpu"]["facts"]["user"].startswith("1000:")


@pytest.mark.parametrize(("image", "said"), [("exit-at-once", ""), ("entrypoint-swallows", "hello\n")])
def test_an_entrypoint_that_runs_something_else_is_named(through_entrypoint: Results, image: str, said: str) -> None:
    result = through_entrypoint[f"{image}@cpu"]
    assert (result["verdict"], cause(result)) == ("fail", "payload-never-started")
    assert result["log"] == said
    assert result["checks"] == []


def test_an_image_without_entrypoint_runs_either_way(through_entrypoint: Results) -> None:
    assert through_entrypoint["torch113@cpu"]["verdict"] == "pass"


def test_an_entrypoint_that_never_ends_is_killed_and_named(bed: Bed) -> None:
    config = bed.write_config(
        ["entrypoint-waits"],
        payload={"profile": "smoke", "timeout": "1s"},
        container={"shm_size": "1g", "entrypoint": "image"},
    )
    result = bed.results(config)["entrypoint-waits@cpu"]
    assert (result["verdict"], cause(result)) == ("fail", "payload-never-started")
    assert result["exit"]["timed_out"]
    assert result["log"] == "ready to serve\n"
    assert result["timings"]["total_s"] < 40


def test_a_hang_ends_at_the_time_limit(bed: Bed) -> None:
    payload = {"profile": "smoke", "checks": ["first-kernel"], "benchmarks": [], "timeout": "8s"}
    result = bed.results(bed.write_config(["hang"], payload=payload))["hang@cpu"]
    assert (result["verdict"], cause(result)) == ("fail", "cell-timeout")
    assert statuses(result) == {"torch.import": "pass", "first-kernel": "timeout"}
    assert "about to wait for ever" in str(result["checks"])
    assert result["timings"]["total_s"] < 25


def test_the_memory_limit_kills_one_check_and_is_named(bed: Bed) -> None:
    config = bed.write_config(["oom"], container={"shm_size": "64m", "memory": "500m"})
    result = bed.results(config)["oom@cpu"]
    assert (result["verdict"], cause(result)) == ("fail", "host-oom-kill")
    assert statuses(result) == {"torch.import": "pass", "first-kernel": "crash"}
    assert result["exit"]["oom_killed"]


def test_every_result_of_a_hard_image_can_be_reported(
    overridden: tuple[Results, Ended], module_bed: Bed, tmp_path: Path
) -> None:
    module_bed.run("report", module_bed.work / "overridden", "--out", tmp_path)
    table = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert all(image in table for image in OVERRIDDEN)
    assert "native-crash" in table
