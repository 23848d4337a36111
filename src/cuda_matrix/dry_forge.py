"""Owns the dry run of a publication: a forge that reads, and only says what it would write.

Must not know what is published. It wraps any other forge, so that a dry run goes the very way of a true one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from cuda_matrix.forge import CheckReport, Comment, Conclusion, Forge, PullRequest, TreeEntry

_NOTHING = "0" * 40  # the name of no object


class DryForge:
    """See `forge.Forge`. `said` grows by a line for every write that was left out."""

    def __init__(self, forge: Forge) -> None:
        self._forge = forge
        self.said: list[str] = []

    def login(self) -> str:
        """Reads."""
        return self._forge.login()

    def comments(self, pull: int) -> Iterator[Comment]:
        """Reads."""
        return self._forge.comments(pull)

    def create_comment(self, pull: int, body: str, marker: str) -> Comment:  # noqa: ARG002 - the protocol's
        """Says so."""
        self.said.append(f"would comment on #{pull}, {len(body.encode()):,} bytes")
        return Comment(0, "", "", body)

    def edit_comment(self, comment: Comment, body: str) -> Comment:
        """Says so."""
        self.said.append(f"would change {comment.url or 'the comment'}, {len(body.encode()):,} bytes")
        return comment

    def minimise_comment(self, comment: Comment) -> None:
        """Says so."""
        self.said.append(f"would fold {comment.url or 'a comment'} away")

    def start_check(self, name: str, sha: str, external_id: str, details_url: str, report: CheckReport) -> int:  # noqa: ARG002
        """Says so."""
        self.said.append(f"would start the check {name} of {sha}: {report.title}")
        return 0

    def find_check(self, name: str, sha: str, external_id: str) -> int | None:
        """Reads."""
        return self._forge.find_check(name, sha, external_id)

    def finish_check(self, check: int, conclusion: Conclusion, report: CheckReport) -> None:  # noqa: ARG002
        """Says so."""
        remarks = f", {len(report.annotations):,} annotations" if report.annotations else ""
        self.said.append(f"would complete the check as {conclusion}: {report.title}{remarks}")

    def default_branch(self) -> str:
        """Reads."""
        return self._forge.default_branch()

    def head(self, branch: str) -> str | None:
        """Reads."""
        return self._forge.head(branch)

    def tree(self, commit: str) -> Mapping[str, TreeEntry]:
        """Reads."""
        return self._forge.tree(commit)

    def blob(self, sha: str) -> bytes:
        """Reads."""
        return self._forge.blob(sha)

    def commit(
        self,
        branch: str,
        parent: str | None,  # noqa: ARG002
        files: Mapping[str, bytes | None],
        message: str,  # noqa: ARG002
        onto: str | None = None,  # noqa: ARG002
    ) -> str:
        """Says so."""
        self.said.append(f"would commit to {branch}: {', '.join(sorted(files))}")
        return _NOTHING

    def create_branch(self, branch: str, commit: str) -> None:
        """Says so."""
        self.said.append(f"would make the branch {branch} at {commit}")

    def open_pull(self, head: str, base: str, title: str, body: str) -> PullRequest:  # noqa: ARG002
        """Says so."""
        self.said.append(f"would open a pull request from {head} into {base}: {title}")
        return PullRequest(0, _NOTHING, _NOTHING, base, "", from_fork=False)

    def pull(self, number: int) -> PullRequest | None:
        """Reads."""
        return self._forge.pull(number)

    def pulls_of(self, head_repository: str, head_sha: str) -> Iterable[PullRequest]:
        """Reads."""
        return self._forge.pulls_of(head_repository, head_sha)

    def files_of(self, pull: int) -> tuple[str, ...]:
        """Reads."""
        return self._forge.files_of(pull)
