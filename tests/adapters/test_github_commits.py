"""Commits through the Git Data API of an emulated GitHub: one commit or none, and why."""

from __future__ import annotations

import pytest

from cuda_matrix.forge import Forbidden, ForgeError, HeadMoved, Protected
from github_bed import GithubBed
from github_proxy import Fault, lost_answer


def test_one_commit_of_text_and_binary_files(github_bed: GithubBed) -> None:
    seen, head = github_bed.forge(), github_bed.head()
    files = {
        "reports/report.md": "# ✅ Umlaute äöü\r\n".encode(),
        "reports/card.png": b"\x89PNG\r\n\x1a\n\0\0\xff",
        "reports/nul.txt": b"a\0b",
        "reports/empty": b"",
    }
    commit = seen.commit("main", head, files, "cuda-matrix: report")
    assert github_bed.files() == {"README.md": github_bed.files(head)["README.md"], **files}
    assert {path: seen.blob(entry.blob_sha) for path, entry in seen.tree(commit).items()} == github_bed.files()
    assert [one["sha"] for one in github_bed.commits()] == [commit, head]
    posts = [one for one in github_bed.proxy.sent if one.method == "POST"]
    assert [one.path.rsplit("/", 1)[1] for one in posts] == ["blobs", "blobs", "trees", "commits"]
    assert not {"author", "committer"} & set(posts[-1].body)  # else GitHub would not sign it
    seen.commit("main", commit, {"reports/card.png": None, "reports/empty": b"now"}, "second")
    assert set(github_bed.files()) == {"README.md", "reports/report.md", "reports/nul.txt", "reports/empty"}


def test_a_first_commit_of_a_branch_without_history(github_bed: GithubBed) -> None:
    seen = github_bed.forge()
    assert seen.head("cuda/data") is None
    commit = seen.commit("cuda/data", None, {"results.jsonl": b"{}\n"}, "first")
    assert seen.head("cuda/data") == commit
    assert github_bed.files("cuda/data") == {"results.jsonl": b"{}\n"}
    assert len(github_bed.commits("cuda/data")) == 1
    with pytest.raises(HeadMoved):
        seen.commit("cuda/data", None, {"results.jsonl": b"[]\n"}, "first too")


def test_a_race_is_told_and_changes_nothing(github_bed: GithubBed) -> None:
    seen, head = github_bed.forge(), github_bed.head()
    faster: list[str] = []
    push = lambda: faster.append(github_bed.push({"other.txt": "x"}))  # noqa: E731
    github_bed.proxy.faults.append(Fault("POST", "/git/commits$", then=push))
    with pytest.raises(HeadMoved, match="not at"):
        seen.commit("main", head, {"a.txt": b"a"}, "ours")
    assert [github_bed.head()] == faster
    assert seen.commit("main", faster[0], {"a.txt": b"a"}, "again") == github_bed.head()
    assert set(github_bed.files()) == {"README.md", "other.txt", "a.txt"}


def test_a_branch_that_is_gone_has_moved(github_bed: GithubBed) -> None:
    head = github_bed.push({"x": "x"}, "data")
    github_bed.ask("DELETE", github_bed.here("/git/refs/heads/data"))
    with pytest.raises(ForgeError):
        github_bed.forge().commit("data", head, {"a": b"a"}, "m")
    assert "a" not in github_bed.files()


@pytest.mark.parametrize("status", [502, 0])
@pytest.mark.parametrize("path", ["/git/trees$", "/git/commits$", "/git/refs/heads/main$"])
def test_lost_answers_of_a_commit_end_in_one_commit(github_bed: GithubBed, path: str, status: int) -> None:
    method = "PATCH" if path.endswith("main$") else "POST"
    github_bed.proxy.faults.append(lost_answer(method, path, status=status))
    commit = github_bed.forge().commit("main", github_bed.head(), {"a.txt": b"a"}, "ours")
    assert github_bed.head() == commit
    assert len(github_bed.commits()) == 2


def test_a_new_branch_whose_answer_was_lost_is_ours(github_bed: GithubBed) -> None:
    github_bed.proxy.faults.append(lost_answer("POST", "/git/refs$"))
    seen = github_bed.forge()
    seen.create_branch("cuda-matrix/report", github_bed.head())
    assert github_bed.head("cuda-matrix/report") == github_bed.head()
    with pytest.raises(HeadMoved):
        seen.create_branch("cuda-matrix/report", github_bed.push({"x": "x"}))


@pytest.mark.parametrize("check", ["", "required"])
def test_a_protected_branch_is_told_from_a_race(github_bed: GithubBed, check: str) -> None:
    head = github_bed.head()
    github_bed.protect(check=check)
    with pytest.raises(Protected):
        github_bed.forge().commit("main", head, {"a.txt": b"a"}, "ours")
    assert github_bed.head() == head


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (422, 'Required status check "ci" is expected.', Protected),
        (422, "At least 1 approving review is required by reviewers with write access.", Protected),
        (403, "You're not authorized to push to this branch. Visit https://docs.github.com/", Protected),
        (409, "Protected branch update failed for refs/heads/main.", Protected),
        (403, "Resource not accessible by integration", Forbidden),
        (422, "Object does not exist", ForgeError),
    ],
)
def test_githubs_own_words_for_a_refused_update(
    github_bed: GithubBed, status: int, message: str, kind: type[ForgeError]
) -> None:
    github_bed.proxy.faults.append(Fault("PATCH", "/git/refs/", status, {"message": message}))
    with pytest.raises(ForgeError) as raised:
        github_bed.forge().commit("main", github_bed.head(), {"a.txt": b"a"}, "ours")
    assert type(raised.value) is kind or (kind is ForgeError and not isinstance(raised.value, HeadMoved | Protected))
    assert message[:20] in str(raised.value)


def test_an_enormous_tree_is_read_folder_by_folder(github_bed: GithubBed) -> None:
    head = github_bed.push({"a/b/c.txt": "c", "a/d.txt": "d", "e.txt": "e"})
    cut = {"sha": head, "tree": [], "truncated": True}
    github_bed.proxy.faults.append(Fault("GET", f"/git/trees/{head}", 200, cut))
    assert set(github_bed.forge().tree(head)) == {"README.md", "a/b/c.txt", "a/d.txt", "e.txt"}


@pytest.mark.parametrize(
    "answer",
    [{}, {"object": {"sha": 7}}, {"object": {"sha": "../../x"}}, {"object": []}, {"object": {"sha": "A" * 40}}],
)
def test_an_answer_that_is_none_is_named(github_bed: GithubBed, answer: dict[str, object]) -> None:
    github_bed.proxy.faults.append(Fault("GET", "/git/ref/", 200, answer))
    with pytest.raises(ForgeError, match=r"object\.sha"):
        github_bed.forge().head("main")


def test_an_object_name_cannot_lead_elsewhere(github_bed: GithubBed) -> None:
    with pytest.raises(ForgeError, match="no name of a Git object"):
        github_bed.forge().blob("../../../user")
    assert github_bed.proxy.sent == []
