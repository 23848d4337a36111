from __future__ import annotations

import pytest
from pydantic import ValidationError

from builders import make_image, make_plan
from cuda_matrix.plan import Place, Plan


@pytest.mark.parametrize("file", ["matrix/images.yml", "a", "a..b/.github/x.yml", "über/x y.yml", "..."])
def test_a_place_is_a_file_of_the_repository(file: str) -> None:
    plan = make_plan(images=(make_image("good", place=Place(file=file, line=3)),))
    assert Plan.model_validate_json(plan.model_dump_json()).images["good"].place == Place(file=file, line=3)


@pytest.mark.parametrize(
    "file",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../x",
        "a/..",
        "./x",
        "a//b",
        "a/",
        "a\\..\\b",
        "C:\\x",
        "a\nb",
        "\x1b[m",
        "\u202ex",
    ],
)
def test_a_place_outside_of_it_is_refused(file: str) -> None:
    with pytest.raises(ValidationError):
        Place(file=file, line=1)


@pytest.mark.parametrize("line", [0, -1, 10**7])
def test_lines_count_from_one(line: int) -> None:
    with pytest.raises(ValidationError):
        Place(file="a.yml", line=line)


def test_a_plan_from_before_places_is_read() -> None:
    plan = make_plan()
    assert Plan.model_validate_json(plan.model_dump_json(exclude={"images": {"good": {"place"}}})) == plan
