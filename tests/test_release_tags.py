from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cuda_matrix import matrix
from cuda_matrix.config import Config
from cuda_matrix.config_files import load
from cuda_matrix.errors import ConfigurationError

PINNED = "r.io/a@sha256:" + "0" * 64


def expand(*images: dict[str, Any]) -> matrix.Expansion:
    runners = {"g1": {"labels": ["x"]}}
    return matrix.expand(Config.model_validate({"version": 1, "images": images, "runners": runners}))


def test_axes_and_variants() -> None:
    image = {
        "id": "t{v}",
        "ref": "r.io/t:{v}-rc",
        "release": ["r.io/t:{v}", "r.io/other:t-{v}"],
        "axes": {"v": ["1", "2"]},
        "variants": {"a": {}, "b": {}},
    }
    found = expand(image)
    assert found.problems == ()
    assert {key: row.release for key, row in found.images.items()} == {
        "t1+a": ("r.io/t:1", "r.io/other:t-1"),
        "t1+b": ("r.io/t:1", "r.io/other:t-1"),
        "t2+a": ("r.io/t:2", "r.io/other:t-2"),
        "t2+b": ("r.io/t:2", "r.io/other:t-2"),
    }


@pytest.mark.parametrize(
    "image",
    [
        {"ref": "a:rc", "release": ["docker.io/library/a:latest", "a:1"]},
        {"ref": PINNED, "release": ["r.io/a:latest"]},
        {"ref": "r.io/a:rc", "release": []},
    ],
)
def test_what_is_allowed(image: dict[str, Any]) -> None:
    assert expand({"id": "a", **image}).problems == ()


AXES = {"id": "t{v}", "ref": "t:{v}", "axes": {"v": ["1", "2"]}}


@pytest.mark.parametrize(
    ("images", "place", "words"),
    [
        ([{**AXES, "release": ["t:r{w}"]}], (0, 0), "{w} names no axis"),
        ([{**AXES, "release": ["t:r{v"]}], (0, 0), "no partner"),
        ([{**AXES, "release": ["t:stable"]}], (0, 0), "several combinations would release 't:stable'"),
        ([{"id": "a", "ref": "a:1", "release": ["A:2"]}], (0, 0), "lower case"),
        ([{"id": "a", "ref": "a:1", "release": ["x:1", "a"]}], (0, 1), "say which tag: a:latest"),
        ([{"id": "a", "ref": "r.io/a:1", "release": [PINNED]}], (0, 0), "names a digest"),
        ([{"id": "a", "ref": "a:1", "release": ["ghcr.io/a/a:1"]}], (0, 0), "is of ghcr.io, its image of docker.io"),
        ([{"id": "a", "ref": "a", "release": ["docker.io/a:latest"]}], (0, 0), "is what this image is tested from"),
        (
            [{"id": "a", "ref": "a:1", "release": ["b:1"]}, {"id": "b", "ref": "b:1"}],
            (0, 0),
            "is what the image 'b' is tested from",
        ),
        (
            [{"id": "a", "ref": "a:1", "release": ["x:1"]}, {"id": "b", "ref": "b:1", "release": ["y:1", "x:1"]}],
            (1, 1),
            "is released by the image 'a' already",
        ),
        ([{"id": "a", "ref": "a:1", "release": ["x:1", "docker.io/x:1"]}], (0, 1), "stands twice"),
    ],
)
def test_what_is_wrong(images: list[dict[str, Any]], place: tuple[int, int], words: str) -> None:
    (problem,) = expand(*images).problems
    assert problem.path == ("images", place[0], "release", place[1])
    assert words in problem.message


def test_places_in_the_file(tmp_path: Path) -> None:
    """Every one at once, and nothing that only follows from another mistake."""
    file = tmp_path / "cuda-matrix.yml"
    file.write_text(
        "version: 1\n"
        "images:\n"
        "  - id: a\n"
        "    ref: r.io/a:1\n"
        "    release: [r.io/a:1, r.io/x:1]\n"
        "  - id: b\n"
        "    ref: r.io/b:1\n"
        "    release:\n"
        "      - r.io/x:1\n"
        "  - id: c\n"
        "    release: [r.io/c:1]\n"
        "runners:\n"
        "  g: {labels: [x]}\n"
        "policy: {max_age: 14}\n"
    )
    with pytest.raises(ConfigurationError) as wrong:
        load(file)
    told = [str(problem).removeprefix(f"{file}:") for problem in wrong.value.problems]
    assert [line.partition(": ")[0] for line in told] == ["5:15", "9:9", "10:5", "14:19"]
    assert "'r.io/a:1' is what this image is tested from" in told[0]
    assert f"is released by the image 'a' already (see {file}:5:25)" in told[1]
    assert "ref" in told[2]
    assert "a number above 0 with its unit, such as 90s, 20m, 1.5h or 14d" in told[3]


def test_the_oldest_result() -> None:
    images, runners = [{"id": "a", "ref": "a:1"}], {"g": {"labels": ["x"]}}
    base = {"version": 1, "images": images, "runners": runners}
    assert Config.model_validate(base).policy.max_age == 14 * 86_400
    assert Config.model_validate({**base, "policy": {"max_age": "36h"}}).policy.max_age == 129_600
    with pytest.raises(ValueError, match="less than or equal"):
        Config.model_validate({**base, "policy": {"max_age": "9999999d"}})
