from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuda_matrix import lanes, matrix
from cuda_matrix.config import Config
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.globs import matches
from cuda_matrix.plan import Plan

DIGEST = "sha256:" + "0" * 64


def config(images: list[dict[str, Any]] | None = None, **rest: Any) -> Config:
    images = images or [{"id": "a", "ref": "a"}, {"id": "b", "ref": "b", "variants": {"cu1": {}, "cu2": {}}}]
    runners = rest.pop("runners", {"g1": {"labels": ["g1"]}, "g2": {"labels": ["g2"]}})
    return Config.model_validate({"version": 1, "images": images, "runners": runners, **rest})


def expansion(images: list[dict[str, Any]] | None = None, **rest: Any) -> matrix.Expansion:
    found = matrix.expand(config(images, **rest))
    assert found.problems == ()
    return found


def ids(found: Any) -> list[str]:
    return [cell.id for cell in found]


def plan(*, select: tuple[str, ...] = (), tier: str | None = None, max_jobs: int = 256, **rest: Any) -> Plan:
    made = config(**rest)
    return matrix.make_plan(matrix.expand(made), made, select=select, tier=tier, max_jobs=max_jobs)


def test_cells_come_image_by_image() -> None:
    assert ids(expansion().cells) == ["a@g1", "a@g2", "b+cu1@g1", "b+cu1@g2", "b+cu2@g1", "b+cu2@g2"]


def test_axes_are_multiplied_and_fill_every_placeholder() -> None:
    image = {
        "id": "t{torch}-cu{cuda}",
        "ref": "p/t:{torch}-{cuda}-cudnn{cudnn}",
        "axes": {"torch": ["2.4", "2.5"], "cuda": ["11.8", "12.4"], "cudnn": ["9"]},
        "exclude": [{"torch": "2.5", "cuda": "11.8", "reason": "never published"}],
        "expect": {"torch": "{torch}", "cuda": "{cuda}"},
        "paths": ["images/**"],
    }
    found = expansion([image]).images
    assert list(found) == ["t2.4-cu11.8", "t2.4-cu12.4", "t2.5-cu12.4"]
    row = found["t2.5-cu12.4"]
    assert (row.ref, row.expect, row.paths) == ("p/t:2.5-12.4-cudnn9", {"torch": "2.5", "cuda": "12.4"}, ("images/**",))


def test_variants_are_rows_with_their_environment() -> None:
    image = {"id": "u", "ref": f"u@{DIGEST}", "variants": {"cu118": {"env": {"LD_LIBRARY_PATH": "/x/{y}"}}}}
    row = expansion([image]).images["u+cu118"]
    assert (row.id, row.variant, row.env, row.digest) == ("u", "cu118", {"LD_LIBRARY_PATH": "/x/{y}"}, DIGEST)


def test_excluded_cells_keep_their_first_reason_and_include_takes_cells_back() -> None:
    found = expansion(
        exclude=[
            {"image": "b", "runner": "g2", "reason": "first"},
            {"variant": "cu*", "runner": "*", "reason": "second"},
        ],
        include=[{"image": "b", "variant": "cu2", "runner": "g2"}],
    )
    assert ids(found.cells) == ["a@g1", "a@g2", "b+cu2@g2"]
    assert {cell.id: cell.reason for cell in found.skipped} == {
        "b+cu1@g1": "second",
        "b+cu1@g2": "first",
        "b+cu2@g1": "second",
    }


AXES = {"id": "t{v}", "ref": "t:{v}", "axes": {"v": ["1", "2"]}}


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"images": [{**AXES, "id": "t"}]}, ("images", 0, "id"), "put {v} into it"),
        (
            {"images": [{"id": "{a}{b}", "ref": "t", "axes": {"a": ["1", "11"], "b": ["1", "11"]}}]},
            ("images", 0, "id"),
            "separate its",
        ),
        ({"images": [{**AXES, "ref": "t:{w}"}]}, ("images", 0, "ref"), "{w} names no axis"),
        ({"images": [{**AXES, "ref": "t:{v"}]}, ("images", 0, "ref"), "no partner"),
        ({"images": [{**AXES, "expect": {"torch": "{}"}}]}, ("images", 0, "expect", "torch"), "{} names no axis"),
        ({"images": [{**AXES, "axes": {"v": ["1", "1"]}}]}, ("images", 0, "axes", "v", 1), "stands twice"),
        (
            {"images": [{**AXES, "axes": {"v": ["1"], "reason": ["x"]}}]},
            ("images", 0, "axes", "reason"),
            "cannot name an axis",
        ),
        (
            {"images": [{**AXES, "axes": {"v": [str(n) for n in range(101)], "w": [str(n) for n in range(100)]}}]},
            ("images", 0, "axes"),
            "10,100 combinations",
        ),
        (
            {"images": [{**AXES, "exclude": [{"w": "1", "reason": "abc"}]}]},
            ("images", 0, "exclude", 0, "w"),
            "no axis of this image",
        ),
        (
            {"images": [{**AXES, "exclude": [{"v": "3", "reason": "abc"}]}]},
            ("images", 0, "exclude", 0, "v"),
            "matches nothing; it has 1, 2",
        ),
        ({"images": [{**AXES, "exclude": [{"v": "1"}]}]}, ("images", 0, "exclude", 0), "say why"),
        (
            {"images": [{**AXES, "axes": {"v": ["1"]}, "exclude": [{"v": "1", "reason": "abc"}]}]},
            ("images", 0, "exclude"),
            "nothing is left of this image",
        ),
        (
            {"images": [{**AXES, "axes": {"v": ["1", "2 3"]}, "ref": "t"}]},
            ("images", 0, "id"),
            "'t2 3' cannot be an id",
        ),
        ({"images": [{"id": "a", "ref": "A/b"}]}, ("images", 0, "ref"), "lower case"),
        (
            {"images": [{"id": "a", "ref": "a", "variants": {"x": {"env": {"1A": ""}}}}]},
            ("images", 0, "variants", "x", "env", "1A"),
            "environment variable",
        ),
        (
            {"images": [{"id": "a", "ref": "a", "variants": {"x": {}, "X": {}}}]},
            ("images", 0, "variants", "X"),
            "differ only in case",
        ),
        ({"images": [{"id": "a", "ref": "a"}, {"id": "a", "ref": "b"}]}, ("images", 1, "id"), "is there already"),
        ({"runners": {"g1": {"labels": ["x"]}, "G1": {"labels": ["x"]}}}, ("runners", "G1"), "differ only in case"),
        (
            {"runners": {"g1": {"labels": ["x"], "docker_host": "gpu1"}}},
            ("runners", "g1", "docker_host"),
            "no Docker host",
        ),
        ({"exclude": [{"image": "c", "reason": "abc"}]}, ("exclude", 0), "matches no image"),
        ({"exclude": [{"image": "a", "variant": "*", "reason": "abc"}]}, ("exclude", 0), "matches no image"),
        ({"exclude": [{"runner": "g3", "reason": "abc"}]}, ("exclude", 0, "runner"), "matches no runner"),
        ({"exclude": [{"reason": "abc"}]}, ("exclude",), "nothing is left"),
        ({"include": [{"image": "a", "runner": "g1"}]}, ("include", 0), "no effect"),
        ({"include": [{"image": "c", "runner": "g1"}]}, ("include", 0, "image"), "no image 'c'"),
        ({"include": [{"image": "b", "runner": "g1"}]}, ("include", 0), "which variant of 'b': cu1, cu2"),
        ({"include": [{"image": "a", "runner": "g"}]}, ("include", 0, "runner"), "no runner 'g'"),
        ({"policy": {"required": ["b@g1"]}}, ("policy", "required", 0), "matches no cell; no image matches 'b'"),
        ({"policy": {"tiers": {"pr": ["*@g1", "*@g3"]}}}, ("policy", "tiers", "pr", 1), "no runner matches 'g3'"),
        ({"policy": {"required": ["[ab]@g1"]}}, ("policy", "required", 0), "no image matches '[ab]'"),
        (
            {
                "policy": {"expect_fail": [{"cell": "a@g1", "until": "2027-01-01", "reason": "abc"}]},
                "exclude": [{"image": "a", "reason": "abc"}],
            },
            ("policy", "expect_fail", 0, "cell"),
            "only cells that are excluded",
        ),
        ({"images": [{"id": "a" * 100, "ref": "a"}], "runners": {"g" * 100: {"labels": ["x"]}}}, (), "longer than 200"),
    ],
)
def test_what_the_types_cannot_see(change: dict[str, Any], path: tuple[str | int, ...], words: str) -> None:
    problems = matrix.expand(config(**change)).problems
    assert [problem.path for problem in problems] == [path]
    assert words in problems[0].message


def test_a_matrix_has_a_limit() -> None:
    images = [{"id": f"a{n}", "ref": "a"} for n in range(400)]
    runners = {f"g{n}": {"labels": ["x"]} for n in range(300)}
    (problem,) = matrix.expand(config(images, runners=runners)).problems
    assert "at most 100,000 cells" in problem.message


@pytest.mark.parametrize(
    ("text", "glob", "expected"),
    [
        ("a@g1", "a@*", True),
        ("a@g1", "A@*", False),
        ("a@g1", "[a]@*", False),
        ("a[1]", "a[1]", True),
        ("ab", "a?", True),
        ("ab", "a", False),
    ],
)
def test_globs(text: str, glob: str, expected: bool) -> None:
    assert matches(text, glob) is expected


@pytest.mark.parametrize(
    ("globs", "expected"),
    [
        ((), 6),
        (("a@g1",), 1),
        (("a",), 2),
        (("b",), 4),
        (("b+cu1",), 2),
        (("g2",), 3),
        (("*@g2", "a"), 4),
        (("*",), 6),
    ],
)
def test_select(globs: tuple[str, ...], expected: int) -> None:
    cells = expansion().cells
    found = matrix.select(cells, globs)
    assert len(found) == expected
    assert [cell for cell in cells if cell in found] == list(found)


def test_a_glob_that_names_nothing_says_what_is_near() -> None:
    found = expansion(runners={"rtx3090": {"labels": ["x"]}, "rtx4090": {"labels": ["x"]}})
    with pytest.raises(ConfigurationError, match="no runner matches 'rtx4091'; did you mean 'rtx4090'"):
        matrix.select(found.cells, ["a@rtx4091"])
    with pytest.raises(ConfigurationError, match="names no cell; did you mean 'rtx3090'"):
        matrix.select(found.cells, ["rtx309"])


def test_a_glob_that_names_only_excluded_cells_says_so() -> None:
    with pytest.raises(ConfigurationError, match=r"only excluded cells: a@g1 \(too old\)"):
        plan(select=("a@g1",), exclude=[{"image": "a", "runner": "g1", "reason": "too old"}])


def test_tiers() -> None:
    policy = {"tiers": {"pull_request": ["*@g1"]}}
    assert ids(plan(tier="pull_request", policy=policy).cells) == ["a@g1", "b+cu1@g1", "b+cu2@g1"]
    assert ids(plan(tier="pull_request", select=("b",), policy=policy).cells) == ["b+cu1@g1", "b+cu2@g1"]
    with pytest.raises(ConfigurationError, match="did you mean 'pull_request'"):
        plan(tier="pullrequest", policy=policy)


def test_a_plan_names_only_what_it_uses() -> None:
    made = plan(select=("a@g1",), exclude=[{"image": "b", "runner": "g2", "reason": "abc"}])
    assert (list(made.images), list(made.runners), made.skipped) == (["a"], ["g1"], ())
    assert made.digests == "offline"


def test_lanes_of_one_runner_are_contiguous_and_keep_variants_together() -> None:
    images = [{"id": f"i{n}", "ref": "i", "variants": {"x": {}, "y": {}}} for n in range(3)]
    made = plan(images=images, runners={"g": {"labels": ["g"], "jobs": 2}})
    assert [lane.cells for lane in made.lanes] == [("i0+x@g", "i0+y@g"), ("i1+x@g", "i1+y@g", "i2+x@g", "i2+y@g")]


def test_more_runners_than_jobs() -> None:
    with pytest.raises(ConfigurationError, match="2 runners have cells to run, but at most 1") as caught:
        plan(max_jobs=1)
    assert "--max-jobs" in caught.value.hint


def test_the_github_matrix() -> None:
    made = plan(runners={"g1": {"labels": ["self-hosted", "g1"], "jobs": 2}, "g2": {"labels": ["g2"]}})
    entries = lanes.github_matrix(made)["include"]
    assert [entry["name"] for entry in entries] == ["g1 1/2 (1 cell)", "g1 2/2 (2 cells)", "g2 1/1 (3 cells)"]
    assert [json.loads(entry["labels"]) for entry in entries] == [["self-hosted", "g1"], ["self-hosted", "g1"], ["g2"]]
    assert [(entry["lane"], entry["runner"], entry["cells"]) for entry in entries] == [
        (0, "g1", 1),
        (1, "g1", 2),
        (2, "g2", 3),
    ]
    assert [entry["slot"] for entry in entries] == [1, 2, 1]


def test_a_lane_s_limit_is_longer_than_all_that_is_in_it_and_no_longer_than_github_s() -> None:
    variants = {"id": "a", "ref": "a", "variants": {"x": {}, "y": {}}}
    runners = {"g": {"labels": ["g"]}}
    made = plan(images=[variants, {"id": "b", "ref": "b"}], runners=runners, payload={"timeout": "20m"})
    [lane] = lanes.github_matrix(made)["include"]
    assert lane["timeout_minutes"] == 10 + 2 * 45 + 3 * (20 + 5)  # two pulls, three cells
    made = plan(images=[variants], runners=runners, payload={"timeout": "4d"})
    assert lanes.github_matrix(made)["include"][0]["timeout_minutes"] == 5 * 24 * 60


def test_digests() -> None:
    made = plan(images=[{"id": "a", "ref": "a"}, {"id": "b", "ref": "b"}])
    partly = matrix.with_digests(made, {"a": DIGEST, "b": "no such tag"})
    assert (partly.digests, partly.images["a"].digest, partly.images["b"].unresolved) == (
        "partly",
        DIGEST,
        "no such tag",
    )
    whole = matrix.with_digests(partly, {"b": DIGEST})
    assert (whole.digests, whole.images["b"].unresolved) == ("resolved", "")


def test_an_image_that_is_pinned_needs_no_registry() -> None:
    assert plan(images=[{"id": "a", "ref": f"a@{DIGEST}"}]).digests == "resolved"


@st.composite
def configs(draw: st.DrawFn) -> Config:
    variants = st.sampled_from([{}, {"x": {}}, {"x": {}, "y": {}, "z": {}}])
    images = [{"id": f"i{n}", "ref": "r", "variants": draw(variants)} for n in range(draw(st.integers(1, 8)))]
    runners = {f"g{n}": {"labels": ["x"], "jobs": draw(st.integers(1, 6))} for n in range(draw(st.integers(1, 6)))}
    names = st.sampled_from([*runners, "*", "g?"])
    rules = st.builds(
        lambda image, runner: {"image": f"i{image}", "runner": runner, "reason": "abc"},
        st.integers(0, len(images) - 1),
        names,
    )
    return config(images, runners=runners, exclude=draw(st.lists(rules, max_size=4)))


@given(configs(), st.integers(6, 40))
def test_every_included_cell_is_in_exactly_one_lane(made: Config, max_jobs: int) -> None:
    found = matrix.expand(made)
    if found.problems:
        assert not found.cells
        return
    whole = matrix.make_plan(found, made, max_jobs=max_jobs)
    in_lanes = [cell for lane in whole.lanes for cell in lane.cells]
    assert ids(whole.cells) == ids(found.cells)
    assert sorted(in_lanes) == sorted(set(in_lanes)) == sorted(ids(found.cells))
    assert not set(in_lanes) & set(ids(found.skipped))
    assert len(found.cells) + len(found.skipped) == len(found.images) * len(found.runners)
    assert len(whole.lanes) <= max_jobs
    assert [lane.index for lane in whole.lanes] == list(range(len(whole.lanes)))
    for cell in whole.cells:
        assert cell.id in whole.lanes[cell.lane].cells
        assert whole.lanes[cell.lane].runner == cell.runner
    for runner, options in made.runners.items():
        sizes = [len(lane.cells) for lane in whole.lanes if lane.runner == runner]
        assert len(sizes) <= options.jobs
        assert not sizes or (min(sizes) >= 1 and max(sizes) - min(sizes) <= 3)


@given(configs(), st.lists(st.sampled_from(["i0", "g0", "*@g0", "i*", "i1@*", "*x@*"]), max_size=3))
def test_a_selection_is_a_part_in_the_same_order(made: Config, globs: list[str]) -> None:
    cells = matrix.expand(made).cells
    try:
        chosen = matrix.select(cells, globs)
    except ConfigurationError:
        return
    places = [cells.index(cell) for cell in chosen]
    assert places == sorted(set(places))


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(1, 300), min_size=1, max_size=20),
    st.integers(20, 256),
)
def test_lanes_are_taken_from_the_runner_with_most(wanted: dict[str, int], max_jobs: int) -> None:
    counts = lanes.lane_counts(wanted, max_jobs)
    assert list(counts) == list(wanted)
    assert sum(counts.values()) == min(sum(wanted.values()), max_jobs)
    assert all(1 <= counts[name] <= wanted[name] for name in wanted)
    reduced = [counts[name] for name in wanted if counts[name] < wanted[name]]
    assert all(max(counts.values()) - count <= 1 for count in reduced)


def test_coverage_of_runners_that_are_not_there() -> None:
    values = {**CONFIG_FOR_COVERAGE, "policy": {"coverage": {"rtx4091": "100%", "a800": 99, "*": 1}}}
    found = matrix.expand(Config.model_validate(values)).problems
    assert [(finding.path, finding.message) for finding in found] == [
        (("policy", "coverage", "rtx4091"), "'rtx4091' matches no runner; did you mean 'rtx4090'?"),
        (("policy", "coverage", "a800"), "asks for 99 cells of a runner that has 1"),
    ]


CONFIG_FOR_COVERAGE = {
    "version": 1,
    "images": [{"id": "a", "ref": "example.org/a:1"}],
    "runners": {name: {"labels": [name]} for name in ("rtx4090", "a800")},
}
