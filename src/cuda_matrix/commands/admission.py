"""Owns what `plan` asks before it sends anything to a runner: may this event's code run there, and what need not run.

Must not know how a plan is made or shown. Outside of GitHub Actions nothing is refused: whoever types the command has
the code already.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cuda_matrix.adapters.actions_env import ActionsRun
    from cuda_matrix.adapters.git_repository import GitRepository
    from cuda_matrix.config import Config, Forks, ReportOptions
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
    host = urlsplit(run.server_url).hostname or ""
    has_hosted = host == "github.com" or host.endswith(".ghe.com")
    trigger = Trigger(run.event, run.from_fork, run.label if run.activity == _LABELED else "", has_hosted)
    # With a docker_host the images run elsewhere than the labels say: on a machine of ours.
    runners = [plan.runners[name] for name in sorted(used)]
    refused = refusal(trigger, [(row.id, () if row.docker_host else row.labels) for row in runners], forks)
    if refused:
        msg = f"not planned: {refused}{why_none}"
        hint = "docs/github.md, “Forks”: approve with policy.forks (an environment with reviewers, or a label)"
        raise ConfigurationError(msg, hint=hint)
    return (forks.environment or "") if forks is not None else ""


def _policy_of_base(run: ActionsRun, config: str | None) -> tuple[Forks | None, str]:
    """policy.forks as the base branch has it (a fork writes its own as it likes), and why it is not known, if so."""
    from cuda_matrix.adapters.git_repository import here
    from cuda_matrix.errors import ConfigurationError

    checkout = here()
    try:
        base = _config_at(checkout, checkout.commit(run.base_sha), config)
    except ConfigurationError as error:
        return None, f" (the base branch cannot be read: {error})"
    return (None, " (the base branch has no configuration)") if base is None else (base.policy.forks, "")


def _config_at(checkout: GitRepository, commit: str, config: str | None) -> Config | None:
    """The configuration as it was; None where there was none. Raises ConfigurationError for one that is invalid."""
    from cuda_matrix import config_files

    with tempfile.TemporaryDirectory() as folder:
        for name in [config] if config else [config_files.DIRECTORY, config_files.SINGLE_FILE]:
            place = checkout.extract(commit, name, Path(folder), _CONFIG_LIMIT_BYTES)
            if place is not None:
                return config_files.load(place).config
    return None


def without_unchanged(plan: Plan, revision: str, now: datetime, config: str | None = None) -> tuple[Plan, list[str]]:
    """The plan without the cells whose accepted result at `revision` still holds, and a line for each reason to run.

    The accepted results are the committed table as it was then, where the configuration of then puts it: what a pull
    request writes into either is not believed, nor does it make older results count.

    Raises:
        ConfigurationError: there is no git here, or no such revision.
    """
    from cuda_matrix import changes, protocol
    from cuda_matrix.adapters.git_repository import here
    from cuda_matrix.errors import ConfigurationError
    from cuda_matrix.reference import load_reference
    from cuda_matrix.version import __version__

    checkout = here()
    commit = checkout.commit(revision)
    try:
        base = _config_at(checkout, commit, config)
    except ConfigurationError as error:
        return plan, [f"the configuration at {commit[:12]} cannot be read ({error}): nothing is taken over"]
    if base is None:
        return plan, [f"there is no configuration at {commit[:12]}: nothing is taken over"]
    accepted, runners, notes = _accepted(base.report, checkout, commit)
    earlier = _earlier(plan, accepted, checkout, commit)
    since = changes.Since(commit[:12], accepted, checkout.changed_files(commit), earlier, runners)
    today = changes.Today(
        payload_sha256=protocol.payload_sha256(protocol.payload_sources(load_reference())),
        tool_version=__version__,
        now=now,
        max_age=timedelta(seconds=min(plan.policy.max_age, base.policy.max_age)),
    )
    left, reasons = changes.without_unchanged(plan, since, today)
    notes += [f"{count} cell{'s' * (count != 1)} run: {reason}" for reason, count in Counter(reasons).most_common()]
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
    report: ReportOptions, checkout: GitRepository, commit: str
) -> tuple[Mapping[str, CellResult], Mapping[str, PlannedRunner], list[str]]:
    """The results of the committed table, on its own branch where it has one, and the machines that they are of.

    None where there is no table, or not a whole one, and why.
    """
    from cuda_matrix.gate import newest
    from cuda_matrix.ledger import LEDGER_FILE, LEDGER_LIMIT_BYTES, decode

    path = f"{report.dir}/{LEDGER_FILE}"
    if report.branch is not None:
        tip = checkout.remote_branch(report.branch)
        if tip is None:
            return {}, {}, [f"the branch {report.branch} is not in this checkout: nothing is taken over"]
        commit = tip
    data = checkout.file(commit, path, LEDGER_LIMIT_BYTES)
    if data is None:
        return {}, {}, [f"there is no {path} at {commit[:12]}: nothing is taken over"]
    decoded = decode(data, path)
    notes = [str(problem) for problem in decoded.problems[:10]]
    if decoded.plan is None:
        return {}, {}, [*notes, f"{path} at {commit[:12]} holds no plan: nothing is taken over"]
    return newest(decoded.results), decoded.plan.runners, notes
