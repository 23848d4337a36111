"""plan → run → report, as a workflow does it: four images, two simulated cards, and a runner without a card."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from container_bed import Bed, cause, read_results

IMAGES = ["torch113", "torch26", "python", "bare"]
RUNNERS = {
    "rtx3090": {"labels": ["rtx3090"], "gpu": "RTX 3090", "driver": "550.54.15"},
    "a800": {"labels": ["a800"], "gpu": "A800", "driver": "470.129.06"},
    "cpu": {"labels": ["cpu"]},
}
CAUSES = {
    "torch113": "cpu-only-torch",
    "torch26": "cpu-only-torch",
    "python": "torch-missing",
    "bare": "python-missing",
}


class Pipeline:
    """What one workflow left behind."""

    def __init__(self, plan: dict[str, Any], results: dict[str, dict[str, Any]], report: Path) -> None:
        self.plan = plan
        self.results = results
        self.report = report


@pytest.fixture(scope="module")
def pipeline(module_bed: Bed) -> Pipeline:
    bed = module_bed
    payload = {"profile": "smoke", "benchmarks": ["resnet50"], "timeout": "3m"}
    config = bed.write_config(IMAGES, runners=RUNNERS, payload=payload)
    plan_file = bed.work / "plan.json"
    plan_file.write_text(bed.run("plan", "--config", config, "--format", "json").stdout, encoding="utf-8")
    plan = json.loads(plan_file.read_text(encoding="utf-8"))
    assert bed.card_file is not None
    for lane in plan["lanes"]:  # one job per lane, each on its own machine
        bed.card_file.write_text(lane["runner"] if lane["runner"] != "cpu" else "")
        bed.run("run", "--plan", plan_file, "--lane", str(lane["index"]), "--out", f"artifacts/{lane['index']}")
    bed.card_file.unlink()
    bed.run("report", "artifacts", "--out", "report")
    results: dict[str, dict[str, Any]] = {}
    for lane in plan["lanes"]:
        results.update(read_results(bed.work / "artifacts" / str(lane["index"])))
    assert bed.containers() == []
    return Pipeline(plan, results, bed.work / "report")


def test_every_planned_cell_has_a_result(pipeline: Pipeline) -> None:
    assert {cell["id"] for cell in pipeline.plan["cells"]} == set(pipeline.results)
    assert len(pipeline.results) == 12


@pytest.mark.parametrize("runner", ["rtx3090", "a800"])
@pytest.mark.parametrize("image", IMAGES)
def test_on_a_card_each_image_fails_for_its_own_reason(pipeline: Pipeline, image: str, runner: str) -> None:
    result = pipeline.results[f"{image}@{runner}"]
    assert (result["verdict"], cause(result)) == ("fail", CAUSES[image])
    assert result["facts"]["driver"] == RUNNERS[runner]["driver"]


@pytest.mark.parametrize(
    ("runner", "name", "memory_mib"),
    [("rtx3090", "NVIDIA GeForce RTX 3090", 24576), ("a800", "NVIDIA A800 80GB PCIe", 81251)],
)
@pytest.mark.parametrize("image", ["torch113", "torch26", "python"])
def test_the_card_is_named_and_its_uuid_is_not(
    pipeline: Pipeline, image: str, runner: str, name: str, memory_mib: int
) -> None:
    result = pipeline.results[f"{image}@{runner}"]
    [gpu] = result["facts"]["gpus"]
    assert (gpu["name"], gpu["memory_mib"]) == (name, memory_mib)
    assert "7e57ca4d" not in json.dumps(result)


@pytest.mark.parametrize("image", ["torch113", "torch26"])
def test_without_a_card_torch_works_and_is_measured_on_the_cpu(pipeline: Pipeline, image: str) -> None:
    result = pipeline.results[f"{image}@cpu"]
    # A busy machine may scatter the samples; nothing else may be remarked.
    assert result["verdict"] in {"pass", "warn"}
    assert all("samples vary" in remark for remark in result["remarks"])
    [resnet] = result["benchmarks"]
    assert (resnet["id"], resnet["device"], resnet["unit"]) == ("resnet50.train", "cpu", "images/s")
    assert resnet["samples"]["median"] > 0
    assert resnet["samples"]["n"] > 1
    assert resnet["numbers"]["peak_memory_gb"] > 0.05
    assert {item["device"] for item in result["checks"]} == {None, "cpu"}
    assert result["facts"]["torch"].startswith({"torch113": "1.13", "torch26": "2.6"}[image])


@pytest.mark.parametrize("image", IMAGES)
def test_the_digest_is_the_registrys(pipeline: Pipeline, module_bed: Bed, image: str) -> None:
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    request = urllib.request.Request(
        f"http://{module_bed.registry}/v2/cm/{image}/manifests/test", headers={"Accept": kind}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        digest = answer.headers["Docker-Content-Digest"]
    assert pipeline.plan["images"][image]["digest"] == digest
    assert {pipeline.results[f"{image}@{runner}"]["image"]["digest"] for runner in RUNNERS} == {digest}


def test_the_report_shows_both_cards_and_what_was_measured(pipeline: Pipeline) -> None:
    text = (pipeline.report / "report.md").read_text(encoding="utf-8")
    for words in ("RTX 3090", "A800", "550.54.15", "470.129.06", "cpu-only-torch", "torch-missing", "python-missing"):
        assert words in text
    assert {path.name for path in pipeline.report.iterdir()} >= {"report.md", "index.html", "report.json", "junit.xml"}
