from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import PAYLOAD, STARTED, make_facts, make_image, make_plan, make_result, make_runner
from cuda_matrix.changes import Since, Today, reason_to_run, touched, without_unchanged
from cuda_matrix.config import PayloadOptions
from cuda_matrix.model import EngineName, Verdict
from cuda_matrix.plan import Plan, demand_sha256
from cuda_matrix.result import CellResult, ImageIdentity

CELL = "good@rtx4090"
RUNNERS = make_plan().runners
TODAY = Today(PAYLOAD, "0.1.0", STARTED + timedelta(days=2), timedelta(days=14))


def asked(plan: Plan) -> str:
    return demand_sha256(plan.images["good"], plan.payload, plan.container)


def accepted(plan: Plan, **values: Any) -> CellResult:
    """A result that answers just what this plan asks."""
    return make_result(CELL, **{"demand_sha256": asked(plan), **values})


def since(result: CellResult | None, *files: str) -> Since:
    return Since("abc123", {} if result is None else {result.cell: result}, files, {CELL: ()}, RUNNERS)


def reason(plan: Plan, result: CellResult | None, *files: str, today: Today = TODAY) -> str:
    return reason_to_run(plan, plan.cells[0], since(result, *files), today)


def test_a_cell_with_nothing_new_is_left_out_with_its_day() -> None:
    plan = make_plan()
    left = without_unchanged(plan, since(accepted(plan)), TODAY).plan
    assert (left.cells, left.lanes) == ((), ())
    (skipped,) = left.skipped
    assert (skipped.id, skipped.kind) == (CELL, "unchanged")
    assert skipped.reason == "pass on 2026-11-21 with the same image, card, driver, payload and configuration"


def test_the_other_cells_keep_their_lanes() -> None:
    plan = make_plan(images=("good", "other"))
    left = without_unchanged(plan, since(accepted(plan)), TODAY).plan
    assert [cell.id for cell in left.cells] == ["other@rtx4090"]
    assert [lane.cells for lane in left.lanes] == [("other@rtx4090",)]


OTHER_DIGEST = "sha256:" + "34" * 32


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"verdict": Verdict.FAIL}, "its last result is fail"),
        ({"verdict": Verdict.UNEXPECTED_PASS}, "unexpected-pass"),
        ({"engine": EngineName.SIMULATED}, "simulated engine"),
        ({"engine": EngineName.LOCAL}, "local engine"),
        ({"started_at": STARTED - timedelta(days=13)}, "15 days old"),
        ({"started_at": STARTED + timedelta(days=3)}, "from the future"),
        ({"payload_sha256": "sha256:" + "00" * 32}, "the payload has changed"),
        ({"tool_version": "0.0.9"}, "cuda-matrix 0.0.9"),
        ({"image": ImageIdentity(id="good", ref="example.org/good:2", digest=OTHER_DIGEST)}, "example.org/good:2"),
        ({"image": ImageIdentity(id="good", ref="example.org/good:1", digest=OTHER_DIGEST)}, "pushed again"),
        ({"image": ImageIdentity(id="good", ref="example.org/good:1")}, "pushed again"),
        ({"gpu": "RTX 3090"}, "of RTX 3090"),
        ({"gpu": None}, "of no card"),
        ({"facts": make_facts(driver="535.54.03")}, "driver 535.54.03, 550.54.15 is declared"),
        ({"facts": make_facts(driver=None)}, "driver unknown"),
        ({"demand_sha256": None}, "the configuration asks"),
        ({"demand_sha256": "00" * 32}, "the configuration asks"),
    ],
)
def test_whatever_a_result_depends_on_makes_it_run(values: dict[str, Any], words: str) -> None:
    plan = make_plan()
    result = accepted(plan, **values)
    assert words in reason(plan, result)
    assert without_unchanged(plan, since(result), TODAY).plan == plan


def test_without_a_result_it_runs() -> None:
    assert reason(make_plan(), None) == "no accepted result at abc123"


def test_an_unknown_digest_or_driver_is_a_doubt() -> None:
    nameless = make_plan(images=(make_image("good", digest=None),))
    assert "digest of its image is not known" in reason(nameless, accepted(nameless))
    undeclared = make_plan(runners=(make_runner("rtx4090", driver=None),))
    assert "not declared" in reason(undeclared, accepted(undeclared))


def test_a_machine_without_a_card_needs_no_driver() -> None:
    plan = make_plan(runners=(make_runner("rtx4090", gpu=None, driver=None),))
    assert reason(plan, accepted(plan, gpu=None)) == ""


def test_another_profile_asks_for_something_else() -> None:
    plan = make_plan()
    later = plan.model_copy(update={"payload": PayloadOptions(profile="full")})
    assert reason(later, accepted(plan)) == "the configuration asks for something else than before"


@pytest.mark.parametrize(
    ("globs", "file", "hit"),
    [
        (("images/torch/**",), "images/torch/Dockerfile", True),
        (("images/torch/**",), "images/torch/deep/er/file", True),
        (("images/torch",), "images/torch/Dockerfile", True),
        (("images/torch/",), "images/torch/Dockerfile", True),
        (("./images/torch/*",), "images/torch/Dockerfile", True),
        (("images/torch/**",), "images/torchvision/Dockerfile", False),
        (("*.txt", "a"), "b/requirements.txt", True),
        (("/images/torch/*",), "images/torch/Dockerfile", True),
        (("images/x/../torch",), "images/torch/Dockerfile", True),
        (("**/Dockerfile",), "Dockerfile", True),
        (("**/Dockerfile",), "a/b/Dockerfile", True),
        (("images/**/Dockerfile",), "images/Dockerfile", True),
        (("images/[x]/**",), "images/[x]/Dockerfile", True),
        (("images/[x]/**",), "images/x/Dockerfile", False),
        (("lib/kernels/**",), "lib/kernels/", True),  # submodules: nobody knows what of them changed
        (("lib/kernels/src/*.cu",), "lib/kernels/", True),
        (("lib/kernels",), "lib/kernels/", True),
        (("lib",), "lib/kernels/", True),
        (("lib/**",), "library/", False),
        ((), "anything", False),
    ],
)
def test_files_of_an_image(globs: tuple[str, ...], file: str, hit: bool) -> None:
    image = make_image("good", paths=globs)
    assert touched(image, ["other", file]) == (file if hit else "")
    plan = make_plan(images=(image,))
    assert reason(plan, accepted(plan), file) == (f"{file} has changed" if hit else "")


@pytest.mark.parametrize("glob", [".", "./", "/", "*", "**", "**/*", "a/.."])
def test_everything_is_everything(glob: str) -> None:
    image = make_image("good", paths=(glob,))
    assert [touched(image, [file]) for file in ("top", "deep/er/file", "lib/")] == ["top", "deep/er/file", "lib/"]


@given(days=st.floats(-30, 60), limit=st.integers(1, 40))
def test_age_only_ever_adds_reasons(days: float, limit: int) -> None:
    plan = make_plan()
    today = replace(TODAY, now=STARTED + timedelta(days=days), max_age=timedelta(days=limit))
    fresh = -timedelta(minutes=10) <= timedelta(days=days) <= timedelta(days=limit)
    assert (reason(plan, accepted(plan), today=today) == "") is fresh


def test_what_was_merged_after_the_result_counts() -> None:
    plan = make_plan(images=(make_image("good", paths=("images/good/**",)),))
    result = accepted(plan)
    whole = since(result)

    def doubt(files: tuple[str, ...] | None) -> str:
        return reason_to_run(plan, plan.cells[0], replace(whole, earlier={CELL: files}), TODAY)

    assert doubt(()) == doubt(("images/other/Dockerfile",)) == ""
    assert doubt(("images/good/Dockerfile",)) == "images/good/Dockerfile has changed since its last result"
    assert "does not hold the files" in doubt(None)
    assert "does not hold the files" in reason_to_run(plan, plan.cells[0], replace(whole, earlier={}), TODAY)


@pytest.mark.parametrize("change", [{"labels": ("other",)}, {"docker_host": "ssh://other"}])
def test_another_machine_runs_again(change: dict[str, Any]) -> None:
    plan = make_plan()
    before = {"rtx4090": plan.runners["rtx4090"].model_copy(update=change)}
    whole = since(accepted(plan))
    assert "may be another machine" in reason_to_run(plan, plan.cells[0], replace(whole, runners=before), TODAY)
    assert "may be another machine" in reason_to_run(plan, plan.cells[0], replace(whole, runners={}), TODAY)
