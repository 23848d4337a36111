"""Owns what a forge (GitHub) must be able to do for us, as values and a protocol; and the ways in which it says no.

Must not know HTTP, tokens or PyGithub (adapters/github_forge), nor what is published (publish).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Conclusion = Literal["success", "failure", "neutral", "cancelled", "action_required"]
Level = Literal["notice", "warning", "failure"]


class ForgeError(Exception):
    """The forge gave no answer that can be used, after every retry; the text says what was asked and what came back."""


class Forbidden(ForgeError):
    """This token may not do it (a fork's read-only token, a missing permission)."""


class HeadMoved(ForgeError):
    """The branch is no longer where the commit was made for: nothing was changed."""


class Protected(ForgeError):
    """Rules of the branch refuse the commit (GH006, GH013): nothing was changed."""


@dataclass(frozen=True)
class Comment:
    """One comment of a pull request. `author` is a login without the suffix `[bot]`."""

    id: int
    node_id: str
    author: str
    body: str
    url: str = ""


@dataclass(frozen=True)
class Annotation:
    """One remark at a place of a file; lines count from 1. Texts are hostile until `publish` has bounded them."""

    path: str
    line: int
    level: Level
    title: str
    message: str


@dataclass(frozen=True)
class CheckReport:
    """What a check run shows. `summary` and `text` are Markdown, each at most 65,535 bytes."""

    title: str
    summary: str
    text: str = ""
    annotations: Sequence[Annotation] = ()


@dataclass(frozen=True)
class PullRequest:
    """One pull request. `from_fork`: its head lies in another repository."""

    number: int
    head_sha: str
    base_sha: str
    base_ref: str
    head_repository: str
    from_fork: bool
    is_open: bool = True


@dataclass(frozen=True)
class TreeEntry:
    """One file of a commit."""

    path: str
    blob_sha: str
    size_bytes: int | None = None


class Forge(Protocol):
    """One repository of a forge, seen with one token. Every method may raise ForgeError, those that write Forbidden."""

    def login(self) -> str:
        """Whose token it is, without `[bot]`."""

    def comments(self, pull: int) -> Iterator[Comment]:
        """Every comment of a pull request, oldest first, every page."""

    def create_comment(self, pull: int, body: str, marker: str) -> Comment:
        """A new comment. After an answer that was lost, one of ours with `marker` is looked for before a second try."""

    def edit_comment(self, comment: Comment, body: str) -> Comment:
        """Replace its text."""

    def minimise_comment(self, comment: Comment) -> None:
        """Fold it away as outdated."""

    def start_check(self, name: str, sha: str, external_id: str, details_url: str, report: CheckReport) -> int:
        """A check run `in_progress`; its id. One with this external id that exists is taken up again."""

    def find_check(self, name: str, sha: str, external_id: str) -> int | None:
        """The id of a check run that `start_check` made."""

    def finish_check(self, check: int, conclusion: Conclusion, report: CheckReport) -> None:
        """Complete it; annotations go in chunks of 50."""

    def default_branch(self) -> str:
        """Its name."""

    def head(self, branch: str) -> str | None:
        """Commit that a branch points to, None where there is no such branch."""

    def tree(self, commit: str) -> Mapping[str, TreeEntry]:
        """Path → file, for every file of a commit."""

    def blob(self, sha: str) -> bytes:
        """The content of a file."""

    def commit(
        self,
        branch: str,
        parent: str | None,
        files: Mapping[str, bytes | None],
        message: str,
        onto: str | None = None,
    ) -> str:
        """One commit on top of `parent` (None: the first of a new branch without history); None removes a file.

        With `onto` it is a merge: that commit is its second parent, and the files are those of `onto` but for `files`.

        Raises:
            HeadMoved: `branch` is not at `parent` (any more), or exists where `parent` is None.
            Protected: rules of the branch refuse it.
        """

    def create_branch(self, branch: str, commit: str) -> None:
        """A branch at a commit.

        Raises:
            HeadMoved: it exists, elsewhere.
        """

    def open_pull(self, head: str, base: str, title: str, body: str) -> PullRequest:
        """The open pull request from `head` into `base`: a new one, or the one that there is."""

    def pull(self, number: int) -> PullRequest | None:
        """One pull request."""

    def pulls_of(self, head_repository: str, head_sha: str) -> Iterable[PullRequest]:
        """Open pull requests into this repository whose head is this commit of that repository."""

    def files_of(self, pull: int) -> tuple[str, ...]:
        """Paths that a pull request changes; GitHub lists at most 3,000."""
