"""The forecast over a plan, with NVIDIA's and PyTorch's own tables."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import make_facts, make_image, make_plan, make_prediction, make_runner
from cuda_matrix.config import ContainerOptions
from cuda_matrix.forecast import (
    OF_NO_RULE,
    asks_for_card,
    host_of,
    image_facts,
    is_doomed,
    machine_of,
    prediction_here,
    said_of,
    turn,
    with_predictions,
    without_doomed,
)
from cuda_matrix.image_facts import ImageFacts
from cuda_matrix.plan import Plan, PlannedImage
from cuda_matrix.prediction import Prediction
from cuda_matrix.reference import load_reference

REFERENCE = load_reference()
OLD = make_image("old", ref="pytorch/pytorch:2.2.0-cuda11.8-cudnn8-runtime")
NEW = make_image("new", ref="pytorch/pytorch:2.2.0-cuda12.1-cudnn8-runtime")
A800 = make_runner("a800", "A800 80GB", "470.129.06")
RTX3090 = make_runner("rtx3090", "RTX 3090", "580.65.06")
CPU = make_runner("cpu", None, None)


def fleet(*images: PlannedImage) -> Plan:
    return with_predictions(make_plan(images=images or (OLD, NEW), runners=(A800, RTX3090, CPU)), {}, REFERENCE)


def said(plan: Plan, cell: str) -> Prediction:
    found = next(each.prediction for each in plan.cells if each.id == cell)
    assert found is not None
    return found


def facts(image: PlannedImage, asked: ImageFacts | None = None) -> ImageFacts:
    return image_facts(image, asked, REFERENCE)


def test_the_articles_matrix_from_its_tags_alone() -> None:
    plan = fleet()
    assert said(plan, "old@a800").runs
    assert said(plan, "old@rtx3090").verdict == "pass"
    assert said(plan, "new@rtx3090").verdict == "pass"
    fails = said(plan, "new@a800")
    assert (fails.verdict, fails.cause, fails.needs_driver) == ("fail", "driver-too-old", "525.60.13")
    assert fails.rule in REFERENCE.rules


def test_cells_that_ask_for_no_card_have_no_prediction() -> None:
    declared = make_image("cpu-image", expect={"cuda": "none"})
    cells = {cell.id: cell.prediction for cell in fleet(NEW, declared).cells}
    assert cells["new@cpu"] is None
    assert cells["cpu-image@a800"] is None
    assert cells["new@a800"] is not None
    assert not asks_for_card(NEW, A800, ContainerOptions(gpus="none"))


def test_the_registry_is_believed_before_the_configuration_and_that_before_the_tag() -> None:
    ref = "pytorch/pytorch:2.2.0-cuda12.1-cudnn8-runtime"
    image = make_image("x", ref=ref, expect={"torch": "2.1.0", "cuda": "11.8"})
    tag = facts(make_image("x", ref=ref))
    assert (tag.torch, tag.cuda) == ("2.2.0", "12.1")
    configured = facts(image)
    assert (configured.torch, configured.cuda, configured.origins["cuda"]) == ("2.1.0", "11.8", "configuration")
    asked = facts(image, ImageFacts(cuda="12.4", origins={"cuda": "env CUDA_VERSION"}))
    assert (asked.torch, asked.cuda, asked.origins["cuda"]) == ("2.1.0", "12.4", "env CUDA_VERSION")


def test_what_a_variant_sets_is_what_the_container_has() -> None:
    env = {
        "LD_LIBRARY_PATH": "/opt/x:/usr/local/cuda-11.8/lib64",
        "NVIDIA_REQUIRE_CUDA": "cuda>=11.8",
        "NVIDIA_DISABLE_REQUIRE": "true",
    }
    asked = ImageFacts(cuda="12.1", require={"NVIDIA_REQUIRE_CUDA": "cuda>=12.1", "NVIDIA_REQUIRE_ARCH": "arch>=8"})
    found = facts(make_image("x", env=env), asked)
    assert (found.cuda, found.disable_require) == ("11.8", True)
    assert found.require == {"NVIDIA_REQUIRE_CUDA": "cuda>=11.8", "NVIDIA_REQUIRE_ARCH": "arch>=8"}
    assert found.origins["cuda"] == "configuration env LD_LIBRARY_PATH"
    switched_off = facts(make_image("x", env={"NVIDIA_DISABLE_REQUIRE": "0"}), ImageFacts(disable_require=True))
    assert switched_off.disable_require is False


def test_the_machine_is_the_one_that_labels_and_options_say() -> None:
    arm = make_runner("gh200").model_copy(update={"labels": ("self-hosted", "ARM64")})
    assert machine_of(arm, ContainerOptions(gpus="cdi"))[2:] == ("aarch64", "cdi")
    assert machine_of(A800, ContainerOptions()) == ("A800 80GB", "470.129.06", None, "hook")
    assert host_of(machine_of(A800, ContainerOptions()), REFERENCE).machine == "x86_64"


@pytest.mark.parametrize(
    ("gpu", "machine"), [("GH200", "aarch64"), ("8.7", "aarch64"), ("12.1", "aarch64"), ("H100", "x86_64")]
)
def test_a_card_that_is_soldered_to_its_cpu_says_which(gpu: str, machine: str) -> None:
    silent = A800.model_copy(update={"gpu": gpu, "labels": ("self-hosted", "lab")})
    assert host_of(machine_of(silent, ContainerOptions()), REFERENCE).machine == machine
    told = silent.model_copy(update={"labels": ("self-hosted", "X64")})
    assert host_of(machine_of(told, ContainerOptions()), REFERENCE).machine == "x86_64"


def test_a_card_that_the_table_lacks_is_no_error() -> None:
    plan = make_plan(images=(NEW,), runners=(make_runner("odd", "Quantum 9000", "470.129.06"),))
    assert said(with_predictions(plan, {}, REFERENCE), "new@odd").cause == "driver-too-old"


def test_doomed_cells_are_skipped_with_rule_source_and_reason() -> None:
    plan = without_doomed(fleet(), REFERENCE)
    assert [cell.id for cell in plan.cells] == ["old@a800", "old@rtx3090", "new@rtx3090", "old@cpu", "new@cpu"]
    (skipped,) = plan.skipped
    assert (skipped.id, skipped.kind) == ("new@a800", "predicted")
    assert skipped.reason.startswith("driver-too-old: ")
    assert skipped.prediction == said(fleet(), "new@a800")
    assert [lane.cells for lane in plan.lanes] == [
        ("old@a800",),
        ("old@rtx3090", "new@rtx3090"),
        ("old@cpu", "new@cpu"),
    ]
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_a_lane_that_is_left_empty_goes_and_the_others_are_counted_anew() -> None:
    plan = with_predictions(make_plan(images=(NEW,), runners=(A800, RTX3090)), {}, REFERENCE)
    left = without_doomed(plan, REFERENCE)
    assert [(lane.index, lane.cells) for lane in left.lanes] == [(0, ("new@rtx3090",))]
    assert [cell.lane for cell in left.cells] == [0]


def test_nothing_doomed_nothing_changed() -> None:
    plan = fleet(OLD)
    assert without_doomed(plan, REFERENCE) is plan


def test_only_a_sure_failure_by_a_sure_rule_is_left_out() -> None:
    certain = next(rule.id for rule in REFERENCE.rules.values() if rule.certainty != "uncertain")
    assert is_doomed(make_prediction("fail", rule=certain), REFERENCE)
    assert is_doomed(make_prediction("host-failed", rule=certain, confidence=0.9), REFERENCE)
    assert not is_doomed(make_prediction("fail", rule=certain, confidence=0.89), REFERENCE)
    assert not is_doomed(make_prediction("warn", rule=certain), REFERENCE)
    assert not is_doomed(make_prediction("unknown", rule=certain), REFERENCE)
    assert not is_doomed(make_prediction("fail", rule="no-such-rule"), REFERENCE)
    doubtful = {name: rule.model_copy(update={"certainty": "uncertain"}) for name, rule in REFERENCE.rules.items()}
    reference = REFERENCE.model_copy(update={"rules": doubtful})
    assert not is_doomed(make_prediction("fail", rule=certain), reference)


def here(image: PlannedImage, **seen: object) -> Prediction | None:
    known = image.model_copy(update={"facts": facts(image)})
    return prediction_here(known, machine_of(A800, ContainerOptions()), make_facts(gpus=(), **seen), REFERENCE)


def test_the_machine_that_was_meant_needs_no_second_prediction() -> None:
    assert here(NEW, driver="470.129.06") is None
    assert here(NEW, driver=None) is None
    assert here(NEW, driver="470.129.06", device_name="NVIDIA A800 80GB PCIe", device_capability="8.0") is None


def test_another_driver_than_configured_is_judged_anew() -> None:
    found = here(NEW, driver="580.65.06")
    assert found is not None
    assert found.runs


def test_another_card_than_configured_is_judged_anew() -> None:
    found = here(OLD, driver="580.65.06", device_name="NVIDIA B200", device_capability="10.0")
    assert found is not None
    assert found.cause == "arch-no-kernel"  # its newest machine code is sm_90


@pytest.mark.parametrize("driver", ["../../x", "470", "", "9" * 2_000, "1.2.3.4"])
def test_a_driver_that_a_container_made_up_counts_as_not_seen(driver: str) -> None:
    assert here(NEW, driver=driver) is None


@given(st.text(max_size=2_000), st.text(max_size=2_000), st.text(max_size=2_000))
def test_nothing_that_a_container_says_breaks_it(driver: str, name: str, capability: str) -> None:
    here(NEW, driver=driver, device_name=name, device_capability=capability, machine=name)
    here(NEW, driver="580.65.06", device_name=name, device_capability="9.9")


def test_an_image_without_facts_is_not_judged() -> None:
    machine = machine_of(A800, ContainerOptions())
    assert prediction_here(NEW, machine, make_facts(driver="580.65.06"), REFERENCE) is None


GREEN, RED, UNKNOWN = make_prediction("pass"), make_prediction("fail", "driver-too-old"), make_prediction("unknown")


@pytest.mark.parametrize(
    ("before", "after", "measured", "expected"),
    [
        (RED, GREEN, None, "green"),
        (GREEN, RED, None, "red"),
        (GREEN, make_prediction("warn"), None, "stays"),
        (RED, make_prediction("host-failed"), None, "stays"),
        (UNKNOWN, GREEN, None, "unknown"),
        (GREEN, UNKNOWN, None, "unknown"),
        (RED, GREEN, False, "green"),
        (RED, GREEN, True, "unknown"),
        (GREEN, GREEN, False, "unknown"),
        (GREEN, RED, True, "red"),
        (UNKNOWN, GREEN, True, "unknown"),
    ],
)
def test_what_another_driver_makes_of_a_cell(
    before: Prediction, after: Prediction, measured: bool | None, expected: str
) -> None:
    assert turn(before, after, measured) == expected


def test_what_another_driver_would_change() -> None:
    plan = fleet()
    machine = machine_of(A800, plan.container)
    newer = machine._replace(driver="535.129.03")
    assert said_of(plan.images["new"], machine, REFERENCE).fails
    assert said_of(plan.images["new"], newer, REFERENCE).runs


CHANGED = {
    "ref": "other:1",
    "digest": "sha256:" + "9" * 64,
    "cudnn": "9.9",
    "python": "3.99",
    "size_bytes": 9,
    "created": datetime(2020, 1, 1, tzinfo=timezone.utc),
    "entrypoint": ("x",),
    "user": "x",
}


def test_what_no_rule_asks_changes_no_prediction() -> None:
    """Images that differ in these facts alone share their predictions."""
    assert set(CHANGED) == OF_NO_RULE
    for ref in (OLD.ref, NEW.ref, "nvidia/cuda:12.8.1-devel-ubuntu22.04", "lab/x:1"):
        image = make_image("x", ref=ref, facts=facts(make_image("x", ref=ref)))
        assert image.facts is not None
        other = image.model_copy(update={"facts": image.facts.model_copy(update=CHANGED)})
        for runner in (A800, RTX3090):
            machine = machine_of(runner, ContainerOptions())
            assert said_of(image, machine, REFERENCE) == said_of(other, machine, REFERENCE)


def test_a_cell_is_not_left_out_on_a_guess() -> None:
    """Each would be refused by its driver: by a stranger's tag, by a configured release, by a requirement alone."""
    asks = ImageFacts(cuda="12.8", torch="2.7.0", require={"NVIDIA_REQUIRE_CUDA": "cuda>=12.8"})
    images = (
        make_image("tag", ref="lab/train:2.5.1-cuda12.4-cudnn9-runtime"),
        make_image("named", ref="lab/train:1", expect={"torch": "2.5.1", "cuda": "12.4"}),
        make_image("asks", ref="lab/train:2"),
    )
    runner = A800.model_copy(update={"driver": "470.129.06"})
    newer = make_runner("newer", "A800 80GB", "550.54.15")  # CUDA itself would start here, were nobody to check
    plan = with_predictions(make_plan(images=images, runners=(runner, newer)), {"lab/train:2": asks}, REFERENCE)
    for cell in ("tag@a800", "named@a800", "asks@newer"):
        assert said(plan, cell).verdict == "fail"
    assert without_doomed(plan, REFERENCE) is plan
