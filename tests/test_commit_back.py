"""The report at the head of a branch of an emulated GitHub: one commit or none, whoever else commits."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from builders import STARTED, make_plan, make_result
from cuda_matrix import history
from cuda_matrix.commit_back import PULL_BRANCH, Pace, Record, Target, commit_back, git_blob
from cuda_matrix.forge import Forbidden, ForgeError, HeadMoved, Protected
from cuda_matrix.gate import judge, newest_date
from cuda_matrix.ledger import Ledger, decode
from cuda_matrix.plan_union import only
from github_bed import GithubBed
from github_proxy import Fault

IMAGES, RUNNERS = ("torch2.4", "torch2.5"), ("left", "middle", "right")
PLAN = make_plan(IMAGES, RUNNERS).model_copy(update={"matrix_cells": 6})
CELLS = tuple(cell.id for cell in PLAN.cells)
MAIN = Target("main", "reports")
NAMES = ("badge.json", "index.html", "report.json", "report.md", "results.jsonl")


class Waits:
    """Chance is always the most, and nobody really waits."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def pace(self) -> Pace:
        return Pace(sleep=self.pauses.append, chance=lambda: 1.0)


def record(number: int = 1, cells: tuple[str, ...] = CELLS, minutes: int = 0) -> Record:
    """A run of these cells."""
    plan, started = only(PLAN, cells), STARTED + timedelta(minutes=minutes)
    results = {cell: make_result(cell, images_per_s=100 * number, started_at=started) for cell in cells}
    gate = judge(plan, results.values(), newest_date(results.values()))
    path = history.path_of(str(number), "1", results.values())
    now = STARTED + timedelta(days=1)
    return Record(Ledger(plan, results), {path: history.encode(plan, gate)}, "update the report", now)


def figures(files: dict[str, bytes], folder: str = "reports") -> dict[str, float]:
    """Cell → images/s in the ledger that lies in a tree."""
    found = decode(files[f"{folder}/results.jsonl"])
    assert not found.problems
    return {
        result.cell: result.benchmarks[0].samples.median for result in found.results if result.benchmarks[0].samples
    }


def test_one_commit_holds_the_whole_report(github_bed: GithubBed) -> None:
    head = github_bed.head()
    done = commit_back(github_bed.forge(), MAIN, record(), Waits().pace())
    assert (done.how, done.branch, done.commit) == ("committed", "main", github_bed.head())
    expected = {*(f"reports/{name}" for name in NAMES), "reports/history/2026/11/1-1.jsonl"}
    assert set(done.files) == expected
    assert [one["sha"] for one in github_bed.commits()] == [done.commit, head]
    assert github_bed.commits()[0]["message"] == "update the report\n\n[skip ci]"
    assert set(github_bed.files()) == {"README.md", *expected}
    assert len(github_bed.proxy.sent) <= 7
    sent = next(one for one in github_bed.proxy.sent if one.path.endswith("/git/trees")).body["tree"]
    assert {one["path"]: one["content"].encode() for one in sent} == {
        path: content for path, content in github_bed.files().items() if path in expected
    }
    tree = github_bed.forge().tree(done.commit)
    assert {path: entry.blob_sha for path, entry in tree.items()} == {
        path: git_blob(content) for path, content in github_bed.files().items()
    }


def test_the_same_again_writes_nothing(github_bed: GithubBed) -> None:
    forge = github_bed.forge()
    commit_back(forge, MAIN, record(), Waits().pace())
    github_bed.push({"other.txt": "meanwhile"})
    head = github_bed.head()
    github_bed.proxy.sent.clear()
    done = commit_back(forge, MAIN, record(), Waits().pace())
    assert (done.how, done.commit, github_bed.head()) == ("unchanged", head, head)
    assert [one.method for one in github_bed.proxy.sent] == ["GET"] * 3


def test_a_part_of_the_matrix_keeps_what_others_published(github_bed: GithubBed) -> None:
    forge = github_bed.forge()
    commit_back(forge, MAIN, record(1), Waits().pace())
    commit_back(forge, MAIN, record(2, CELLS[:2], minutes=60), Waits().pace())
    assert figures(github_bed.files()) == {cell: 200 if cell in CELLS[:2] else 100 for cell in CELLS}
    assert {path for path in github_bed.files() if "history" in path} == {
        "reports/history/2026/11/1-1.jsonl",
        "reports/history/2026/11/2-1.jsonl",
    }


def test_at_a_head_that_has_moved_the_report_is_made_again(github_bed: GithubBed) -> None:
    """Somebody else publishes, and a developer pushes, between our reading and our commit."""
    other, waits = github_bed.forge(), Waits()

    def meanwhile() -> None:
        github_bed.push({"other.txt": "mine"})
        commit_back(other, MAIN, record(2, CELLS[3:], minutes=5), Waits().pace())

    github_bed.proxy.faults.append(Fault("POST", "/git/commits$", then=meanwhile))
    done = commit_back(github_bed.forge(), MAIN, record(1, CELLS[:3]), waits.pace())
    assert (done.how, waits.pauses) == ("committed", [1.0])
    files = github_bed.files()
    assert files["other.txt"] == b"mine"
    assert figures(files) == {cell: 100 if cell in CELLS[:3] else 200 for cell in CELLS}
    assert b"200" in files["reports/report.md"]
    assert len(github_bed.commits()) == 4


def test_two_publishers_at_once_lose_nothing(github_bed: GithubBed) -> None:
    parts = (CELLS[:2], CELLS[2:4], CELLS[4:])
    errors: list[BaseException] = []

    def publish(number: int, cells: tuple[str, ...]) -> None:
        try:
            for minutes in range(2):
                run = record(10 * minutes + number, cells, minutes)
                commit_back(github_bed.forge(), MAIN, run, Pace(sleep=lambda _: None, chance=lambda: 0))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=publish, args=(n, cells)) for n, cells in enumerate(parts, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    files = github_bed.files()
    assert figures(files) == {cell: 100 * (10 + n) for n, cells in enumerate(parts, 1) for cell in cells}
    assert len([path for path in files if "/history/" in path]) == 6
    assert len(github_bed.commits()) == 7, "one commit each: none without content, none twice"


def test_a_branch_that_never_stands_still_is_given_up(github_bed: GithubBed) -> None:
    waits = Waits()
    push = lambda: github_bed.push({"busy.txt": str(len(waits.pauses))})  # noqa: E731
    github_bed.proxy.faults.append(Fault("POST", "/git/commits$", then=push, times=99))
    with pytest.raises(HeadMoved):
        commit_back(github_bed.forge(), MAIN, record(), waits.pace())
    assert waits.pauses == [1, 2, 4, 8, 16, 32]
    assert not any(path.startswith("reports/") for path in github_bed.files())


def test_a_protected_branch_gets_one_pull_request_that_later_runs_add_to(github_bed: GithubBed) -> None:
    github_bed.protect()
    before = github_bed.head()
    done = commit_back(github_bed.forge(), MAIN, record(1), Waits().pace())
    assert (done.how, done.branch, github_bed.head()) == ("proposed", PULL_BRANCH, before)
    assert any("protected" in note for note in done.notes)
    assert done.pull is not None
    again = commit_back(github_bed.forge(), MAIN, record(2, CELLS[:2], minutes=9), Waits().pace())
    assert again.pull is not None
    assert again.pull.number == done.pull.number
    files = github_bed.files(PULL_BRANCH)
    assert figures(files) == {cell: 200 if cell in CELLS[:2] else 100 for cell in CELLS}
    assert len([path for path in files if "/history/" in path]) == 2
    assert "[skip ci]" not in github_bed.commits(PULL_BRANCH)[0]["message"], "required checks must run on it"
    github_bed.proxy.sent.clear()
    commit_back(github_bed.forge(), MAIN, record(2, CELLS[:2], minutes=9), Waits().pace())
    assert [one.path.rsplit("/", 1)[1] for one in github_bed.proxy.writes()][:3] == ["trees", "commits", "main"]
    assert github_bed.head(PULL_BRANCH) == again.commit, "nothing new is proposed"


def test_after_a_squashed_pull_request_the_next_one_does_not_conflict(github_bed: GithubBed) -> None:
    """The branch stays at the old commits; main has their content in one of its own."""
    github_bed.protect()
    forge = github_bed.forge()
    first = commit_back(forge, MAIN, record(1), Waits().pace())
    assert first.pull is not None
    taken = {path: text.decode() for path, text in github_bed.files(PULL_BRANCH).items()}
    github_bed.ask("DELETE", github_bed.here("/branches/main/protection"))
    squashed = github_bed.push({**taken, "later.txt": "by a developer"})
    github_bed.ask("PATCH", github_bed.here(f"/pulls/{first.pull.number}"), {"state": "closed"})
    github_bed.protect()
    second = commit_back(forge, MAIN, record(2, minutes=60), Waits().pace())
    assert second.pull is not None
    assert second.pull.number != first.pull.number
    tip = github_bed.ask("GET", github_bed.here(f"/git/commits/{second.commit}"))
    assert [one["sha"] for one in tip["parents"]] == [first.commit, squashed]
    files = github_bed.files(PULL_BRANCH)
    assert files["later.txt"] == b"by a developer"
    assert set(figures(files).values()) == {200}


def test_a_branch_of_its_own_is_made_without_history(github_bed: GithubBed) -> None:
    github_bed.protect()
    own = Target("matrix-data", "reports", is_own=True)
    done = commit_back(github_bed.forge(), own, record(1), Waits().pace())
    assert done.how == "committed"
    assert set(github_bed.files("matrix-data")) == set(done.files)
    assert len(github_bed.commits("matrix-data")) == 1
    commit_back(github_bed.forge(), own, record(2, minutes=1), Waits().pace())
    assert len(github_bed.commits("matrix-data")) == 2
    with pytest.raises(ForgeError, match="no branch nowhere"):
        commit_back(github_bed.forge(), Target("nowhere", "reports"), record(), Waits().pace())


def test_two_that_make_the_branch_at_once(github_bed: GithubBed) -> None:
    own, other = Target("matrix-data", "reports", is_own=True), github_bed.forge()
    meanwhile = lambda: commit_back(other, own, record(2, CELLS[3:]), Waits().pace())  # noqa: E731
    github_bed.proxy.faults.append(Fault("POST", "/git/commits$", then=meanwhile))  # type: ignore[arg-type]
    commit_back(github_bed.forge(), own, record(1, CELLS[:3]), Waits().pace())
    assert set(figures(github_bed.files("matrix-data"))) == set(CELLS)


def test_a_token_that_may_only_read_changes_nothing(github_bed: GithubBed) -> None:
    head = github_bed.head()
    with pytest.raises(Forbidden):
        commit_back(github_bed.forge(github_bed.read_only), MAIN, record(), Waits().pace())
    assert github_bed.head() == head


def test_what_somebody_wrote_into_the_ledger_is_said_and_replaced(github_bed: GithubBed) -> None:
    forge = github_bed.forge()
    commit_back(forge, MAIN, record(1), Waits().pace())
    good = github_bed.files()["reports/results.jsonl"].decode()
    github_bed.push({"reports/results.jsonl": good + '{"cell": "../../etc/passwd"}\n'})
    done = commit_back(forge, MAIN, record(2, CELLS[:1], minutes=1), Waits().pace())
    assert [note[:44] for note in done.notes] == ["not kept: reports/results.jsonl:8:1: the lin"]
    assert set(figures(github_bed.files())) == set(CELLS)
    github_bed.push({"reports/results.jsonl": "\0 no ledger"})
    done = commit_back(forge, MAIN, record(3, minutes=2), Waits().pace())
    assert done.how == "committed"
    assert set(figures(github_bed.files()).values()) == {300}


def test_a_head_that_was_moved_by_force_keeps_what_is_there_then(github_bed: GithubBed) -> None:
    forge = github_bed.forge()
    root = github_bed.head()
    commit_back(forge, MAIN, record(1), Waits().pace())
    done = github_bed.commits()

    def reset() -> None:
        body = {"sha": root, "force": True}
        github_bed.ask("PATCH", github_bed.here("/git/refs/heads/main"), body)
        github_bed.push({"somebody": "else"})

    github_bed.proxy.faults.append(Fault("POST", "/git/commits$", then=reset))
    commit_back(forge, MAIN, record(2, CELLS[:1], minutes=1), Waits().pace())
    assert github_bed.files()["somebody"] == b"else"
    assert len(github_bed.commits()) == len(done) + 1  # root, somebody's, ours
    assert set(figures(github_bed.files())) == {CELLS[0]}  # what was thrown away is not brought back


def test_a_branch_that_goes_meanwhile(github_bed: GithubBed) -> None:
    forge = github_bed.forge()
    github_bed.push({"a": "b"}, "topic")

    def delete() -> None:
        github_bed.ask("DELETE", github_bed.here("/git/refs/heads/topic"))

    github_bed.proxy.faults.append(Fault("POST", "/git/commits$", then=delete))
    with pytest.raises(ForgeError, match="there is no branch topic"):
        commit_back(forge, Target("topic", "reports"), record(1), Waits().pace())
    assert forge.head("topic") is None
    own = Target("data", "reports", is_own=True)
    commit_back(forge, own, record(1), Waits().pace())

    def delete_data() -> None:
        github_bed.ask("DELETE", github_bed.here("/git/refs/heads/data"))

    github_bed.proxy.faults.append(Fault("POST", "/git/commits$", then=delete_data))
    done = commit_back(forge, own, record(2, minutes=1), Waits().pace())
    assert (done.how, forge.head("data")) == ("committed", done.commit)


def test_a_ledger_of_fifty_megabytes_is_not_read_and_that_is_said(github_bed: GithubBed) -> None:
    github_bed.push({"reports/results.jsonl": "x" * (50 << 20), "ünï/çødé ☃.txt": "kept"})
    done = commit_back(github_bed.forge(), MAIN, record(1), Waits().pace())
    assert "reports/results.jsonl there is larger than 32 MiB" in done.notes[0]
    assert "ünï/çødé ☃.txt" in github_bed.files()


@pytest.mark.parametrize("line", [1, 3])
def test_what_a_later_version_published_is_not_replaced(github_bed: GithubBed, line: int) -> None:
    forge = github_bed.forge()
    commit_back(forge, MAIN, record(1), Waits().pace())
    lines = github_bed.files()["reports/results.jsonl"].decode().splitlines(keepends=True)
    lines[line - 1] = lines[line - 1].replace('_version":1', '_version":2', 1)
    github_bed.push({"reports/results.jsonl": "".join(lines)})
    before = github_bed.files()
    with pytest.raises(ForgeError, match=rf"later version of cuda-matrix .*results.jsonl:{line}:.*update"):
        commit_back(forge, MAIN, record(2, minutes=1), Waits().pace())
    assert github_bed.files() == before


def test_history_that_is_there_is_never_edited(github_bed: GithubBed) -> None:
    forge = github_bed.forge()
    commit_back(forge, MAIN, record(1), Waits().pace())
    said = github_bed.files()["reports/history/2026/11/1-1.jsonl"]
    again = record(1, CELLS[:1], minutes=5)
    commit_back(forge, MAIN, again, Waits().pace())
    assert github_bed.files()["reports/history/2026/11/1-1.jsonl"] == said != next(iter(again.history.values()))


def test_rules_on_every_branch_are_said(github_bed: GithubBed) -> None:
    rules = {"message": "Repository rule violations found: Cannot create ref due to creations being restricted. GH013"}
    github_bed.protect()
    github_bed.proxy.faults.append(Fault("POST", "/git/refs$", 422, rules))
    with pytest.raises(Protected, match="creations being restricted"):
        commit_back(github_bed.forge(), MAIN, record(), Waits().pace())


def test_the_name_of_a_blob_is_gits() -> None:
    assert git_blob(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"  # git hash-object /dev/null
    assert git_blob(b"", "0" * 64) == "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813"
