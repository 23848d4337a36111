from __future__ import annotations

import pytest

from builders import STARTED, make_diagnosis, make_image, make_plan, make_result
from cuda_matrix import annotations
from cuda_matrix.config import ExpectFail, Policy
from cuda_matrix.forge import Annotation
from cuda_matrix.gate import judge
from cuda_matrix.model import Verdict
from cuda_matrix.plan import Place
from cuda_matrix.result import CellResult
from report_cases import HOSTILE

HERE = Place(file="matrix/images.yml", line=4)


def of(*results: CellResult, touched: tuple[str, ...] = (), **image: object) -> tuple[Annotation, ...]:
    plan = make_plan(images=(make_image("good", **{"place": HERE, **image}),), policy=Policy())
    return annotations.of(plan, judge(plan, results, STARTED.date()), touched)


def failing(verdict: Verdict = Verdict.FAIL, **values: object) -> CellResult:
    diagnosis = make_diagnosis(
        evidence="CUDA driver version is insufficient",
        explanation="CUDA 12.1 needs driver 525.60.13.",
        fix=("Upgrade the driver.", "Use an older image.", "Buy a card."),
    )
    return make_result("good@rtx4090", verdict, **{"diagnosis": diagnosis, **values})


def test_a_failing_cell_is_told_where_its_image_is_configured() -> None:
    assert of(failing()) == (
        Annotation(
            path="matrix/images.yml",
            line=4,
            level="failure",
            title="good@rtx4090: driver-too-old",
            message="CUDA driver version is insufficient\nCUDA 12.1 needs driver 525.60.13.\n"
            "1. Upgrade the driver.\n2. Use an older image.",
        ),
    )


@pytest.mark.parametrize(
    ("verdict", "level"),
    [
        (Verdict.FAIL, "failure"),
        (Verdict.NOT_RUN, "failure"),
        (Verdict.HOST_FAILED, "warning"),
        (Verdict.INCONCLUSIVE, "warning"),
        (Verdict.PASS, None),
        (Verdict.WARN, None),
    ],
)
def test_levels(verdict: Verdict, level: str | None) -> None:
    assert [one.level for one in of(failing(verdict))] == ([level] if level else [])


def test_a_cell_without_a_result() -> None:
    (one,) = of()
    assert (one.title, one.message) == ("good@rtx4090: not run", "No result: no result was found")


def test_cells_that_block_nothing_have_none() -> None:
    entry = ExpectFail(cell="a@*", until="2026-12-31", reason="known upstream")
    images = tuple(make_image(name, place=HERE) for name in ("a", "b", "c"))
    plan = make_plan(images=images, policy=Policy(expect_fail=(entry,), required=("a@*", "c@*")))
    results = [make_result(f"{name}@rtx4090", Verdict.FAIL) for name in "abc"]
    found = annotations.of(plan, judge(plan, results, STARTED.date()))
    assert [one.title for one in found] == ["c@rtx4090: fails"]


def test_one_each_in_plan_order() -> None:
    plan = make_plan(images=tuple(make_image(f"i{n}", place=HERE) for n in range(60)), runners=("a", "b"))
    found = annotations.of(plan, judge(plan, [], STARTED.date()))
    assert [one.title.partition(":")[0] for one in found] == [cell.id for cell in plan.cells]


@pytest.mark.parametrize(
    ("touched", "path"),
    [
        (("images/good/Dockerfile",), "images/good/Dockerfile"),
        (("images/good/train.py", "images/good/cuda.Dockerfile"), "images/good/cuda.Dockerfile"),
        (("images/good/b/Containerfile", "images/good/a/Dockerfile.gpu"), "images/good/a/Dockerfile.gpu"),
        (("images/other/Dockerfile", "Dockerfile"), "matrix/images.yml"),
        (("images/good/train.py", "images/good/Dockerfiles.md"), "matrix/images.yml"),
        (("images/good/x\n/Dockerfile", "images/good/../../Dockerfile"), "matrix/images.yml"),
        ((), "matrix/images.yml"),
    ],
)
def test_a_dockerfile_of_the_image_that_the_pull_request_touches_goes_first(
    touched: tuple[str, ...], path: str
) -> None:
    (one,) = of(failing(), touched=touched, paths=("images/good/**",))
    assert (one.path, one.line) == (path, 4 if path.endswith(".yml") else 1)


def test_without_a_place_there_is_none() -> None:
    assert of(failing(), place=None) == ()
    assert len(of(failing(), place=None, paths=("d/**",), touched=("d/Dockerfile",))) == 1


def test_hostile_texts_are_harmless_and_bounded() -> None:
    long = HOSTILE * 60
    diagnosis = make_diagnosis(long, evidence=long[:2000], explanation=long, fix=(long, long))
    for one in (*of(failing(diagnosis=diagnosis)), *of(failing(reason=long[:2000], diagnosis=None))):
        assert len(one.title) <= 255
        assert len(one.message) <= 4_096
        assert one.message.count("\n") <= 3
        for text in (one.title, one.message):
            assert not set(text) & set("\x1b\u202e\u2066\x00\x08\r\u2028\ufffe")
            assert "::error::" not in text
            assert "##[" not in text


def test_a_message_says_all_of_its_parts_even_when_each_is_long() -> None:
    diagnosis = make_diagnosis(evidence="e" * 2000, explanation="x" * 5000, fix=("f" * 5000, "g" * 5000))
    (one,) = of(failing(diagnosis=diagnosis))
    assert [line[0] for line in one.message.splitlines()] == ["e", "x", "1", "2"]
