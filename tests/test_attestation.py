from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from builders import DIGEST, STARTED, make_facts, make_image, make_plan, make_result, make_runner
from cuda_matrix.attestation import PREDICATE_TYPE, STATEMENT_TYPE, Attestation, Origin, attest
from cuda_matrix.config import ExpectFail, Policy
from cuda_matrix.gate import judge
from cuda_matrix.model import Verdict
from cuda_matrix.plan import Plan
from cuda_matrix.promote import decide
from cuda_matrix.result import CellResult, ImageIdentity

NOW = STARTED + timedelta(hours=3)
HEX = DIGEST.removeprefix("sha256:")
ORIGIN = Origin("https://github.com/o/r/actions/runs/7", "git+https://github.com/o/r", "c" * 40, "1.2.3")
NAMES = ("rtx3090", "rtx4090")
RUNNERS = (make_runner("rtx3090", "RTX 3090"), "rtx4090")


def images(*names: str) -> tuple[Any, ...]:
    return tuple(make_image(n, release=(f"example.org/{n}:stable", f"example.org/{n}:1.0")) for n in names)


def attested(plan: Plan, results: list[CellResult], origin: Origin = ORIGIN) -> Attestation:
    verdict = judge(plan, results, NOW.date())
    found = decide(plan, verdict, NOW)
    assert found.promotions, found.reasons
    return attest(found.promotions, plan, verdict, origin)


def test_every_field_of_the_predicate() -> None:
    plan = make_plan(images=(*images("a"), "b"), runners=RUNNERS)
    results = [make_result(f"{image}@{runner}") for image in "ab" for runner in NAMES]
    texts = attested(plan, results)
    predicate = json.loads(texts.predicate)
    configuration = predicate.pop("configuration")
    assert [row["name"] for row in configuration] == ["cuda-matrix plan", "source"]
    assert len(configuration[0]["digest"]["sha256"]) == 64
    assert configuration[1] | {"name": ""} == {
        "name": "",
        "uri": "git+https://github.com/o/r",
        "digest": {"gitCommit": "c" * 40},
    }
    cell = {
        "verdict": "pass",
        "required": True,
        "digest": DIGEST,
        "gpus": ["NVIDIA GeForce RTX 4090"],
        "driver": "550.54.15",
        "profile": "standard",
        "payload": "sha256:" + "ab" * 32,
        "runId": "run-1",
        "startedAt": "2026-11-21T09:14:00Z",
    }
    tags = ["example.org/a:stable", "example.org/a:1.0"]
    assert predicate == {
        "result": "PASSED",
        "url": "https://github.com/o/r/actions/runs/7",
        "passedTests": ["a@rtx3090", "a@rtx4090"],  # those of what is promoted, no others
        "warnedTests": [],
        "failedTests": [],
        "cudaMatrix": {
            "version": 1,
            "toolVersion": "1.2.3",
            "released": [{"image": "a", "testedRef": "example.org/a:1", "digest": DIGEST, "tags": tags}],
            "cells": [{"cell": f"a@{runner}", **cell} for runner in NAMES],
        },
    }


def test_the_statement_is_the_predicate_with_its_subjects() -> None:
    plan = make_plan(images=images("b", "a"), runners=("rtx4090",))
    texts = attested(plan, [make_result("a@rtx4090"), make_result("b@rtx4090")])
    subjects = [{"name": f"example.org/{name}", "digest": {"sha256": HEX}} for name in "ab"]
    assert json.loads(texts.statement) == {
        "_type": STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": PREDICATE_TYPE,
        "predicate": json.loads(texts.predicate),
    }
    assert texts.subjects == f"{HEX}  example.org/a\n{HEX}  example.org/b\n"  # as sha256sum writes them


def test_same_input_same_bytes() -> None:
    plan = make_plan(images=images("a"), runners=RUNNERS)
    results = [make_result(f"a@{runner}") for runner in NAMES]
    assert attested(plan, results) == attested(plan, results[::-1])


ENTRY = ExpectFail(cell="a@rtx3090", until="2026-12-31", reason="known")


@pytest.mark.parametrize(
    ("policy", "verdict", "result", "lists"),
    [
        (Policy(), Verdict.WARN, "WARNED", (["a@rtx4090"], ["a@rtx3090"], [])),
        (Policy(expect_fail=(ENTRY,)), Verdict.FAIL, "WARNED", (["a@rtx4090"], [], ["a@rtx3090"])),
        (Policy(expect_fail=(ENTRY,)), Verdict.PASS, "PASSED", (["a@rtx3090", "a@rtx4090"], [], [])),
        (Policy(required=("*@rtx4090",)), Verdict.FAIL, "WARNED", (["a@rtx4090"], [], ["a@rtx3090"])),
        (Policy(required=("*@rtx4090",)), Verdict.INCONCLUSIVE, "WARNED", (["a@rtx4090"], [], [])),
    ],
)
def test_what_did_not_simply_pass(policy: Policy, verdict: Verdict, result: str, lists: tuple[list[str], ...]) -> None:
    plan = make_plan(images=images("a"), runners=RUNNERS, policy=policy)
    predicate = json.loads(attested(plan, [make_result("a@rtx4090"), make_result("a@rtx3090", verdict)]).predicate)
    assert predicate["result"] == result
    assert tuple(predicate[name] for name in ("passedTests", "warnedTests", "failedTests")) == lists


@pytest.mark.parametrize(("kind", "result"), [("excluded", "PASSED"), ("predicted", "WARNED"), ("unchanged", "WARNED")])
def test_what_was_not_run(kind: str, result: str) -> None:
    plan = make_plan(images=images("a"), runners=RUNNERS, skipped=(("a", "rtx3090", kind, "because"),))
    recorded = {"digest": DIGEST, "tested_at": STARTED} if kind == "unchanged" else {}
    plan = plan.model_copy(update={"skipped": (plan.skipped[0].model_copy(update=recorded),)})
    predicate = json.loads(attested(plan, [make_result("a@rtx4090")]).predicate)
    assert (predicate["result"], predicate["passedTests"]) == (result, ["a@rtx4090"])
    row = {"cell": "a@rtx3090", "verdict": "skipped", "required": True, "skipped": kind}
    if kind == "unchanged":
        row |= {"digest": DIGEST, "startedAt": "2026-11-21T09:14:00Z"}
    assert predicate["cudaMatrix"]["cells"][0] == row


def test_outside_of_github() -> None:
    plan = make_plan(images=images("a"), runners=("rtx4090",))
    predicate = json.loads(attested(plan, [make_result("a@rtx4090")], Origin()).predicate)
    assert "url" not in predicate
    assert [row["name"] for row in predicate["configuration"]] == ["cuda-matrix plan"]


def test_hostile_names_stay_inside_their_strings() -> None:
    facts = make_facts(gpu='"}], "result": "\u202eDESSAP\x1b[31m\nx', driver="550\u2028")
    plan = make_plan(images=images("a"), runners=("rtx4090",))
    texts = attested(plan, [make_result("a@rtx4090", facts=facts)])
    assert texts.predicate.isascii()
    assert "\x1b" not in texts.predicate
    assert json.loads(texts.predicate)["cudaMatrix"]["cells"][0]["gpus"] == ['"}], "result": "\u202eDESSAP\x1b[31m\nx']


def test_docker_hub_is_named_in_full() -> None:
    row = make_image("a", ref="team/a:rc", release=("team/a:1",))
    result = make_result("a@rtx4090", image=ImageIdentity(id="a", ref="team/a:rc", digest=DIGEST))
    texts = attested(make_plan(images=(row,), runners=("rtx4090",)), [result])
    assert texts.subjects == f"{HEX}  docker.io/team/a\n"
