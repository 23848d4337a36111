"""Owns the one comment of a pull request and matrix: what it says, when there is one, and that there is only one.

Must not know HTTP (forge), nor how a report is built. The comment is found by a hidden marker at its top and by its
author, both: anybody may write a marker. Limit of a comment: 65,536 characters, else GitHub answers 422
(https://docs.github.com/rest/issues/comments).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from cuda_matrix.model import Verdict
from cuda_matrix.report.brief import rungs
from cuda_matrix.report.differences import BAD, NO_DIFFERENCES, Differences
from cuda_matrix.report.ladder import fitting

if TYPE_CHECKING:
    from cuda_matrix.forge import Comment, Forge
    from cuda_matrix.report.view import Links, View

LIMIT_BYTES = 60_000  # of a whole comment, marker and hash included
Mode = Literal["always", "on-change", "on-failure", "never"]
Action = Literal["created", "updated", "unchanged", "none"]

_HIDDEN_BYTES = 400  # room for marker and hash
_PLAIN_ID = re.compile(r"(?!.*--)[A-Za-z0-9._/-]{1,100}")
_HASH = re.compile(r"<!-- cuda-matrix-sha256:([0-9a-f]{64}) -->")


@dataclass(frozen=True)
class News:
    """What decides whether a first comment is written. `failing`: the gate says no, or a cell has no good answer."""

    changed: bool
    failing: bool


@dataclass(frozen=True)
class Upserted:
    """What became of it. `minimised` is how many extra copies of ours were folded away."""

    action: Action
    url: str = ""
    minimised: int = 0


def marker(matrix: str) -> str:
    """The hidden first line; version 1 is that of this protocol. An id that HTML could misread is hashed."""
    plain = _PLAIN_ID.fullmatch(matrix) and not matrix.startswith("-") and not matrix.endswith("-")
    name = matrix if plain else hashlib.sha256(matrix.encode("utf-8", "replace")).hexdigest()[:16]
    return f"<!-- cuda-matrix:1:{name} -->"


def compose(view: View, changed: Differences = NO_DIFFERENCES, sha: str = "", links: Links | None = None) -> str:
    """What the comment says, without its hidden lines: at most 60,000 bytes with them.

    Args:
        view: the report; its table shows the images that are not green or have changed.
        changed: against the base branch (report.differences.against).
        sha: the commit that was tested: `updated for <sha>`.
        links: instead of those of the view.
    """
    shown = view if links is None else replace(view, links=links)
    return fitting(rungs(shown, changed, sha), LIMIT_BYTES - _HIDDEN_BYTES)


def news(view: View, changed: Differences = NO_DIFFERENCES) -> News:
    """Whether there is something to tell. Without a base everything that is not simply good is news."""
    seen = {cell.verdict for row in view.rows for cell in row.cells if cell}
    unknown = not changed.known and bool(seen - {Verdict.PASS, Verdict.SKIPPED})
    return News(changed=changed.any or unknown, failing=not view.released or bool(seen & BAD))


def upsert(forge: Forge, pull: int, body: str, mode: Mode, *, matrix: str, told: News) -> Upserted:
    """Bring the pull request's comment up to date: the oldest of ours is kept, others are minimised as outdated.

    `on-change` creates one only where something changed or is not green, `on-failure` only where it is not green; one
    that is there is always updated, so that it never tells old news. `never` asks nothing of the forge.

    Args:
        forge: the repository, seen with the token that comments.
        pull: number of the pull request.
        body: from `compose`.
        mode: `report.comment` of the configuration.
        matrix: tells several matrices of one repository apart.
        told: from `news`.

    Raises:
        Forbidden: the token may not comment (a fork's).
        ForgeError: no usable answer.
    """
    if mode == "never":
        return Upserted("none")
    hidden = marker(matrix)
    text = f"{hidden}\n<!-- cuda-matrix-sha256:{_sha256(body)} -->\n{body}"
    ours = _ours(forge, pull, hidden)
    if not ours:
        if not _wanted(mode, told):
            return Upserted("none")
        return Upserted("created", forge.create_comment(pull, text, hidden).url)
    first, *copies = ours
    if _says(first, text, body):
        done = Upserted("unchanged", first.url)
    else:
        done = Upserted("updated", forge.edit_comment(first, text).url)
    for copy in copies:
        forge.minimise_comment(copy)
        # Without the marker it is not ours any more: the next run has nothing to fold away.
        forge.edit_comment(copy, copy.body.replace(hidden, "<!-- cuda-matrix: superseded -->", 1))
    return replace(done, minimised=len(copies))


def _wanted(mode: Mode, told: News) -> bool:
    return mode == "always" or told.failing or (mode == "on-change" and told.changed)


def _ours(forge: Forge, pull: int, hidden: str) -> list[Comment]:
    """Every comment that begins with the marker and is of this token's account, oldest first."""
    # Only at the very top: a text out of a container can stand in the middle of a comment, never there.
    marked = [one for one in forge.comments(pull) if one.body.lstrip("\ufeff \r\n").startswith(hidden)]
    if not marked:
        return []
    login = _bare(forge.login())
    return sorted((one for one in marked if _bare(one.author) == login), key=lambda one: one.id)


def _bare(login: str) -> str:
    """As it is compared: an App's account is named with and without `[bot]`, and case does not count."""
    return login.lower().removesuffix("[bot]")


def _says(comment: Comment, text: str, body: str) -> bool:
    found = _HASH.search(comment.body[:_HIDDEN_BYTES])
    return _lines(comment.body) == _lines(text) or (found is not None and found[1] == _sha256(body))


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").strip()


def _sha256(body: str) -> str:
    return hashlib.sha256(body.encode("utf-8", "replace")).hexdigest()
