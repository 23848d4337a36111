"""What a configuration demands of a plan from elsewhere: however the plan is cut, it never says yes by itself."""

from __future__ import annotations

from typing import Any

import pytest

from builders import DIGEST, make_image, make_plan, make_result, make_runner
from cuda_matrix.config import Config, ContainerOptions, PayloadOptions, Policy
from cuda_matrix.demands import demanded, shortfalls, unvouched, with_reasons
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.gate import judge
from cuda_matrix.matrix import expand
from cuda_matrix.model import Verdict
from cuda_matrix.plan import Plan
from cuda_matrix.result import CellResult

CONFIG: dict[str, Any] = {
    "version": 1,
    "images": [{"id": "a", "ref": "example.org/a:1"}, {"id": "b", "ref": "example.org/b:1"}],
    "runners": {"rtx4090": {"labels": ["x"], "gpu": "RTX 4090"}},
}
WHOLE = make_plan(images=("a", "b"))


def short(plan: Plan, tier: str | None = None, *globs: str, **values: Any) -> list[str]:
    config = Config.model_validate({**CONFIG, **values})
    expansion = expand(config)
    return [reason.text for reason in shortfalls(plan, config, expansion, demanded(config, expansion, tier, globs))]


def test_a_plan_that_asks_everything_is_enough() -> None:
    assert short(WHOLE) == []
    assert short(make_plan(images=("a", "b", "new"))) == []


def test_a_required_cell_that_the_plan_lacks() -> None:
    (text,) = short(make_plan(images=("a",)))
    assert text.startswith("required by the configuration, but not in the plan: b@rtx4090 (if only a part")
    assert short(make_plan(images=("a",)), policy={"required": ["a@*"]}) == []


@pytest.mark.parametrize(("kind", "missing"), [("excluded", True), ("predicted", True), ("unchanged", False)])
def test_what_the_plan_leaves_out_by_its_own_word(kind: str, missing: bool) -> None:
    plan = make_plan(images=("a", "b"), skipped=(("b", "rtx4090", kind, "because I say so"),))
    assert bool(short(plan)) is missing
    foretold = kind in {"predicted", "unchanged"}
    assert bool(short(plan, policy={"skip_predicted": True})) is not foretold


def test_a_part_that_was_to_be_planned() -> None:
    part = make_plan(images=("a",))
    tiers = {"policy": {"tiers": {"few": ["a@*"]}}}
    assert short(part, "few", **tiers) == []
    assert short(part, None, "a") == []
    assert short(make_plan(images=("b",)), "few", **tiers)
    with pytest.raises(ConfigurationError, match="there is no tier"):
        short(part, "many", **tiers)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"payload": PayloadOptions(checks=("nothing",))}, "another `payload:`"),
        ({"container": ContainerOptions(gpus="none")}, "another `container:`"),
        ({"images": {**WHOLE.images, "a": make_image("a", ref="example.org/good:1")}}, "another ref of the image a"),
        ({"images": {**WHOLE.images, "a": make_image("a", expect={"torch": "1"})}}, "another expect of the image a"),
        ({"images": {**WHOLE.images, "a": make_image("a", env={"X": "1"})}}, "another env of the image a"),
        ({"runners": {"rtx4090": make_runner("rtx4090", gpu=None)}}, "another card of the runner rtx4090"),
    ],
)
def test_a_plan_that_asks_something_else(change: dict[str, Any], words: str) -> None:
    (text,) = short(WHOLE.model_copy(update=change))
    assert words in text
    of_b = short(WHOLE.model_copy(update=change), policy={"required": ["b@rtx4090"]})
    assert bool(of_b) is ("image a" not in words)


def test_a_pinned_image_is_that_one() -> None:
    pin = "sha256:" + "77" * 32
    images = [{"id": "a", "ref": f"example.org/a@{pin}"}]
    plan = make_plan(images=(make_image("a", ref=f"example.org/a@{pin}"),))
    assert short(plan, images=images) == [
        "the plan has another digest of the image a than the configuration: a@rtx4090"
    ]


def test_a_cell_may_not_be_of_an_image_beside_the_right_one() -> None:
    rows = {**WHOLE.images, "other": make_image("a", ref="example.org/harmless:1")}
    cells = (WHOLE.cells[0].model_copy(update={"image": "other"}), WHOLE.cells[1])
    plan = Plan.model_validate(WHOLE.model_copy(update={"images": rows, "cells": cells}).model_dump())
    assert short(plan) == ["the plan has another ref of the image other than the configuration: a@rtx4090"]


def test_a_shortfall_is_a_no() -> None:
    plan = make_plan(images=("a",), policy=Policy(required=("*",)))
    verdict = judge(plan, [make_result("a@rtx4090")], make_result("a@rtx4090").started_at.date())
    assert verdict.released
    config = Config.model_validate(CONFIG)
    expansion = expand(config)
    reasons = shortfalls(plan, config, expansion, demanded(config, expansion, None, ()))
    assert not with_reasons(verdict, reasons).released
    assert with_reasons(verdict, ()) == verdict


def test_unchanged_is_believed_only_where_the_published_table_says_so() -> None:
    plan = make_plan(images=("a", "b"), skipped=(("b", "rtx4090", "unchanged", "I say so"),))
    cells = demanded(Config.model_validate(CONFIG), expand(Config.model_validate(CONFIG)), None, ())
    good = make_result("b@rtx4090")

    def believed(*published: CellResult, digest: str | None = DIGEST) -> bool:
        skipped = (plan.skipped[0].model_copy(update={"digest": digest}),)
        return unvouched(plan.model_copy(update={"skipped": skipped}), cells, published) == ()

    assert believed(good)
    assert not believed()
    assert not believed(good, digest=None)
    assert not believed(good, digest="sha256:" + "00" * 32)
    assert not believed(make_result("b@rtx4090", Verdict.FAIL))
    assert not believed(make_result("a@rtx4090"))
    assert unvouched(plan, [cell for cell in cells if cell.image == "a"], ()) == ()
