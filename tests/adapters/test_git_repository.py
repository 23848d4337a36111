"""Asking git: real repositories, shallow ones, hostile ones."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import pytest

from cuda_matrix.adapters.git_repository import GitRepository
from cuda_matrix.errors import ConfigurationError

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")


class Checkout:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *who, *arguments], cwd=self.folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def write(self, path: str, text: str) -> None:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def save(self, **files: str) -> str:
        for path, text in files.items():
            self.write(path, text)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "x", "--allow-empty")
        return self.git("rev-parse", "HEAD")

    @property
    def here(self) -> GitRepository:
        return GitRepository(self.folder, os.environ)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "repo")


def test_files_that_changed_since_the_branch_left_it(checkout: Checkout) -> None:
    first = checkout.save(a="1", b="1", c="1")
    checkout.git("switch", "-q", "-c", "topic")
    checkout.save(a="2")
    checkout.git("switch", "-q", "main")
    later = checkout.save(b="2")  # not ours: it happened on main
    checkout.git("switch", "-q", "topic")
    checkout.write("c", "not committed")
    checkout.write("new file", "x")
    assert checkout.here.commit("main") == later
    assert checkout.here.changed_files(later) == ("a", "c", "new file")
    assert checkout.here.changed_files(first) == ("a", "c", "new file")


def test_a_move_is_two_changes_and_odd_names_come_through(checkout: Checkout) -> None:
    first = checkout.save(**{"old/name": "text " * 50, "é\nx": "1"})
    checkout.git("mv", "old/name", "moved")
    checkout.write("é\nx", "2")
    assert checkout.here.changed_files(first) == ("moved", "old/name", "é\nx")


def test_from_a_folder_below_names_count_from_the_top(checkout: Checkout) -> None:
    first = checkout.save(**{"top": "1", "sub/reports/results.jsonl": "then"})
    checkout.write("top", "2")
    checkout.write("sub/new", "2")
    below = GitRepository(checkout.folder / "sub", os.environ)
    assert below.changed_files(first) == ("sub/new", "top")
    checkout.write("sub/reports/results.jsonl", "now")
    assert below.file(first, "reports/results.jsonl", 100) == b"then"
    assert below.file(first, "reports/results.jsonl", 3) is None
    assert below.file(first, "top", 100) is None


def test_a_folder_as_it_was_without_links(checkout: Checkout, tmp_path: Path) -> None:
    checkout.write("matrix/images.yml", "then")
    (checkout.folder / "matrix/evil.yml").symlink_to("/etc/passwd")
    first = checkout.save()
    checkout.write("matrix/images.yml", "now")
    place = checkout.here.extract(first, "matrix", tmp_path / "then", 1000)
    assert place is not None
    assert [(path.name, path.read_text()) for path in place.iterdir()] == [("images.yml", "then")]
    assert checkout.here.extract(first, "cuda-matrix.yml", tmp_path / "other", 1000) is None
    assert checkout.here.extract(first, "matrix", tmp_path / "small", 1) is None


@pytest.mark.parametrize("path", ["matrix", "./matrix", "{top}/matrix", "x/../matrix"])
def test_what_is_extracted_never_lies_in_the_checkout(checkout: Checkout, tmp_path: Path, path: str) -> None:
    first = checkout.save(**{"matrix/images.yml": "then", "sub/matrix/images.yml": "below"})
    checkout.write("matrix/images.yml", "now")
    place = checkout.here.extract(first, path.replace("{top}", str(checkout.folder)), tmp_path / "then", 1000)
    assert place is not None
    assert (place / "images.yml").read_text() == "then"
    below = GitRepository(checkout.folder / "sub", os.environ).extract(first, "matrix", tmp_path / "sub", 1000)
    assert below is not None
    assert (below / "images.yml").read_text() == "below"
    for outside in ("..", "../x", "/etc", f"{checkout.folder}2/matrix", ":(top)matrix", "matri?"):
        assert checkout.here.extract(first, outside, tmp_path / "no", 1000) is None


@pytest.mark.parametrize("revision", ["", "--output=x", "nowhere", "main^{tree}", "x y"])
def test_a_revision_that_is_none(checkout: Checkout, revision: str) -> None:
    checkout.save(a="1")
    with pytest.raises(ConfigurationError, match="revision"):
        checkout.here.commit(revision)


def test_a_shallow_checkout_says_how_to_deepen_it(checkout: Checkout, tmp_path: Path) -> None:
    first = checkout.save(a="1")
    checkout.save(a="2")
    subprocess.run(
        ["git", "clone", "-q", "--depth", "1", checkout.folder.as_uri(), str(tmp_path / "shallow")], check=True
    )
    shallow = GitRepository(tmp_path / "shallow", os.environ)
    with pytest.raises(ConfigurationError) as caught:
        shallow.commit(first)
    assert "fetch-depth: 0" in (caught.value.hint or "")


def test_no_repository_and_no_git(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no git repository"):
        GitRepository(tmp_path, os.environ).commit("main")
    with pytest.raises(ConfigurationError, match="needs git"):
        GitRepository(tmp_path, {"PATH": str(tmp_path)}).commit("main")


def test_a_checkout_chooses_no_programs(checkout: Checkout) -> None:
    first = checkout.save(a="1")
    for key in ("core.fsmonitor", "diff.external", "core.pager"):
        checkout.git("config", key, f"touch {checkout.folder}/ran-{key}")
    checkout.write("a", "2")
    assert checkout.here.changed_files(first) == ("a",)
    assert not list(checkout.folder.glob("ran-*"))


def test_the_environment_points_nowhere_else(checkout: Checkout, tmp_path: Path) -> None:
    first = checkout.save(a="1")
    other = Checkout(tmp_path / "other")
    other.save(b="1")
    environ = {**os.environ, "GIT_DIR": str(other.folder / ".git"), "GIT_WORK_TREE": str(other.folder)}
    assert GitRepository(checkout.folder, environ).commit("main") == first


def test_a_submodule_that_moved_is_a_folder_whatever_the_checkout_says(checkout: Checkout, tmp_path: Path) -> None:
    inner = Checkout(tmp_path / "inner")
    inner.save(a="1")
    checkout.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner.folder), "lib")
    first = checkout.save()
    Checkout(checkout.folder / "lib").save(a="2")
    checkout.git("config", "-f", ".gitmodules", "submodule.lib.ignore", "all")
    checkout.git("config", "diff.ignoreSubmodules", "all")
    assert checkout.here.changed_files(first) == (".gitmodules", "lib/")


def test_a_file_has_the_names_of_the_links_to_it(checkout: Checkout) -> None:
    checkout.save(**{"shared/deep/file": "1", "images/own": "1"})
    (checkout.folder / "images/shared").symlink_to("../shared")
    (checkout.folder / "images/one").symlink_to("../shared/deep/file")
    (checkout.folder / "again").symlink_to("images/shared/deep")
    (checkout.folder / "loop").symlink_to("loop")
    first = checkout.save()
    assert checkout.here.changed_files(first) == ()
    checkout.write("shared/deep/file", "2")
    names = checkout.here.changed_files(first)
    assert names == ("again/file", "images/one", "images/shared/deep/file", "shared/deep/file")


def test_a_link_to_the_outside_may_lead_to_anything(checkout: Checkout) -> None:
    (checkout.folder / "away").symlink_to("../elsewhere")
    first = checkout.save()
    assert checkout.here.changed_files(first) == ("away/",)


def test_modes_and_other_peoples_settings(checkout: Checkout) -> None:
    first = checkout.save(**{"sub/run.sh": "1"})
    checkout.git("config", "diff.relative", "true")
    (checkout.folder / "sub/run.sh").chmod(0o755)
    assert GitRepository(checkout.folder / "sub", os.environ).changed_files(first) == ("sub/run.sh",)


def test_the_branch_as_it_was(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    def at(day: int, *arguments: str) -> str:
        monkeypatch.setenv("GIT_COMMITTER_DATE", f"2026-01-{day:02}T12:00:00Z")
        checkout.git(*arguments)
        return checkout.git("rev-parse", "HEAD")

    one = at(1, "commit", "-q", "--allow-empty", "-m", "1")
    checkout.git("switch", "-q", "-c", "topic")
    at(2, "commit", "-q", "--allow-empty", "-m", "not yet on main")
    checkout.git("switch", "-q", "main")
    merged = at(5, "merge", "-q", "--no-ff", "-m", "merge", "topic")
    here = checkout.here
    assert here.before(merged, datetime(2026, 1, 3, tzinfo=timezone.utc)) == one
    assert here.before(merged, datetime(2026, 1, 6, tzinfo=timezone.utc)) == merged
    assert here.before(merged, datetime(2025, 1, 1, tzinfo=timezone.utc)) is None
