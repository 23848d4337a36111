from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import DIGEST, STARTED, make_image, make_plan, make_result, make_runner
from cuda_matrix.config import Config, ExpectFail, Policy
from cuda_matrix.gate import GOOD, judge, utc
from cuda_matrix.matrix import expand
from cuda_matrix.model import EngineName, Verdict
from cuda_matrix.plan import Plan
from cuda_matrix.promote import Decision, Demanded, Promotion, as_configured, decide
from cuda_matrix.result import CellResult, ImageIdentity

OTHER = "sha256:" + "34" * 32
NOW = STARTED + timedelta(days=1)
NAMES = ("rtx3090", "rtx4090")
RUNNERS = (make_runner("rtx3090", "RTX 3090"), "rtx4090")


def released(name: str = "a", **values: Any) -> Any:
    return make_image(name, release=(f"example.org/{name}:stable",), **values)


def identity(name: str = "a", digest: str | None = DIGEST) -> ImageIdentity:
    return ImageIdentity(id=name, ref=f"example.org/{name}:1", digest=digest)


def plan_of(*images: Any, **values: Any) -> Plan:
    return make_plan(images=images or (released(),), runners=("rtx4090",), **values)


def decided(plan: Plan, *results: CellResult, now: datetime = NOW, demanded: Demanded | None = None) -> Decision:
    return decide(plan, judge(plan, results, now.date()), now, demanded)


GOOD_RESULT = make_result("a@rtx4090")


def test_what_passed_gets_its_tags() -> None:
    plan = plan_of(released(), "b")
    found = decided(plan, GOOD_RESULT, make_result("b@rtx4090"))
    promotion = Promotion("a", "example.org/a:1", DIGEST, ("example.org/a:stable",), ("a@rtx4090",))
    assert found == Decision(promotions=(promotion,))


def test_variants_are_promoted_together() -> None:
    rows = {f"a+{name}": released(variant=name) for name in ("x", "y")}
    plan = plan_of()
    cells = [plan.cells[0].model_copy(update={"id": f"{key}@rtx4090", "image": key}) for key in rows]
    plan = plan.model_copy(update={"images": rows, "cells": tuple(cells)})
    x = make_result("a+x@rtx4090", image=identity())
    y = make_result("a+y@rtx4090", image=identity())
    assert [each.cells for each in decided(plan, x, y).promotions] == [("a+x@rtx4090", "a+y@rtx4090")]
    unpinned = {key: row.model_copy(update={"digest": None}) for key, row in rows.items()}
    moved = y.model_copy(update={"image": identity(digest=OTHER)})
    (reason,) = decided(plan.model_copy(update={"images": unpinned}), x, moved).reasons
    assert reason == f"a: different digests were tested: {DIGEST} (a+x@rtx4090); {OTHER} (a+y@rtx4090)"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"engine": EngineName.SIMULATED}, "its result is of the simulated engine: no image was run for it"),
        ({"engine": EngineName.LOCAL}, "its result is of the local engine: no image was run for it"),
        ({"image": identity(digest=None)}, "its image has no digest of a registry"),
        ({"started_at": NOW - timedelta(days=14, minutes=1)}, "its result is 14 days old; policy.max_age is 14 days"),
        ({"started_at": NOW + timedelta(minutes=11)}, "its result is from the future (by 11 minutes)"),
    ],
)
def test_results_that_prove_nothing(change: dict[str, Any], words: str) -> None:
    found = decided(plan_of(), GOOD_RESULT.model_copy(update=change))
    assert not found.promotions
    assert found.reasons[0].startswith(f"a: a@rtx4090: {words}")


@pytest.mark.parametrize("moment", [NOW - timedelta(days=14), NOW + timedelta(minutes=10)])
def test_the_bounds_of_time(moment: datetime) -> None:
    assert decided(plan_of(), GOOD_RESULT.model_copy(update={"started_at": moment})).promotions


def test_the_policy_says_how_old() -> None:
    plan = plan_of(policy=Policy.model_validate({"max_age": "23h"}))
    assert "its result is 24.0 hours old; policy.max_age is 23.0 hours" in decided(plan, GOOD_RESULT).reasons[0]


def test_the_gate_says_no() -> None:
    plan = plan_of(released(), "b")
    found = decided(plan, GOOD_RESULT, make_result("b@rtx4090", Verdict.FAIL))
    assert found == Decision(reasons=("1 required cell fails: b@rtx4090",))


def test_one_image_that_may_not_holds_the_others_back() -> None:
    plan = plan_of(released(), released("b"))
    found = decided(plan, GOOD_RESULT, make_result("b@rtx4090", engine=EngineName.LOCAL))
    assert found.promotions == ()
    assert [reason.partition(":")[0] for reason in found.reasons] == ["b"]


def test_an_expected_failure_is_told_and_proves_nothing_alone() -> None:
    entry = ExpectFail(cell="a@rtx3090", until="2026-12-31", reason="known")
    plan = make_plan(images=(released(),), runners=RUNNERS, policy=Policy(expect_fail=(entry,)))
    failed = make_result("a@rtx3090", Verdict.FAIL)
    found = decided(plan, GOOD_RESULT, failed)
    assert found.promotions
    assert found.notes == ("a: failed as the policy expects: a@rtx3090",)
    lonely = make_plan(images=(released(),), runners=RUNNERS[:1], policy=Policy(expect_fail=(entry,)))
    assert decided(lonely, failed).reasons == ("a: none of its cells passed",)


def test_what_is_accepted_until_yesterday_is_not_released_today() -> None:
    entry = ExpectFail(cell="a@rtx3090", until="2026-11-21", reason="known")
    plan = make_plan(images=(released(),), runners=RUNNERS, policy=Policy(expect_fail=(entry,)))
    found = decided(plan, GOOD_RESULT, make_result("a@rtx3090", Verdict.FAIL))
    assert found.promotions == ()


@pytest.mark.parametrize("kind", ["predicted", "excluded"])
def test_a_cell_that_was_not_run_is_told(kind: str) -> None:
    plan = make_plan(images=(released(),), runners=RUNNERS, skipped=(("a", "rtx3090", kind, "because"),))
    found = decided(plan, GOOD_RESULT)
    assert found.promotions
    assert found.notes == (f"a: not run ({kind}): a@rtx3090",)


def unchanged(**values: Any) -> Plan:
    plan = make_plan(images=(released(),), runners=RUNNERS, skipped=(("a", "rtx3090", "unchanged", "as before"),))
    return plan.model_copy(update={"skipped": (plan.skipped[0].model_copy(update=values),)})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"digest": DIGEST, "tested_at": STARTED}, ""),
        ({}, "does not say since when, and with which digest"),
        ({"digest": DIGEST}, "does not say since when"),
        ({"digest": OTHER, "tested_at": STARTED}, f"different digests were tested: {DIGEST} (a@rtx4090, the plan)"),
        ({"digest": DIGEST, "tested_at": NOW - timedelta(days=15)}, "its result is 15 days old"),
    ],
)
def test_an_unchanged_cell_counts_with_its_digest_alone(values: dict[str, Any], words: str) -> None:
    found = decided(unchanged(**values), GOOD_RESULT)
    assert bool(found.promotions) is not bool(words)
    assert words in "; ".join(found.reasons)


def test_an_image_of_which_nothing_is_required() -> None:
    plan = plan_of(released(), "b", policy=Policy(required=("b@*",)))
    found = decided(plan, GOOD_RESULT, make_result("b@rtx4090"))
    assert found.reasons == ("a: no cell of it is required (policy.required), so nothing was demanded of it",)


def test_a_failure_that_is_not_required_is_told() -> None:
    plan = make_plan(images=(released(),), runners=RUNNERS, policy=Policy(required=("*@rtx4090",)))
    found = decided(plan, GOOD_RESULT, make_result("a@rtx3090", Verdict.HOST_FAILED))
    assert found.promotions
    assert found.notes == ("a: host-failed, but not required: a@rtx3090",)


def test_what_did_not_run_at_all_is_no_release() -> None:
    """`unchanged` is the plan's word: it may complete a release of what passed here, never be one."""
    plan = unchanged(digest=DIGEST, tested_at=STARTED)
    other = plan.skipped[0].model_copy(update={"id": "a@rtx4090", "runner": "rtx4090"})
    plan = plan.model_copy(update={"cells": (), "skipped": (*plan.skipped, other)})
    assert judge(plan, (), NOW.date()).released
    assert decided(plan).reasons == (
        "a: none of its cells passed in this run (unchanged since another): plan all of it anew",
    )


CONFIG = {
    "version": 1,
    "images": [{"id": "a", "ref": "example.org/a:1", "release": ["example.org/a:new"]}],
    "runners": {"rtx4090": {"labels": ["x"]}, "rtx3090": {"labels": ["x"]}},
}


def configured(**values: Any) -> tuple[Config, Any]:
    config = Config.model_validate({**CONFIG, **values})
    return config, expand(config)


def test_a_part_of_the_matrix_needs_the_configuration() -> None:
    part = plan_of().model_copy(update={"matrix_cells": 2})
    assert decided(part, GOOD_RESULT).reasons == (
        "only 1 of 2 cells of the matrix were selected: say with --config what the others are",
    )
    plan, demanded = as_configured(part, *configured())
    assert decided(plan, GOOD_RESULT, demanded=demanded).reasons == ("a: required, but not in the plan: a@rtx3090",)
    plan, demanded = as_configured(part, *configured(policy={"required": ["*@rtx4090"]}))
    (promotion,) = decided(plan, GOOD_RESULT, demanded=demanded).promotions
    assert promotion.targets == ("example.org/a:new",)


def test_a_configuration_that_has_moved_on() -> None:
    """An image that is gone from it is not released; another reference was not tested; a new image was not either."""
    runners = {"rtx4090": {"labels": ["x"]}}
    gone = [{"id": "b", "ref": "example.org/b:1", "release": ["example.org/b:new"]}]
    plan, demanded = as_configured(plan_of(), *configured(images=gone, runners=runners))
    assert decided(plan, GOOD_RESULT, demanded=demanded).reasons == (
        "b: required, but not in the plan: b@rtx4090",
        "b: no cell of it is required (policy.required), so nothing was demanded of it",
        "b: none of its cells passed",
    )
    elsewhere = [{**CONFIG["images"][0], "ref": "example.org/a:2"}]  # type: ignore[index]
    plan, demanded = as_configured(plan_of(), *configured(images=elsewhere, runners=runners))
    assert decided(plan, GOOD_RESULT, demanded=demanded).reasons == ("1 required cell did not run: a@rtx4090",)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (make_image("a", release=("evil.example/a:1",)), "is of evil.example"),
        (make_image("a", release=("example.org/a:1",)), "is what this image is tested from"),
        (make_image("a", ref="http://x/y", release=("x/y:1",)), "leave http:// away"),
    ],
)
def test_a_plan_from_elsewhere_is_not_believed(row: Any, words: str) -> None:
    result = GOOD_RESULT.model_copy(update={"image": identity().model_copy(update={"ref": row.ref})})
    found = decided(plan_of(row), result)
    assert found.promotions == ()
    assert words in found.reasons[0]


outcome = st.builds(
    lambda verdict, engine, digest, age_h: {
        "verdict": verdict,
        "engine": engine,
        "digest": digest,
        "started_at": NOW - timedelta(hours=age_h),
    },
    st.sampled_from([Verdict.PASS, Verdict.PASS, Verdict.WARN, Verdict.FAIL, Verdict.INCONCLUSIVE]),
    st.sampled_from([EngineName.DOCKER] * 6 + [EngineName.LOCAL, EngineName.SIMULATED]),
    st.sampled_from([DIGEST] * 8 + [OTHER, None]),
    st.sampled_from([0, 1, 24, 300, 336, 337, -1]),
)
FINE = {"verdict": Verdict.PASS, "engine": EngineName.DOCKER, "digest": DIGEST, "started_at": STARTED}
keys = [(image, runner) for image in "abc" for runner in NAMES]
# A few cells that are otherwise: were all of them drawn, hardly any release would ever be good.
cells = st.dictionaries(st.sampled_from(keys), st.one_of(outcome, st.none()), max_size=3).map(
    lambda otherwise: {**dict.fromkeys(keys, FINE), **otherwise}
)


@given(cells, st.sets(st.sampled_from("abc")), st.booleans(), st.sampled_from(["*", "*@rtx4090", "a@*"]))
def test_only_what_passed_is_ever_promoted(
    found: dict[tuple[str, str], dict[str, Any] | None], tagged: set[str], pinned: bool, required: str
) -> None:
    """Whatever the results: a promotion has a digest that every good cell of its image ran, in Docker, and lately."""
    digest = DIGEST if pinned else None
    rows = tuple(released(n, digest=digest) if n in tagged else make_image(n, digest=digest) for n in "abc")
    skipped = tuple((image, runner, "predicted", "sure") for (image, runner), what in found.items() if what is None)
    policy = Policy(required=(required,))
    plan = make_plan(images=rows, runners=RUNNERS, skipped=skipped, policy=policy)
    results = []
    for (image, runner), what in found.items():
        if what is not None:
            values = {name: value for name, value in what.items() if name not in {"digest", "verdict"}}
            values["image"] = identity(image, what["digest"])
            results.append(make_result(f"{image}@{runner}", what["verdict"], **values))
    verdict = judge(plan, results, NOW.date())
    decision = decide(plan, verdict, NOW)
    assert not (decision.promotions and decision.reasons)
    if not decision.promotions:
        assert decision.reasons or not tagged
        return
    assert verdict.released
    assert {each.image for each in decision.promotions} == tagged
    for each in decision.promotions:
        here = [judged for judged in verdict.cells.values() if judged.image == each.image]
        good = [judged.result for judged in here if judged.result and judged.verdict in GOOD]
        assert good
        for result in good:
            assert (result.engine, result.image.digest) == (EngineName.DOCKER, each.digest)
            assert timedelta(minutes=-10) <= NOW - utc(result.started_at) <= timedelta(days=14)
        assert not pinned or each.digest == DIGEST
        # One good and required cell less, and nothing is promoted any more.
        broken = next((judged.result for judged in here if judged.result in good and judged.required), None)
        if broken is not None:
            others = [result for result in results if result is not broken]
            failed = broken.model_copy(update={"verdict": Verdict.FAIL})
            assert decide(plan, judge(plan, [*others, failed], NOW.date()), NOW).promotions == ()


def test_no_verdict_of_the_gate_is_overruled() -> None:
    plan = plan_of()
    verdict = judge(plan, [GOOD_RESULT], NOW.date())
    assert decide(plan, verdict, NOW).promotions
    assert decide(plan, replace(verdict, released=False), NOW).promotions == ()
