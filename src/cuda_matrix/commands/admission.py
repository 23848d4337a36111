"""Owns what `plan` asks before it sends anything to a runner: may this event's code run there, and what need not run.

Must not know how a plan is made or shown. Outside of GitHub Actions nothing is refused: whoever types the command has
the code already.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cuda_matrix.adapters.actions_env import ActionsRun
    from cuda_matrix.adapters.git_repository import GitRepository
    from cuda_matrix.config import Forks
    from cuda_matrix.plan import Plan, PlannedRunner
    from cuda_matrix.result import CellResult

_CONFIG_LIMIT_BYTES = 4 << 20  # of one file
_LABELED = "labeled"
_QUEUED = timedelta(hours=6)  # between the checkout of a run and the start of a cell; what came in between counts


def admit(plan: Plan, config: str | None, environ: Mapping[str, str]) -> str:
    """The environment in which the jobs of this plan must run; empty where any will do.

    Raises:
        ConfigurationError: this event brings code of a fork, and nobody approved it for the machines of this plan.
    """
    if environ.get("GITHUB_ACTIONS") != "true":
        return ""
    from cuda_matrix.adapters.actions_env import actions_run
    from cuda_matrix.errors import ConfigurationError
    from cuda_matrix.trust import Trigger, refusal

    run = actions_run(environ)
    if not run.from_fork:
        return ""
    forks, why_none = _policy_of_base(run, config)
    used = {cell.runner for cell in plan.cells}
    trigger = Trigger(run.event, run.from_fork, run.label if run.activity == _LABELED else "")
    refused = refusal(trigger, [(runner, plan.runners[runner].labels) for runner in sorted(used)], forks)
    if refused:
        msg = f"not planned: {refused}{why_none}"
        hint = "docs/github.md, “Forks”: approve with policy.forks (an environment with reviewers, or a label)"
        raise ConfigurationError(msg, hint=hint)
    return (forks.environment or "") if forks is not None else ""


def _policy_of_base(run: ActionsRun, config: str | None) -> tuple[Forks | None, str]:
    """policy.forks as the base branch has it (a fork writes its own as it likes), and why it is not known, if so."""
    from cuda_matrix import config_files
    from cuda_matrix.adapters.git_repository import GitRepository
    from cuda_matrix.errors import ConfigurationError

    checkout = GitRepository(Path(), os.environ)
    names = [config] if config else [config_files.DIRECTORY, config_files.SINGLE_FILE]
    try:
        base = checkout.commit(run.base_sha)
        with tempfile.TemporaryDirectory() as folder:
            for name in names:
                place = checkout.extract(base, name, Path(folder), _CONFIG_LIMIT_BYTES)
                if place is not None:
                    return config_files.load(place).config.policy.forks, ""
    except ConfigurationError as error:
        return None, f" (the base branch cannot be read: {error})"
    return None, " (the base branch has no configuration)"


def without_unchanged(plan: Plan, revision: str, now: datetime) -> tuple[Plan, list[str]]:
    """The plan without the cells whose accepted result at `revision` still holds, and a line for each reason to run.

    The accepted results are the committed table as it was then: what a pull request writes into it is not believed.

    Raises:
        ConfigurationError: there is no git here, or no such revision.
    """
    from cuda_matrix import changes, protocol
    from cuda_matrix.adapters.git_repository import GitRepository
    from cuda_matrix.reference import load_reference
    from cuda_matrix.version import __version__

    checkout = GitRepository(Path(), os.environ)
    commit = checkout.commit(revision)
    accepted, runners, notes = _accepted(plan, checkout, commit)
    earlier = _earlier(plan, accepted, checkout, commit)
    since = changes.Since(commit[:12], accepted, checkout.changed_files(commit), earlier, runners)
    today = changes.Today(
        payload_sha256=protocol.payload_sha256(protocol.payload_sources(load_reference())),
        tool_version=__version__,
        now=now,
        max_age=timedelta(seconds=plan.policy.max_age),
    )
    left = changes.without_unchanged(plan, since, today)
    reasons = Counter(changes.reason_to_run(plan, cell, since, today) for cell in left.cells)
    notes += [f"{count} cell{'s' * (count != 1)} run: {reason}" for reason, count in reasons.most_common()]
    return left, [f"{len(left.skipped) - len(plan.skipped)} cells unchanged since {commit[:12]}", *notes]


def _earlier(
    plan: Plan, accepted: Mapping[str, CellResult], checkout: GitRepository, commit: str
) -> dict[str, tuple[str, ...] | None]:
    """Cell → files that differ from the branch as it was before the cell's result was made; None: it is not held here.

    The report itself, which a nightly run commits, is not what an image is built from.
    """
    from cuda_matrix.gate import utc

    reports = f"{plan.report.dir}/"

    @cache
    def different(hour: datetime) -> tuple[str, ...] | None:
        point = checkout.before(commit, hour - _QUEUED)
        return None if point is None else since(point)

    @cache
    def since(point: str) -> tuple[str, ...]:
        return tuple(name for name in checkout.different_files(point) if not name.startswith(reports))

    with_paths = {cell.id for cell in plan.cells if plan.images[cell.image].paths}
    return {
        cell: different(utc(result.started_at).replace(minute=0, second=0, microsecond=0))
        for cell, result in accepted.items()
        if cell in with_paths
    }


def _accepted(
    plan: Plan, checkout: GitRepository, commit: str
) -> tuple[Mapping[str, CellResult], Mapping[str, PlannedRunner], list[str]]:
    """The results of the committed table, on its own branch where it has one, and the machines that they are of.

    None where there is no table, or not a whole one, and why.
    """
    from cuda_matrix.errors import ConfigurationError
    from cuda_matrix.gate import newest
    from cuda_matrix.ledger import LEDGER_FILE, LEDGER_LIMIT_BYTES, decode

    path = f"{plan.report.dir.strip('/')}/{LEDGER_FILE}"
    if plan.report.branch is not None:
        try:
            commit = checkout.commit(f"refs/remotes/origin/{plan.report.branch}")
        except ConfigurationError:
            return {}, {}, [f"the branch {plan.report.branch} is not in this checkout: nothing is taken over"]
    data = checkout.file(commit, path, LEDGER_LIMIT_BYTES)
    if data is None:
        return {}, {}, [f"there is no {path} at {commit[:12]}: nothing is taken over"]
    decoded = decode(data, path)
    notes = [str(problem) for problem in decoded.problems[:10]]
    if decoded.plan is None:
        return {}, {}, [*notes, f"{path} at {commit[:12]} holds no plan: nothing is taken over"]
    return newest(decoded.results), decoded.plan.runners, notes
