"""Owns what a pull request, its comments and a repository are at GitHub: the protocol `forge.Forge`, spoken to GitHub.

Must not know what is published (publish) or how long is waited (github_retry). Check runs and commits have modules of
their own. Comments: https://docs.github.com/rest/issues/comments; pull requests: https://docs.github.com/rest/pulls/pulls
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from cuda_matrix.adapters.github_answers import Lost, NotFound, Refused, Reply
from cuda_matrix.adapters.github_checks import GithubChecks
from cuda_matrix.adapters.github_client import API_URL, GithubClient, root
from cuda_matrix.adapters.github_commits import GithubCommits
from cuda_matrix.forge import CheckReport, Comment, Conclusion, PullRequest, TreeEntry

_T = TypeVar("_T")
_PULL_PAGES_MOST = 10  # of 100 open pull requests, the ones touched last first


def connect(repository: str, token: str, *, api_url: str = API_URL, graphql_url: str = "") -> GithubForge:
    """One repository, as the runner's environment names it (adapters/actions_env.ActionsRun).

    Raises:
        ConfigurationError: The repository's name or an address is none.
    """
    return GithubForge(repository, GithubClient(token, api_url=api_url, graphql_url=graphql_url))


class GithubForge:
    """One repository at GitHub. Every method may raise ForgeError, those that write Forbidden."""

    def __init__(self, repository: str, client: GithubClient) -> None:
        self._repository = repository
        self._root = root(repository)
        self._client = client
        self._checks = GithubChecks(client, self._root)
        self._commits = GithubCommits(client, self._root)
        self._login = ""

    def login(self) -> str:
        """Whose token it is, without `[bot]`. REST's `/user` refuses GITHUB_TOKEN, GraphQL does not."""
        if not self._login:
            self._login = _bare(self._client.graphql("query { viewer { login } }", {}).text("data", "viewer", "login"))
        return self._login

    def comments(self, pull: int) -> Iterator[Comment]:
        """Every comment of a pull request, oldest first, every page."""
        for page in self._client.pages(f"{self._root}/issues/{pull}/comments"):
            yield from map(_comment, page.entries())

    def create_comment(self, pull: int, body: str, marker: str) -> Comment:
        """A new comment. After an answer that was lost, one of ours with `marker` is looked for before a second try."""

        def create() -> Comment:
            path = f"{self._root}/issues/{pull}/comments"
            return _comment(self._client.ask("POST", path, {"body": body}, profile="create"))

        def existing() -> Comment | None:
            ours = (one for one in self.comments(pull) if one.author == self.login())
            return next((one for one in ours if one.body.lstrip().startswith(marker)), None)

        return self._once(create, existing)

    def edit_comment(self, comment: Comment, body: str) -> Comment:
        """Replace its text."""
        return _comment(self._client.ask("PATCH", f"{self._root}/issues/comments/{comment.id}", {"body": body}))

    def minimise_comment(self, comment: Comment) -> None:
        """Fold it away as outdated (https://docs.github.com/graphql/reference/mutations#minimizecomment)."""
        mutation = (
            "mutation Minimise($input: MinimizeCommentInput!) "
            "{ minimizeComment(input: $input) { minimizedComment { isMinimized } } }"
        )
        self._client.graphql(mutation, {"input": {"subjectId": comment.node_id, "classifier": "OUTDATED"}})

    def start_check(self, name: str, sha: str, external_id: str, details_url: str, report: CheckReport) -> int:
        """A check run `in_progress`; its id. One with this external id that exists is taken up again."""
        return self._checks.start(name, sha, external_id, details_url, report)

    def find_check(self, name: str, sha: str, external_id: str) -> int | None:
        """The id of a check run that `start_check` made."""
        return self._checks.find(name, sha, external_id)

    def finish_check(self, check: int, conclusion: Conclusion, report: CheckReport) -> None:
        """Complete it; annotations go in chunks of 50."""
        self._checks.finish(check, conclusion, report)

    def default_branch(self) -> str:
        """Its name."""
        return self._client.get(self._root).text("default_branch")

    def head(self, branch: str) -> str | None:
        """Commit that a branch points to, None where there is no such branch."""
        return self._commits.head(branch)

    def tree(self, commit: str) -> Mapping[str, TreeEntry]:
        """Path → file, for every file of a commit."""
        return self._commits.tree(commit)

    def blob(self, sha: str) -> bytes:
        """The content of a file."""
        return self._commits.blob(sha)

    def commit(
        self,
        branch: str,
        parent: str | None,
        files: Mapping[str, bytes | None],
        message: str,
        onto: str | None = None,
    ) -> str:
        """One commit on top of `parent`, or the first of a new branch. Raises HeadMoved, Protected."""
        return self._commits.commit(branch, parent, files, message, onto)

    def create_branch(self, branch: str, commit: str) -> None:
        """A branch at a commit. Raises HeadMoved where it exists elsewhere."""
        self._commits.create_branch(branch, commit)

    def open_pull(self, head: str, base: str, title: str, body: str) -> PullRequest:
        """The open pull request from `head` into `base`: a new one, or the one that there is."""

        def create() -> PullRequest:
            given = {"head": head, "base": base, "title": title, "body": body}
            return _pull(self._client.ask("POST", f"{self._root}/pulls", given, profile="create"), self._repository)

        found = self._open_pull(head, base)
        if found is not None:
            return found
        try:
            return self._once(create, lambda: self._open_pull(head, base))
        except Refused:  # somebody else was quicker
            found = self._open_pull(head, base)
            if found is None:
                raise
            return found

    def pull(self, number: int) -> PullRequest | None:
        """One pull request."""
        try:
            return _pull(self._client.get(f"{self._root}/pulls/{number}"), self._repository)
        except NotFound:
            return None

    def pulls_of(self, head_repository: str, head_sha: str) -> Iterator[PullRequest]:
        """Open pull requests into this repository whose head is this commit of that repository.

        The list is gone through, because an event names none for a fork, and GitHub's list of the pull requests of a
        commit knows only commits of this repository.
        """
        path = f"{self._root}/pulls"
        for seen, page in enumerate(self._client.pages(path, state="open", sort="updated", direction="desc")):
            for one in page.entries():
                pull = _pull(one, self._repository)
                if pull.head_sha == head_sha and pull.head_repository.lower() == head_repository.lower():
                    yield pull
            if seen + 1 >= _PULL_PAGES_MOST:
                return

    def files_of(self, pull: int) -> tuple[str, ...]:
        """Paths that a pull request changes (https://docs.github.com/rest/pulls/pulls#list-pull-requests-files)."""
        pages = self._client.pages(f"{self._root}/pulls/{pull}/files")
        return tuple(one.text("filename") for page in pages for one in page.entries())

    def _open_pull(self, head: str, base: str) -> PullRequest | None:
        owner = self._repository.partition("/")[0]
        reply = self._client.get(f"{self._root}/pulls", state="open", head=f"{owner}:{head}", base=base)
        found = [_pull(one, self._repository) for one in reply.entries()]
        return next((one for one in found if not one.from_fork), None)

    def _once(self, create: Callable[[], _T], existing: Callable[[], _T | None]) -> _T:
        failures = 0
        while True:
            try:
                return create()
            except Lost:  # noqa: PERF203 - a few tries
                failures += 1
                if failures >= self._client.tries:
                    raise
                self._client.wait(failures)
                found = existing()
                if found is not None:
                    return found


def _comment(reply: Reply) -> Comment:
    author = reply.field("user", "login")  # null for an account that is gone
    body = reply.field("body")
    return Comment(
        id=reply.number("id"),
        node_id=reply.text("node_id"),
        author=_bare(author) if isinstance(author, str) else "ghost",
        body=body if isinstance(body, str) else "",
        url=reply.text("html_url"),
    )


def _pull(reply: Reply, repository: str) -> PullRequest:
    home = reply.field("head", "repo", "full_name")  # null where the fork is gone
    head_repository = home if isinstance(home, str) else ""
    return PullRequest(
        number=reply.number("number"),
        head_sha=reply.sha("head", "sha"),
        base_sha=reply.sha("base", "sha"),
        base_ref=reply.text("base", "ref"),
        head_repository=head_repository,
        from_fork=head_repository.lower() != repository.lower(),
        is_open=reply.text("state") == "open",
    )


def _bare(login: str) -> str:
    return login.removesuffix("[bot]")
