from __future__ import annotations

import json
import os
import stat
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import STARTED, make_image, make_plan, make_result, make_runner
from cuda_matrix import result_files
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.model import Verdict
from cuda_matrix.result_files import file_name, read_plan, read_results, set_aside, write_plan, write_result

CELL = "good@rtx4090"


def messages(found: result_files.Collected) -> dict[str, str]:
    return {problem.file: problem.message for problem in found.problems}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    plan, result = make_plan(), make_result(CELL, images_per_s=1245.3)
    write_plan(tmp_path / "new", plan)
    path = write_result(tmp_path / "new", result)
    assert path.name == f"{CELL}.json"
    assert read_results([tmp_path]) == result_files.Collected(plan, (result,), ())
    assert read_plan(tmp_path / "new" / "plan.json") == plan
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [f"{CELL}.json", "plan.json"]


def test_another_user_may_read_a_result(tmp_path: Path) -> None:
    assert stat.S_IMODE(write_result(tmp_path, make_result(CELL)).stat().st_mode) == 0o644


def test_a_single_file_and_a_report_beside_results(tmp_path: Path) -> None:
    path = write_result(tmp_path, make_result(CELL))
    (tmp_path / "report.json").write_text('{"report_version": 1}')
    assert read_results([tmp_path]).problems == ()
    assert [result.cell for result in read_results([path]).results] == [CELL]


@pytest.mark.parametrize("cell", ["../x@y", "a/b@c", "a@", "@b", "a", ".a@b", "a@b\n", "a+@b", "a@b@c"])
def test_what_is_no_cell_id_becomes_no_file(cell: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a cell id"):
        write_result(tmp_path, make_result("a@b").model_copy(update={"cell": cell}))
    assert list(tmp_path.iterdir()) == []


def test_long_cell_ids_keep_apart() -> None:
    names = {file_name(f"{'a' * 100}+{'b' * 100}@{end * 100}") for end in "xy"}
    assert len(names) == 2
    assert max(len(name) for name in names) < 220


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"result_version": 1, "cell"', "not complete JSON"),
        (b"\xff\xfe", "not complete JSON"),
        (b"[" * 100_000, "not complete JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "has no result_version"),
        (b'{"result_version": 2}', "has result_version 2; this program reads 1"),
        (b'{"result_version": 1}', "does not fit the schema: cell: Field required"),
    ],
)
def test_a_bad_file_is_a_problem_and_its_cell_has_no_result(content: bytes, message: str, tmp_path: Path) -> None:
    write_plan(tmp_path, make_plan())
    (tmp_path / "older").mkdir()
    write_result(tmp_path / "older", make_result(CELL))
    (tmp_path / f"{CELL}.json").write_bytes(content)
    found = read_results([tmp_path])
    assert message in messages(found)[f"{CELL}.json"]
    assert found.results == ()


def test_an_unknown_key_does_not_fit(tmp_path: Path) -> None:
    document = json.loads(make_result(CELL).model_dump_json())
    (tmp_path / "x.json").write_text(json.dumps({**document, "surprise": 1}))
    assert "surprise: Extra inputs" in messages(read_results([tmp_path]))["x.json"]


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x.json").open("wb") as file:
        file.truncate(result_files.FILE_LIMIT_BYTES + 1)
    assert messages(read_results([tmp_path])) == {"x.json": "is larger than 8 MiB"}


def test_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    outside = write_result(tmp_path / "outside", make_result(CELL))
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link.json").symlink_to(outside)
    (inside / "folder").symlink_to(outside.parent)
    os.mkfifo(inside / "pipe.json")
    found = read_results([inside])
    assert found.results == ()
    assert messages(found) == {
        "link.json": "is a symbolic link, and those are not followed",
        "pipe.json": "is not a regular file",
        "folder/plan.json": "its folder is a symbolic link, and those are not followed",
    }
    assert [problem.file for problem in found.plan_problems] == ["folder/plan.json"]  # it may demand cells: it blocks


def test_a_results_folder_called_previous_is_read(tmp_path: Path) -> None:
    write_plan(tmp_path, make_plan(runners=("one",)))
    write_plan(tmp_path / "previous", make_plan(runners=("two",)))
    write_result(tmp_path / "previous", make_result("good@two"))
    found = read_results([tmp_path])
    assert found.plan is not None
    assert {cell.id for cell in found.plan.cells} == {"good@one", "good@two"}
    assert [result.cell for result in found.results] == ["good@two"]


def test_a_file_name_that_is_no_text_is_told_all_the_same(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.json")).write_text("{")
    assert list(messages(read_results([tmp_path]))) == ["\ufffd.json"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("started_at", "9999-12-31T23:59:59-12:00"),
        ("attempt", 10**300),
        ("facts.gpus", [{"index": 0, "name": "x", "memory_mib": 10**400}]),
        ("facts.memory_gb", "1e999"),
    ],
)
def test_numbers_that_cannot_be_make_a_result_unreadable_and_nothing_worse(
    path: str, value: object, tmp_path: Path
) -> None:
    document = json.loads(write_result(tmp_path, make_result(CELL)).read_text())
    *parents, last = path.split(".")
    place = document
    for parent in parents:
        place = place[parent]
    place[last] = value
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    (tmp_path / file_name(CELL)).write_text(json.dumps(document))
    sys.set_int_max_str_digits(limit)
    found = read_results([tmp_path])
    assert found.results == ()
    assert len(found.problems) == 1


@pytest.mark.parametrize("change", [{"image": "no-such"}, {"runner": "no-such"}, {"id": "../../x@rtx4090"}])
def test_a_plan_that_names_what_it_does_not_hold_is_refused(change: dict[str, str], tmp_path: Path) -> None:
    document = json.loads(write_plan(tmp_path, make_plan()).read_text())
    document["cells"][0].update(change)
    (tmp_path / "plan.json").write_text(json.dumps(document))
    assert "does not fit the schema" in read_results([tmp_path]).plan_problems[0].message


def test_a_path_that_does_not_exist_is_a_problem(tmp_path: Path) -> None:
    assert messages(read_results([tmp_path / "no"])) == {"no": "does not exist"}


def test_the_newest_result_wins_over_all_folders(tmp_path: Path) -> None:
    write_result(tmp_path / "b", make_result(CELL))
    write_result(tmp_path / "a", make_result(CELL, Verdict.FAIL, started_at=STARTED + timedelta(hours=1), attempt=2))
    assert [result.verdict for result in read_results([tmp_path]).results] == [Verdict.FAIL]


def test_plans_of_several_lanes_are_united(tmp_path: Path) -> None:
    first = make_plan(images=("a", "b"), runners=("x",), skipped=(("b", "x", "unchanged", "same"),))
    second = make_plan(images=("b", "c"), runners=("x", "y"))
    for name, plan in (("1", first), ("2", second), ("3", first)):
        write_plan(tmp_path / name, plan)
    plan = read_results([tmp_path]).plan
    assert plan is not None
    assert [cell.id for cell in plan.cells] == ["a@x", "b@x", "c@x", "b@y", "c@y"]
    assert plan.skipped == ()
    assert all(cell.id in plan.lanes[cell.lane].cells for cell in plan.cells)
    assert [lane.index for lane in plan.lanes] == list(range(len(plan.lanes)))


@pytest.mark.parametrize(
    "other",
    [
        make_plan(images=(make_image("good", ref="example.org/other:2"),)),
        make_plan(images=(make_image("good", digest="sha256:" + "77" * 32),)),
        make_plan(runners=(make_runner("rtx4090", "RTX 3090"),)),
        make_plan(policy=make_plan().policy.model_copy(update={"required": ("x@y",)})),
    ],
)
def test_plans_that_contradict_each_other_are_a_problem(other: object, tmp_path: Path) -> None:
    write_plan(tmp_path / "1", make_plan())
    write_plan(tmp_path / "2", other)  # type: ignore[arg-type]
    found = read_results([tmp_path])
    assert found.plan == make_plan()
    assert [problem.file for problem in found.plan_problems] == ["2/plan.json"]
    assert "contradicts an earlier plan" in found.plan_problems[0].message


def test_a_plan_that_cannot_be_read_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        read_plan(tmp_path / "plan.json")
    (tmp_path / "plan.json").write_text('{"plan_version": 7}')
    with pytest.raises(ConfigurationError, match="has plan_version 7"):
        read_plan(tmp_path / "plan.json")


def test_set_aside_leaves_no_stale_pass_and_counts_attempts(tmp_path: Path) -> None:
    assert set_aside(tmp_path, [CELL]) == {CELL: 1}
    for attempt in (1, 2):
        write_result(tmp_path, make_result(CELL, attempt=attempt))
        assert set_aside(tmp_path, [CELL]) == {CELL: attempt + 1}
    assert read_results([tmp_path]).results == ()
    assert sorted(path.name for path in (tmp_path / "previous").iterdir()) == [f"{CELL}.1.json", f"{CELL}.2.json"]
    assert set_aside(tmp_path, [CELL]) == {CELL: 3}


def test_set_aside_keeps_what_it_cannot_read_and_overwrites_nothing(tmp_path: Path) -> None:
    for content in ("cut", "cut again"):
        (tmp_path / f"{CELL}.json").write_text(content)
        set_aside(tmp_path, [CELL])
    kept = sorted(path.read_text() for path in (tmp_path / "previous").iterdir())
    assert kept == ["cut", "cut again"]


def test_set_aside_does_not_touch_other_cells(tmp_path: Path) -> None:
    write_result(tmp_path, make_result("good-2@rtx4090"))
    set_aside(tmp_path, [CELL])
    assert [result.cell for result in read_results([tmp_path]).results] == ["good-2@rtx4090"]


@given(cut=st.integers(min_value=0))
def test_a_result_cut_anywhere_is_never_a_result(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("cut")
    path = write_result(folder, make_result(CELL))
    data = path.read_bytes().rstrip()
    path.write_bytes(data[: cut % len(data)])
    assert read_results([folder]).results == ()
