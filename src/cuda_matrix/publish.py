"""Owns what is published, in which order, and what is left out: summary, check run, commit, comment.

Each part stands alone: what GitHub refuses (a fork's read-only token) or cannot answer costs that part and no other,
and is said in one line. Must not know HTTP, files or the environment; whether a release goes through is the gate's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from cuda_matrix import check_run, comment, history, summary
from cuda_matrix.annotations import of as annotations_of
from cuda_matrix.commit_back import Committed, NewerLedger, Pace, Record, Target, commit_back, read_ledger
from cuda_matrix.config import ReportOptions
from cuda_matrix.errors import Problem
from cuda_matrix.forge import CheckReport, Conclusion, Forbidden, Forge, ForgeError, PullRequest
from cuda_matrix.gate import GateVerdict, judge, newest, newest_date
from cuda_matrix.ledger import Ledger
from cuda_matrix.plan import Plan
from cuda_matrix.report.build import build_view
from cuda_matrix.report.differences import NO_DIFFERENCES, Differences, against
from cuda_matrix.report.escape import markdown
from cuda_matrix.report.view import Links
from cuda_matrix.result import CellResult

Name = Literal["base", "summary", "check", "commit", "comment"]
State = Literal["done", "unchanged", "left out", "refused", "failed"]

_BRANCH = "refs/heads/"
_PROPOSING = ("pull_request", "merge_group", "workflow_run")  # how events of code that is not merged begin
_AFTER_ANOTHER = "workflow_run"
_MESSAGE = "cuda-matrix: update the report"
_SHORT = 12  # characters of a commit's name


@dataclass(frozen=True)
class Occasion:
    """What the runner says of this job, so far as it matters here: adapters/actions_env.ActionsRun explains each."""

    event: str
    ref: str
    head_sha: str
    head_repository: str
    base_ref: str
    pull: int | None
    from_fork: bool
    run_id: str
    attempt: str
    run_url: str
    after: str = ""


@dataclass(frozen=True)
class Judged:
    """Results with their plan, what could not be read, and the decision over them."""

    plan: Plan
    results: tuple[CellResult, ...]
    problems: tuple[Problem, ...]
    gate: GateVerdict


@dataclass(frozen=True)
class Wanted:
    """Which parts; None: as the configuration and the event say."""

    summary: bool = True
    check: bool = True
    commit: bool | None = None
    comment: bool | None = None


@dataclass(frozen=True)
class Said:
    """What became of one part. `text` may hold words of GitHub."""

    part: Name
    state: State
    text: str


@dataclass(frozen=True)
class Edges:
    """What the outside gives: the summary's file (False: no room), ears, time and chance. `now` is with time zone."""

    write_summary: Callable[[str], bool]
    tell: Callable[[Said], None]
    now: datetime
    pace: Pace


_NO_COMMIT = Said("check", "left out", "the event does not say which commit was tested")


def publish(forge: Forge, judged: Judged, occasion: Occasion, wanted: Wanted, edges: Edges) -> tuple[Said, ...]:
    """Publish every part that is wanted and allowed; what became of each, which `edges.tell` hears at once.

    Never raises for what GitHub says. A bug of ours in one part is raised when all parts had their turn.
    """
    work = _Work(forge, judged, occasion, wanted, edges)
    bugs: list[Exception] = []
    said: list[Said] = []
    for part, act in work.parts():
        try:
            found = _guarded(part, act)
        except Exception as bug:
            bugs.append(bug)
            continue
        said.append(found)
        edges.tell(found)
    if bugs:
        raise bugs[0]
    return tuple(said)


def start(forge: Forge, options: ReportOptions, occasion: Occasion, cells: int) -> Said:
    """The check run before the first cell runs: who looks sees that something is under way."""

    def act() -> Said:
        if not occasion.head_sha:
            return _NO_COMMIT
        name, key = check_identity(options, occasion)
        report = CheckReport(f"{cells:,} cells to run", "The results follow when every lane has ended.")
        forge.start_check(name, occasion.head_sha, key, occasion.run_url, report)
        return Said("check", "done", "in progress")

    return _guarded("check", act)


_APPROVE = (
    "The run of this pull request left no results. Code of a fork reaches self-hosted runners only after somebody with "
    "write access has approved it, as `policy.forks` of the base branch says: in an environment with reviewers, or by "
    "a label. The log of that run says more."
)


def give_up(forge: Forge, options: ReportOptions, occasion: Occasion, why: str) -> Said:
    """End the check run where there is nothing to report: it must never stay in progress, and never look good.

    After a fork's run that is most often a plan that was refused: somebody must approve it.
    """

    def act() -> Said:
        if not occasion.head_sha:
            return _NO_COMMIT
        name, key = check_identity(options, occasion)
        conclusion: Conclusion = "action_required" if occasion.from_fork else "failure"
        if occasion.from_fork:
            report = CheckReport("nothing ran: a fork's code waits for approval", _APPROVE)
        else:
            report = CheckReport("no report", f"There is nothing to report: {markdown(why)}")
        _finish(forge, name, key, occasion, report, conclusion)
        return Said("check", "done", f"completed as {conclusion}")

    return _guarded("check", act)


def check_identity(options: ReportOptions, occasion: Occasion) -> tuple[str, str]:
    """Name and external id of the check run: one per matrix and workflow run, whichever attempt."""
    is_usual = options.dir == ReportOptions().dir
    return (
        "cuda-matrix" if is_usual else f"cuda-matrix ({options.dir})",
        f"cuda-matrix:{options.dir}:{occasion.run_id}",
    )


def _guarded(part: Name, act: Callable[[], Said]) -> Said:
    try:
        return act()
    except Forbidden as error:
        return Said(part, "refused", f"this token may not: {error}")
    except (ForgeError, OSError) as error:
        return Said(part, "failed", str(error))


def _finish(forge: Forge, name: str, key: str, occasion: Occasion, report: CheckReport, conclusion: Conclusion) -> None:
    check = forge.find_check(name, occasion.head_sha, key)
    if check is None:
        check = forge.start_check(name, occasion.head_sha, key, occasion.run_url, report)
    forge.finish_check(check, conclusion, report)


class _Work:
    """One publication under way. What several parts need is found out by the first."""

    def __init__(self, forge: Forge, judged: Judged, occasion: Occasion, wanted: Wanted, edges: Edges) -> None:
        self._forge = forge
        self._judged = judged
        self._occasion = occasion
        self._wanted = wanted
        self._edges = edges
        self._options = judged.plan.report
        self._view = build_view(judged.plan, judged.gate, judged.problems, Links(run=occasion.run_url))
        self._pull: int | None = occasion.pull
        self._changed: Differences = NO_DIFFERENCES

    def parts(self) -> Iterator[tuple[Name, Callable[[], Said]]]:
        """In the order of their worth where the rest fails; the comment last, because it may speak of the others."""
        if self._occasion.pull is not None or self._occasion.event == _AFTER_ANOTHER:
            yield "base", self._base
        if self._wanted.summary:
            yield "summary", self._summary
        if self._wanted.check:
            yield "check", self._check
        yield "commit", self._commit
        yield "comment", self._comment

    def _base(self) -> Said:
        """Which pull request, and what is published for the branch that it wants to get into."""
        base_ref = self._occasion.base_ref
        if self._pull is None:
            found = self._proposed()
            if found is None:
                return Said("base", "left out", "no open pull request has this commit at its head")
            self._pull, base_ref = found.number, found.base_ref
        elif not base_ref:  # a comment's event names the pull request alone
            named = self._forge.pull(self._pull)
            base_ref = named.base_ref if named else ""
        branch = self._options.branch or base_ref
        head = self._forge.head(branch) if branch else None
        tree = self._forge.tree(head) if head else {}
        try:
            published, notes = read_ledger(self._forge, tree, self._options.dir)
        except NewerLedger as newer:  # a commit would be refused; to compare is worth less than the comment
            published, notes = None, (str(newer),)
        before = None
        if published is not None:
            results = tuple(published.results.values())
            before = judge(published.plan, results, newest_date(results))
        self._changed = against(self._judged.plan, self._judged.gate, before, base_ref)
        if before is None:
            return Said("base", "left out", "; ".join(["nothing is published to compare with", *notes]))
        return Said("base", "done", "; ".join([f"compared with {base_ref}", *notes]))

    def _proposed(self) -> PullRequest | None:
        """The event of a later workflow names no pull request of a fork, and its artifacts are the fork's."""
        occasion = self._occasion
        pulls = self._forge.pulls_of(occasion.head_repository, occasion.head_sha)
        return next((pull for pull in pulls if pull.is_open), None)

    def _summary(self) -> Said:
        if self._edges.write_summary(summary.compose(self._view, self._changed)):
            return Said("summary", "done", "written")
        return Said("summary", "left out", "there is no file for it, or no room in it (GITHUB_STEP_SUMMARY)")

    def _check(self) -> Said:
        if not self._occasion.head_sha:
            return _NO_COMMIT
        name, key = check_identity(self._options, self._occasion)
        remarks = annotations_of(self._judged.plan, self._judged.gate, self._touched())
        conclusion = check_run.conclusion(self._judged.gate)
        report = check_run.compose(self._view, remarks, self._changed)
        _finish(self._forge, name, key, self._occasion, report, conclusion)
        return Said("check", "done", f"completed as {conclusion}")

    def _touched(self) -> tuple[str, ...]:
        """Files of the pull request; asked for only where an annotation may stand in one of them."""
        built = any(image.paths for image in self._judged.plan.images.values())
        if self._pull is None or not built or self._judged.gate.released:
            return ()
        try:
            return self._forge.files_of(self._pull)
        except ForgeError:  # the annotations then stand in the configuration
            return ()

    def _commit(self) -> Said:
        target = self._target()
        if isinstance(target, str):
            return Said("commit", "left out", target)
        judged, occasion = self._judged, self._occasion
        results = newest(judged.results)
        path = history.path_of(occasion.run_id, occasion.attempt, results.values()) if occasion.run_id else ""
        record = Record(
            run=Ledger(judged.plan, results),
            history={path: history.encode(judged.plan, judged.gate)} if path else {},
            message="\n\n".join(line for line in (_MESSAGE, occasion.run_url) if line),
            now=self._edges.now,
        )
        return _committed(commit_back(self._forge, target, record, self._edges.pace))

    def _target(self) -> Target | str:
        """Where to commit, or why not to."""
        occasion, options, asked = self._occasion, self._options, self._wanted.commit
        if asked is False:
            return "not asked for"
        if occasion.from_fork:
            return "results of a fork's code are never committed"
        is_merged = occasion.after != "" and not occasion.after.startswith(_PROPOSING)
        is_later = occasion.event == _AFTER_ANOTHER and asked is True and is_merged
        if self._pull is not None or (occasion.event.startswith(_PROPOSING) and not is_later):
            return "results of code that is not merged are not committed"
        tested = occasion.ref.removeprefix(_BRANCH) if occasion.ref.startswith(_BRANCH) else ""
        if not tested and options.branch is None:
            return f"{occasion.ref or 'what was tested'} is no branch; report.branch names one for the report"
        if asked is None and tested != self._forge.default_branch():
            return f"{tested or occasion.ref} is not the default branch; --commit commits all the same"
        return Target(options.branch or tested, options.dir, is_own=options.branch is not None)

    def _comment(self) -> Said:
        if self._wanted.comment is False:
            return Said("comment", "left out", "not asked for")
        if self._pull is None:
            return Said("comment", "left out", "no pull request")
        mode = self._options.comment
        if self._wanted.comment and mode == "never":
            mode = "always"
        body = comment.compose(self._view, self._changed, self._occasion.head_sha)
        told = comment.news(self._view, self._changed)
        done = comment.upsert(self._forge, self._pull, body, mode, matrix=self._options.dir, told=told)
        if done.action == "none":
            return Said("comment", "left out", f"report.comment is {mode}")
        state: State = "unchanged" if done.action == "unchanged" else "done"
        return Said("comment", state, " ".join(part for part in (done.action, done.url) if part))


def _committed(done: Committed) -> Said:
    notes = "".join(f"; {note}" for note in done.notes)
    if done.how == "unchanged":
        return Said("commit", "unchanged", f"{done.branch} has it already{notes}")
    if done.how == "proposed" and done.pull is not None:
        return Said("commit", "done", f"proposed by pull request #{done.pull.number}{notes}")
    count = len(done.files)
    said = f"{count} file{'s' * (count != 1)} to {done.branch} in {done.commit[:_SHORT]}"
    return Said("commit", "done", f"{said}{notes}")
