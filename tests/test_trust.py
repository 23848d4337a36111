from __future__ import annotations

import pytest

from cuda_matrix.config import Forks
from cuda_matrix.trust import Trigger, is_hosted, refusal

FORK = Trigger("pull_request", from_fork=True)
OURS = [("a800", ("self-hosted", "a800"))]


@pytest.mark.parametrize(
    ("labels", "hosted"),
    [
        (("ubuntu-24.04",), True),
        (("ubuntu-latest",), True),
        (("macos-15",), True),
        (("self-hosted", "ubuntu-24.04"), False),
        (("Self-Hosted",), False),
        (("gpu-a800",), False),
        (("linux", "x64"), False),
        (("my-ubuntu-24.04",), False),
        ((), False),
        (("ubuntu-24.04-arm",), True),
        (("windows-2025-vs2026",), True),
        (("macos-latest-xlarge",), True),
        (("ubuntu-slim",), True),
        (("ubuntu-gpu",), False),  # these may be anything: a runner of ours has the labels that we give it
        (("ubuntu-22.04-a100",), False),
        (("windows-box",), False),
        (("ubuntu-latest", "gpu"), False),
        (("ubuntu-latest", "ubuntu-22.04"), False),
    ],
)
def test_only_githubs_own_labels_are_throw_away_machines(labels: tuple[str, ...], hosted: bool) -> None:
    assert is_hosted(labels) is hosted


def test_our_own_branches_run() -> None:
    assert refusal(Trigger("pull_request", from_fork=False), OURS, None) == ""


def test_a_fork_runs_on_throw_away_machines() -> None:
    assert refusal(FORK, [("cpu", ("ubuntu-24.04",))], None) == ""


def test_an_enterprise_server_lends_no_machines() -> None:
    enterprise = Trigger("pull_request", from_fork=True, has_hosted=False)
    assert "cpu may be" in refusal(enterprise, [("cpu", ("ubuntu-24.04",))], None)


def test_a_fork_never_reaches_our_machines_unasked() -> None:
    said = refusal(FORK, [*OURS, ("cpu", ("ubuntu-24.04",))], None)
    assert "comes from a fork (pull_request)" in said
    assert "a800" in said
    assert "cpu" not in said


def test_an_environment_is_held_by_github() -> None:
    assert refusal(FORK, OURS, Forks(environment="gpu")) == ""


def test_a_label_counts_only_in_the_event_that_gives_it() -> None:
    forks = Forks(label="ok to test")
    assert refusal(Trigger("pull_request", from_fork=True, label="ok to test"), OURS, forks) == ""
    assert "gave no label" in refusal(FORK, OURS, forks)
    other = Trigger("pull_request", from_fork=True, label="bug")
    assert "gave the label 'bug'" in refusal(other, OURS, forks)
    assert refusal(Trigger("pull_request", from_fork=True, label="OK to test"), OURS, forks)
