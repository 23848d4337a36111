"""Owns how a report gets into a repository: made again at a branch's head, in one commit or none, without a checkout.

Read the head, its ledger, merge, render; commit where a file differs; where the head has moved meanwhile, do all of it
again there: nothing is rebased, nothing that others published is lost. Must not know HTTP (adapters/github_forge) or
whether there should be a commit at all (publish).
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from cuda_matrix import history, ledger, ledger_merge
from cuda_matrix.badge import render_badge
from cuda_matrix.forge import Forbidden, Forge, ForgeError, HeadMoved, Protected, PullRequest, TreeEntry
from cuda_matrix.gate import judge, newest, newest_date
from cuda_matrix.ledger import LEDGER_FILE, LEDGER_LIMIT_BYTES, Ledger
from cuda_matrix.report.build import build_view
from cuda_matrix.report.render import render

PULL_BRANCH = "cuda-matrix/report"
BADGE_FILE = "badge.json"
TRIES = 7  # the first, and six at a head that has moved
_PULL_BODY = """\
`{}` takes changes only through pull requests, so cuda-matrix proposes its report here.
Later runs add to this pull request until it is merged.

To do without: set `report.branch` in the configuration to a branch without rules.
"""
_PAUSE_MOST_S = 32.0
_SHA1_DIGITS = 40


class NewerLedger(ForgeError):
    """A later version of this program wrote what is published: it is not replaced."""


@dataclass(frozen=True)
class Pace:
    """Time and chance: how to wait so many seconds, a number between 0 and 1."""

    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random

    def wait(self, failures: int) -> None:
        """Full jitter: anything up to 1, 2, 4 … 32 s, so that publishers that met once do not meet again."""
        self.sleep(self.chance() * min(2.0 ** (failures - 1), _PAUSE_MOST_S))


@dataclass(frozen=True)
class Target:
    """Where to. `is_own`: a branch for reports alone, which may be made without history; its commits start no build."""

    branch: str
    folder: str
    is_own: bool = False


@dataclass(frozen=True)
class Record:
    """What one run adds. `history` is its immutable file, path below the folder → content; `now` is with time zone."""

    run: Ledger
    history: Mapping[str, bytes]
    message: str
    now: datetime


@dataclass(frozen=True)
class Committed:
    """What became of it: `files` were written to `branch` by `commit`. `notes` are for people."""

    how: Literal["committed", "unchanged", "proposed"]
    branch: str
    commit: str
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    pull: PullRequest | None = None


def commit_back(forge: Forge, target: Target, record: Record, pace: Pace) -> Committed:
    """Publish a run in the repository.

    A commit that a branch's rules refuse is proposed by a pull request, the same one each time.

    Raises:
        Forbidden: The token may not.
        HeadMoved: The branch moved each time.
        NewerLedger: A later version of this program published there.
        ForgeError: GitHub cannot be reached, there is no such branch, or the report is too large.
    """
    book = _Book(forge, target.folder, record)
    for failures in range(1, TRIES + 1):
        head = forge.head(target.branch)
        if head is None and not target.is_own:
            msg = f"there is no branch {target.branch}"
            raise ForgeError(msg)
        tree = forge.tree(head) if head else {}
        files = book.changed(tree, book.published(tree))
        if not files:
            return Committed("unchanged", target.branch, head or "", notes=book.notes)
        try:
            # Commits of GITHUB_TOKEN start no workflow; those of another token would start the one that made them.
            # https://docs.github.com/actions/managing-workflow-runs/skipping-workflow-runs
            commit = forge.commit(target.branch, head, files, f"{record.message}\n\n[skip ci]")
        except HeadMoved:
            if failures == TRIES:
                raise
            pace.wait(failures)
        except Protected as refused:
            if head is None:
                raise
            return _propose(forge, target, book, pace, str(refused))
        else:
            return Committed("committed", target.branch, commit, tuple(sorted(files)), book.notes)
    raise AssertionError


def git_blob(content: bytes, like: str = "") -> str:
    """The name that Git gives to a file's content, in the hash that `like` is in."""
    hashed = hashlib.sha1 if len(like) in {0, _SHA1_DIGITS} else hashlib.sha256
    return hashed(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def read_ledger(forge: Forge, tree: Mapping[str, TreeEntry], folder: str) -> tuple[Ledger | None, tuple[str, ...]]:
    """The ledger in a tree, and what of it could not be read; None where there is none.

    Raises:
        NewerLedger: A later version of this program wrote it.
        ForgeError: GitHub gave no answer that can be used.
    """
    path = f"{folder}/{LEDGER_FILE}"
    entry = tree.get(path)
    if entry is None:
        return None, ()
    if entry.size_bytes is not None and entry.size_bytes > LEDGER_LIMIT_BYTES:
        return None, (f"{path} there is larger than {LEDGER_LIMIT_BYTES >> 20} MiB and was not read",)
    found = ledger.decode(forge.blob(entry.blob_sha), path)
    if found.newer is not None:
        msg = f"a later version of cuda-matrix published there ({found.newer}): update the one that runs here"
        raise NewerLedger(msg)
    notes = tuple(str(problem) for problem in found.problems)
    return (Ledger(found.plan, newest(found.results)) if found.plan else None), notes


def _propose(forge: Forge, target: Target, book: _Book, pace: Pace, refusal: str) -> Committed:
    """By a pull request from our own branch: a new one, or the one that is open."""
    for failures in range(1, TRIES + 1):
        base, ours = forge.head(target.branch), forge.head(PULL_BRANCH)
        if base is None:
            msg = f"there is no branch {target.branch}"
            raise ForgeError(msg)
        try:
            if ours is None:
                forge.create_branch(PULL_BRANCH, base)
            commit, files = _on_our_branch(forge, book, base, ours)
        except HeadMoved:
            if failures == TRIES:
                raise
            pace.wait(failures)
        else:
            pull = _pull(forge, target, book.message)
            notes = (*book.notes, f"{target.branch} is protected: {refusal}")
            return Committed("proposed", PULL_BRANCH, commit, tuple(sorted(files)), notes, pull)
    raise AssertionError


def _on_our_branch(forge: Forge, book: _Book, base: str, ours: str | None) -> tuple[str, dict[str, bytes]]:
    """Head of our branch after this run's commit, if it takes one, and what was written."""
    base_tree = forge.tree(base)
    tree = forge.tree(ours) if ours else base_tree
    published = book.published(base_tree)
    if ours:
        published = book.joined(published, book.published(tree))
    files = book.changed(tree, published)
    if not files:
        return ours or base, files
    if ours is None:
        return forge.commit(PULL_BRANCH, base, files, book.message), files
    if book.has_history(tree, beyond=base_tree):  # proposed and not yet taken
        return forge.commit(PULL_BRANCH, ours, files, book.message), files
    # What it once proposed is taken, perhaps squashed: without a merge the next pull request would conflict.
    files = book.changed(base_tree, published)
    return forge.commit(PULL_BRANCH, ours, files, book.message, onto=base), files


def _pull(forge: Forge, target: Target, message: str) -> PullRequest:
    body = _PULL_BODY.format(target.branch)
    try:
        return forge.open_pull(PULL_BRANCH, target.branch, message.partition("\n")[0], body)
    except Forbidden as refused:
        way = "allow it in the repository's settings (Actions, General, Workflow permissions) or set report.branch"
        msg = f"the report is on the branch {PULL_BRANCH}, but the pull request was refused: {refused}; {way}"
        raise Forbidden(msg) from None


class _Book:
    """The files of the report at one head or another."""

    def __init__(self, forge: Forge, folder: str, record: Record) -> None:
        self._forge = forge
        self._folder = folder
        self._record = record
        self._read: dict[str, tuple[Ledger | None, tuple[str, ...]]] = {}  # by blob: it may well not have moved
        self._last: tuple[Ledger | None, dict[str, bytes]] | None = None
        self.message = record.message
        self.notes: tuple[str, ...] = ()

    def published(self, tree: Mapping[str, TreeEntry]) -> Ledger | None:
        """The ledger that a head holds."""
        entry = tree.get(f"{self._folder}/{LEDGER_FILE}")
        key = entry.blob_sha if entry else ""
        if key not in self._read:
            self._read[key] = read_ledger(self._forge, tree, self._folder)
            said = tuple(f"not kept: {note}" for note in self._read[key][1])
            self.notes = tuple(dict.fromkeys(self.notes + said))
        return self._read[key][0]

    def joined(self, first: Ledger | None, second: Ledger | None) -> Ledger | None:
        """What is published, and what was proposed and not yet taken."""
        return ledger_merge.merge(first, second, self._record.now) if second else first

    def has_history(self, tree: Mapping[str, TreeEntry], beyond: Mapping[str, TreeEntry]) -> bool:
        """Whether runs are recorded in the first tree alone."""
        return any(path.startswith(f"{self._folder}/{history.FOLDER}/") for path in tree.keys() - beyond.keys())

    def files(self, published: Ledger | None) -> dict[str, bytes]:
        """Path → content of the whole report after this run. Rendered once for one ledger."""
        if self._last is None or self._last[0] is not published:
            merged = ledger_merge.merge(published, self._record.run, self._record.now)
            made = {**_rendered(merged), **self._record.history}
            self._last = published, {f"{self._folder}/{name}": content for name, content in made.items()}
        return self._last[1]

    def changed(self, tree: Mapping[str, TreeEntry], published: Ledger | None) -> dict[str, bytes]:
        """Those of `files` that are not in the tree as they must be."""
        kept = f"{self._folder}/{history.FOLDER}/"  # immutable: what a run said once stays said
        return {
            path: content
            for path, content in self.files(published).items()
            if not _is_there(tree.get(path), content) and not (path.startswith(kept) and path in tree)
        }


def _is_there(entry: TreeEntry | None, content: bytes) -> bool:
    return entry is not None and entry.blob_sha == git_blob(content, entry.blob_sha)


def _rendered(merged: Ledger) -> dict[str, bytes]:
    """File name → content. Nothing in it is of this run alone or of today, so that the same results give the same."""
    try:
        lines = ledger.encode(merged)
    except ledger.LedgerTooLargeError as error:
        raise ForgeError(str(error)) from None
    results = ledger.decode(lines).results  # as slim as they lie there: `report` over the folder says the same
    gate = judge(merged.plan, results, newest_date(results))
    texts = render(build_view(merged.plan, gate), ("markdown", "html", "json"))
    texts[BADGE_FILE] = render_badge(gate)
    return {LEDGER_FILE: lines, **{name: text.encode() for name, text in texts.items()}}
