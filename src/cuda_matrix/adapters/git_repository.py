"""Owns what is asked of git about the checkout: which files changed since a revision, and files as they were then.

Must not know what the files mean. Nothing is fetched, written or checked out.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from cuda_matrix.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

_LIMIT_S = 60.0
_FILES_LIMIT = 2_000  # of one folder at a revision
_SUBMODULE, _LINK = "160000", "120000"  # modes
_LINKS_DEEP = 3  # links on the way to one file that are followed
_FETCH = "fetch it first (actions/checkout with `fetch-depth: 0`), or leave --changed-since out: then every cell runs"


class GitRepository:
    """The checkout around `folder`."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        # Another repository than the one around this folder, or another configuration, is never meant.
        self._environ = {name: value for name, value in environ.items() if not name.startswith("GIT_")}
        self._environ |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}

    def commit(self, revision: str) -> str:
        """The commit that a revision names.

        Raises:
            ConfigurationError: there is no git, no repository, or no such revision here.
        """
        if not revision or revision.startswith("-"):
            msg = f"--changed-since: {revision!r} is no revision"
            raise ConfigurationError(msg)
        found = self._named(revision)
        if found is None:
            # Only now: the usual way needs no second process.
            if self._git("rev-parse", "--git-dir") is None:
                msg = f"--changed-since: {self._folder.resolve()} is in no git repository that git would read"
                raise ConfigurationError(msg, hint=self._why())
            msg = f"--changed-since: there is no revision {revision!r} in this checkout"
            raise ConfigurationError(msg, hint=_FETCH)
        return found

    def remote_branch(self, branch: str) -> str | None:
        """The commit of origin's branch as it was last fetched; None where it is not here."""
        return self._named(f"refs/remotes/origin/{branch}")

    def changed_files(self, commit: str) -> tuple[str, ...]:
        """Files that differ between the point where this checkout left `commit` and the working tree, by path.

        What is not committed counts, and so does a new file that git does not ignore.

        Raises:
            ConfigurationError: the two share no history here (a shallow checkout).
        """
        base = self._git("merge-base", commit, "HEAD")
        if base is None:
            msg = f"--changed-since: this checkout and {commit[:12]} share no history here"
            raise ConfigurationError(msg, hint=_FETCH)
        return self.different_files(base.decode("ascii", "replace").split()[0])

    def different_files(self, commit: str) -> tuple[str, ...]:
        """Files that differ between a commit and the working tree, by path.

        A submodule ends in `/`: what of it changed is not known. A file that links lead to has each of its names.
        """
        top = self._top()
        # Renames as two files: what was moved away has changed too. A checkout's own files must hide no submodule.
        options = ("--raw", "-z", "--no-renames", "--no-ext-diff", "--no-relative", "--ignore-submodules=none")
        fields = self._needed("diff", *options, commit, "--").decode("utf-8", "surrogateescape").split("\0")
        names = {
            f"{name}/" if _SUBMODULE in facts.split(" ", 2)[:2] else name
            for facts, name in zip((one.lstrip(":") for one in fields[::2]), fields[1::2], strict=False)
        }
        new = self._needed("-C", top, "ls-files", "--others", "--exclude-standard", "-z")
        names |= {name for name in new.decode("utf-8", "surrogateescape").split("\0") if name}
        return tuple(sorted(_with_aliases(names, self._links(top))))

    def before(self, commit: str, moment: datetime) -> str | None:
        """The last commit on the first-parent line of `commit` that is older than a moment; None: none is held here."""
        out = self._git("rev-list", "-1", "--first-parent", f"--before={moment:%Y-%m-%dT%H:%M:%SZ}", commit)
        return out.decode("ascii", "replace").strip() or None if out else None

    def _links(self, top: str) -> dict[str, str | None]:
        """Symbolic link → what it leads to, both from the top; None where that is outside."""
        listed = self._needed("-C", top, "ls-files", "-s", "-z").decode("utf-8", "surrogateescape").split("\0")
        links: dict[str, str | None] = {}
        root = os.path.realpath(top)
        for row in listed:
            facts, _, name = row.partition("\t")
            if facts.startswith(_LINK):
                target = os.path.relpath(os.path.realpath(Path(top) / name), root)
                links[name] = None if target == ".." or target.startswith("../") else target
        return links

    def file(self, commit: str, path: str, limit_bytes: int) -> bytes | None:
        """A file as it was, None where there was none or where it is larger than `limit_bytes`."""
        size = self._git("cat-file", "-s", f"{commit}:./{path}")
        if size is None or int(size) > limit_bytes:
            return None
        return self._git("cat-file", "blob", f"{commit}:./{path}")

    def extract(self, commit: str, path: str, into: Path, limit_bytes: int) -> Path | None:
        """Write a file, or the files of a folder, as they were below `into`; None where there was nothing."""
        top = self._top()
        # From the top and never absolute: what is returned must lie below `into`, not in the checkout itself.
        place = os.path.relpath(os.path.join(self._folder.resolve(), path), top)  # noqa: PTH118 - it may be absolute
        if place == ".." or place.startswith("../"):
            return None
        listed = self._git("--literal-pathspecs", "ls-tree", "-r", "-z", "--full-tree", commit, "--", place)
        found = [] if listed is None else [row for row in listed.split(b"\0") if row]
        if not found or len(found) > _FILES_LIMIT:
            return None
        for row in found:
            facts, _, raw = row.partition(b"\t")
            mode, kind, sha = facts.decode("ascii").split()
            name = raw.decode("utf-8", "surrogateescape")
            if kind != "blob" or mode == _LINK:  # no submodule, no link
                continue
            content = self._git("cat-file", "blob", sha)
            if content is None or len(content) > limit_bytes:
                return None
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            (into / name).write_bytes(content)
        return into / place

    def _named(self, revision: str) -> str | None:
        out = self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        return None if out is None else out.decode("ascii", "replace").strip()

    def _top(self) -> str:
        return self._needed("rev-parse", "--show-toplevel").decode("utf-8", "surrogateescape").rstrip("\n")

    def _needed(self, *arguments: str) -> bytes:
        out = self._git(*arguments)
        if out is None:
            msg = f"git {arguments[0]} failed in {self._folder.resolve()}"
            raise ConfigurationError(msg, hint=self._why())
        return out

    def _why(self) -> str:
        done = self._run("rev-parse", "--git-dir")
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return words[0][:300] if words else "see `git status`"

    def _git(self, *arguments: str) -> bytes | None:
        done = self._run(*arguments)
        return done.stdout if done.returncode == 0 else None

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        # A checkout must not choose programs for us (fsmonitor, external diff), only hold files.
        command = ["git", "--no-pager", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false", *arguments]
        try:
            return subprocess.run(
                command, cwd=self._folder, env=self._environ, capture_output=True, timeout=_LIMIT_S, check=False
            )
        except FileNotFoundError as error:
            msg = "--changed-since needs git on PATH"
            raise ConfigurationError(msg) from error
        except subprocess.TimeoutExpired as error:
            msg = f"git gave no answer within {_LIMIT_S:.0f} s"
            raise ConfigurationError(msg) from error


def _with_aliases(names: set[str], links: Mapping[str, str | None]) -> set[str]:
    """Every name that a changed file has through links; a link to the outside may lead to anything."""
    found = names | {f"{link}/" for link, target in links.items() if target is None}
    for _ in range(_LINKS_DEEP):
        for link, target in links.items():
            if target is None:
                continue
            below = {name for name in found if target in {".", name} or name.startswith(f"{target}/")}
            found |= {f"{link}/{name}" if target == "." else link + name[len(target) :] for name in below - {link}}
    return found


def here() -> GitRepository:
    """The checkout around the current folder."""
    return GitRepository(Path(), os.environ)
