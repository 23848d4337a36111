"""Owns whether the code of a fork may be sent to machines of our own.

Must not know where the event comes from (adapters/actions_env) or what a plan is. GitHub starts a fork's workflow with
the fork's own files: this refusal protects an honest workflow from running unread code, and is no substitute for the
repository's setting "Require approval for all external contributors"
(https://docs.github.com/actions/reference/security/secure-use#hardening-for-self-hosted-runners).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from cuda_matrix.config import Forks

# https://docs.github.com/actions/reference/runners/github-hosted-runners
_HOSTED = re.compile(
    r"(?:ubuntu|windows|macos)-(?:latest|slim|\d+(?:\.\d+)?)(?:-(?:arm|intel|large|xlarge|vs\d+))?", re.IGNORECASE
)


@dataclass(frozen=True)
class Trigger:
    """What started the workflow. `label` is the one that was just given (event action `labeled`), else empty.

    `has_hosted`: this GitHub lends machines; GitHub Enterprise Server lends none, whatever they are called there.
    """

    event: str
    from_fork: bool
    label: str = ""
    has_hosted: bool = True


def is_hosted(labels: Iterable[str]) -> bool:
    """Whether `runs-on` labels name a throw-away machine of GitHub. Any other label may be a machine of ours.

    A machine must have all of the labels, and one of GitHub has no other beside its own.
    """
    return [bool(_HOSTED.fullmatch(label)) for label in labels] == [True]


def refusal(trigger: Trigger, runners: Iterable[tuple[str, Iterable[str]]], forks: Forks | None) -> str:
    """Why this plan must not run; empty where it may. `runners`: (id, labels) of those that have cells to run.

    `forks` must be the policy of the base branch: a fork writes its own files as it likes.
    """
    ours = [runner for runner, labels in runners if not (trigger.has_hosted and is_hosted(labels))]
    if not trigger.from_fork or not ours:
        return ""
    what = f"the code comes from a fork ({trigger.event}), and {', '.join(ours)} may be machines of your own"
    if forks is None:
        return f"{what}; policy.forks of the base branch does not say how such code is approved"
    if forks.environment is not None:
        return ""  # GitHub itself holds the jobs of this environment back until a reviewer lets them go
    if forks.label == trigger.label:
        return ""
    given = f"the label {trigger.label!r}" if trigger.label else "no label"
    return f"{what}; policy.forks asks for the label {forks.label!r} on just this commit, and this event gave {given}"
