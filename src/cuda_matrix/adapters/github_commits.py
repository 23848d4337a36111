"""Owns files and commits of a branch through the Git Data API: no checkout is touched.

Must not know what the files are (commit_back). A commit is one tree request with the files' text inside, then the
commit without author and committer, so that GitHub signs it as the bot's
(https://docs.github.com/authentication/managing-commit-signature-verification/about-commit-signature-verification#signature-verification-for-bots),
then the branch is moved without force: GitHub refuses unless the old head is an ancestor, which makes it a
compare-and-swap (https://docs.github.com/rest/git/refs#update-a-reference). Objects are named by their content, so all
of it may be sent again after an answer was lost.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from cuda_matrix.adapters.github_answers import NotFound, Refused
from cuda_matrix.adapters.github_client import GithubClient
from cuda_matrix.forge import Forbidden, ForgeError, HeadMoved, Protected, TreeEntry

_PROTECTED = re.compile(
    r"GH006|GH013|protected (?:branch|ref)|rule violations|through a pull request|required status check"
    r"|approving review|not authorized to push|must be signed|verified signature|linear history|cannot be updated",
    re.IGNORECASE,
)
# https://docs.github.com/rest/git/trees#get-a-tree: a recursive answer ends at 100,000 entries or 7 MB.
_SUBTREES_MOST = 300  # requests for a repository beyond that
_OBJECT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


class GithubCommits:
    """The branches of one repository."""

    def __init__(self, client: GithubClient, root: str) -> None:
        self._client = client
        self._root = root

    def head(self, branch: str) -> str | None:
        """Commit of a branch, None where there is none, or no commit in the repository at all."""
        try:
            reply = self._client.get(f"{self._root}/git/ref/heads/{quote(branch)}")
        except NotFound:
            return None
        except Refused as refused:
            if "empty" in refused.message.lower():
                return None
            raise
        return reply.sha("object", "sha")

    def tree(self, commit: str) -> dict[str, TreeEntry]:
        """Every file (no symbolic link, no submodule) by its path."""
        found: dict[str, TreeEntry] = {}
        waiting, asked = [("", commit)], 0
        while waiting:
            prefix, sha = waiting.pop()
            asked += 1
            if asked > _SUBTREES_MOST:
                msg = f"the tree of {commit} needs more than {_SUBTREES_MOST} requests to be read"
                raise ForgeError(msg)
            reply = self._client.get(f"{self._root}/git/trees/{_name(sha)}", recursive="1")
            if reply.field("truncated") is True:
                reply = self._client.get(f"{self._root}/git/trees/{_name(sha)}")
                folders = [one for one in reply.entries("tree") if one.field("type") == "tree"]
                waiting += [(f"{prefix}{one.text('path')}/", one.sha("sha")) for one in folders]
            for one in reply.entries("tree"):
                if one.field("type") == "blob" and one.field("mode") in {"100644", "100755"}:
                    path, size = prefix + one.text("path"), one.field("size")
                    found[path] = TreeEntry(path, one.sha("sha"), size if isinstance(size, int) else None)
        return found

    def blob(self, sha: str) -> bytes:
        """A file's content."""
        reply = self._client.get(f"{self._root}/git/blobs/{_name(sha)}")
        try:
            return base64.b64decode(reply.text("content"))
        except ValueError:
            msg = f"{reply.asked}: GitHub's answer is no base64"
            raise ForgeError(msg) from None

    def commit(
        self,
        branch: str,
        parent: str | None,
        files: Mapping[str, bytes | None],
        message: str,
        onto: str | None = None,
    ) -> str:
        """See `forge.Forge.commit`."""
        parents = [one for one in dict.fromkeys((parent, onto)) if one is not None]
        body: dict[str, Any] = {"tree": [self._entry(path, content) for path, content in sorted(files.items())]}
        if parents:
            body["base_tree"] = self._client.get(f"{self._root}/git/commits/{_name(parents[-1])}").sha("tree", "sha")
        tree = self._client.ask("POST", f"{self._root}/git/trees", body).sha("sha")
        made = {"message": message, "tree": tree, "parents": parents}
        commit = self._client.ask("POST", f"{self._root}/git/commits", made).sha("sha")
        if parent is None:
            self.create_branch(branch, commit)
        else:
            self._move(branch, parent, commit)
        return commit

    def create_branch(self, branch: str, commit: str) -> None:
        """See `forge.Forge.create_branch`."""
        body = {"ref": f"refs/heads/{branch}", "sha": commit}
        try:
            self._client.ask("POST", f"{self._root}/git/refs", body)
        except (Refused, Forbidden) as refused:
            if _PROTECTED.search(str(refused)):
                raise Protected(str(refused)) from None
            if isinstance(refused, Forbidden):
                raise
            head = self.head(branch)
            if head is None:
                raise
            if head != commit:  # else an answer was lost, and this is ours
                msg = f"{branch} exists, at {head}"
                raise HeadMoved(msg) from None

    def _move(self, branch: str, parent: str, commit: str) -> None:
        try:
            body = {"sha": commit, "force": False}
            self._client.ask("PATCH", f"{self._root}/git/refs/heads/{quote(branch)}", body)
        except (Refused, Forbidden, NotFound) as refused:
            if _PROTECTED.search(str(refused)):
                raise Protected(str(refused)) from None
            if isinstance(refused, Forbidden):
                raise
            # GitHub has several wordings for a race ("not a fast forward", "Reference update failed", 404 or 422
            # for a branch that is gone): the head tells.
            head = self.head(branch)
            if head == parent:
                raise
            msg = f"{branch} is at {head or 'no commit'}, not at {parent}"
            raise HeadMoved(msg) from None

    def _entry(self, path: str, content: bytes | None) -> dict[str, Any]:
        entry: dict[str, Any] = {"path": path, "mode": "100644", "type": "blob"}
        if content is None:
            return {**entry, "sha": None}
        try:
            text = content.decode()
        except UnicodeDecodeError:
            text = "\0"
        if "\0" not in text:
            return {**entry, "content": text}
        blob = {"content": base64.b64encode(content).decode(), "encoding": "base64"}
        return {**entry, "sha": self._client.ask("POST", f"{self._root}/git/blobs", blob).sha("sha")}


def _name(sha: str) -> str:
    """It becomes a part of an address, so it must be nothing else."""
    if not _OBJECT.fullmatch(sha):
        msg = f"{sha[:80]!r} is no name of a Git object"
        raise ForgeError(msg)
    return sha
