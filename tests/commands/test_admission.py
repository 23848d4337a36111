"""What `plan` sends to whose machines: events as GitHub writes them, real checkouts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from builders import make_result
from cuda_matrix import protocol
from cuda_matrix.cli import run
from cuda_matrix.commands.plan import command
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.ledger import LEDGER_FILE, Ledger, encode
from cuda_matrix.model import Verdict
from cuda_matrix.plan import Plan, demand_sha256
from cuda_matrix.reference import load_reference
from cuda_matrix.result import CellResult, ImageIdentity
from cuda_matrix.version import __version__

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")

CONFIG = """version: 1
images: [{id: a, ref: example.org/a:1}]
runners: {gpu: {labels: [self-hosted, gpu], gpu: RTX 3090, driver: "550.54.15"}}
"""
APPROVED = CONFIG + "policy: {forks: {FORKS}}\n"


class Repository:
    """A base branch, and the merge of a proposal into it checked out, as actions/checkout leaves it."""

    def __init__(self, folder: Path, base: str, proposed: str) -> None:
        self.folder = folder
        self.when = datetime.now(timezone.utc) - timedelta(days=30)  # of the commits that follow
        self.git("init", "-q", "-b", "main")
        self.base = self._save(base)
        self.head = self._save(proposed)

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
        environ = {**os.environ, "GIT_COMMITTER_DATE": f"{self.when:%Y-%m-%dT%H:%M:%SZ}"}
        done = subprocess.run(
            ["git", *who, *arguments], cwd=self.folder, env=environ, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def _save(self, config: str) -> str:
        (self.folder / "matrix").mkdir(exist_ok=True)
        (self.folder / "matrix/all.yml").write_text(config)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "x")
        return self.git("rev-parse", "HEAD")

    def event(self, monkeypatch: pytest.MonkeyPatch, head: str = "stranger/repo", **keys: Any) -> None:
        pull = {
            "number": 7,
            "head": {"sha": self.head, "repo": {"full_name": head}},
            "base": {"sha": self.base, "ref": "main"},
        }
        file = self.folder.parent / "event.json"
        file.write_text(json.dumps({"action": "synchronize", "pull_request": pull, **keys}))
        values = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_REPOSITORY": "owner/repo",
            "GITHUB_SHA": self.head,
            "GITHUB_EVENT_NAME": "pull_request",
            "GITHUB_EVENT_PATH": str(file),
        }
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(self.folder)


def planned(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["--offline", "--format", "github", *arguments])


def entries(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)["include"]
    return found


def make(folder: Path, base: str, proposed: str = "") -> Repository:
    (folder / "repo").mkdir()
    return Repository(folder / "repo", base, proposed or base)


def test_our_own_pull_request_is_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, CONFIG).event(monkeypatch, head="owner/repo")
    assert [entry["environment"] for entry in entries(planned())] == [""]


def test_a_forks_code_is_refused_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, CONFIG).event(monkeypatch)
    error = planned().exception
    assert isinstance(error, ConfigurationError)
    assert "comes from a fork" in str(error)
    assert "policy.forks" in (error.hint or "")


def test_a_fork_cannot_approve_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = APPROVED.replace("{FORKS}", "{environment: free}")
    make(tmp_path, CONFIG, own).event(monkeypatch)
    assert isinstance(planned().exception, ConfigurationError)


def test_a_fork_cannot_approve_itself_by_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = APPROVED.replace("{FORKS}", "{environment: free}")
    repository = make(tmp_path, CONFIG, own)
    repository.event(monkeypatch)
    for path in (repository.folder / "matrix", Path("./matrix"), Path("matrix/../matrix"), Path("..") / "repo/matrix"):
        assert isinstance(planned("--config", str(path)).exception, ConfigurationError), path
    make(tmp_path / "repo", own)  # nested, and approved by its own base alone
    approved = Path("repo") / "matrix"
    assert isinstance(planned("--config", str(approved)).exception, ConfigurationError)


def test_an_environment_of_the_base_branch_goes_to_every_lane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    approved = APPROVED.replace("{FORKS}", "{environment: gpu-reviewed}")
    make(tmp_path, approved, CONFIG).event(monkeypatch)  # the fork took the line out: it counts all the same
    assert [entry["environment"] for entry in entries(planned())] == ["gpu-reviewed"]


def test_a_label_approves_the_event_that_gives_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = make(tmp_path, APPROVED.replace("{FORKS}", '{label: "ok to test"}'))
    repository.event(monkeypatch, action="labeled", label={"name": "ok to test"})
    assert len(entries(planned())) == 1
    repository.event(monkeypatch, action="unlabeled", label={"name": "ok to test"})
    assert isinstance(planned().exception, ConfigurationError)
    repository.event(monkeypatch, action="synchronize")
    assert isinstance(planned().exception, ConfigurationError)


def test_a_base_that_is_not_in_the_checkout_approves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = make(tmp_path, APPROVED.replace("{FORKS}", "{environment: x}"))
    repository.base = "0" * 40
    repository.event(monkeypatch)
    error = planned().exception
    assert isinstance(error, ConfigurationError)
    assert "cannot be read" in str(error)


def test_a_fork_without_cells_for_our_machines_is_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, CONFIG.replace("[self-hosted, gpu]", "[ubuntu-24.04]")).event(monkeypatch)
    assert len(entries(planned())) == 1


def test_a_docker_host_of_ours_behind_a_runner_of_githubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    behind = CONFIG.replace("[self-hosted, gpu]", "[ubuntu-24.04], docker_host: 'ssh://us@ours'")
    make(tmp_path, behind).event(monkeypatch)
    assert isinstance(planned().exception, ConfigurationError)


def test_an_enterprise_server_has_only_our_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, CONFIG.replace("[self-hosted, gpu]", "[ubuntu-24.04]")).event(monkeypatch)
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.example.org")
    assert isinstance(planned().exception, ConfigurationError)


def test_a_comment_on_a_pull_request_needs_the_same_approval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing says whose code its workflow has checked out."""
    repository = make(tmp_path, CONFIG, APPROVED.replace("{FORKS}", "{environment: gpu-reviewed}"))
    repository.event(monkeypatch)
    (tmp_path / "event.json").write_text(json.dumps({"issue": {"number": 7, "pull_request": {}}}))
    monkeypatch.setenv("GITHUB_EVENT_NAME", "issue_comment")
    monkeypatch.setenv("GITHUB_SHA", repository.base)
    assert isinstance(planned().exception, ConfigurationError)
    monkeypatch.setenv("GITHUB_SHA", repository.head)  # the default branch approves by now
    assert [entry["environment"] for entry in entries(planned())] == ["gpu-reviewed"]


def test_the_refusal_is_exit_code_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, CONFIG).event(monkeypatch)
    assert run(["plan", "--offline"]) == 2
    assert not Path("plan.json").exists()


DIGEST = "sha256:" + "12" * 32
PINNED = CONFIG.replace("example.org/a:1", f"example.org/a@{DIGEST}").replace("id: a,", "id: a, paths: [images/a/**],")


class Published(Repository):
    """A base branch that holds the table of an accepted run."""

    def accept(self, result: CellResult, plan: Plan) -> str:
        (self.folder / "reports").mkdir(exist_ok=True)
        (self.folder / "reports" / LEDGER_FILE).write_bytes(encode(Ledger(plan, {result.cell: result})))
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "table")
        return self.git("rev-parse", "HEAD")

    def branch(self, name: str, commit: str) -> None:
        self.git("update-ref", f"refs/remotes/origin/{name}", commit)
        self.git("rm", "-q", "-r", "reports")
        self.git("commit", "-q", "-m", "not here")


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    (tmp_path / "repo").mkdir()
    repository = Published(tmp_path / "repo", PINNED, PINNED)
    monkeypatch.chdir(repository.folder)
    return repository


def accepted(**values: Any) -> tuple[CellResult, Plan]:
    """The result that this configuration, payload and tool would leave, two days ago."""
    whole = CliRunner().invoke(command, ["--offline", "--format", "json"])
    plan = Plan.model_validate_json(whole.stdout)
    image = plan.images["a"]
    defaults = {
        "gpu": "RTX 3090",
        "image": ImageIdentity(id="a", ref=image.ref, digest=DIGEST),
        "payload_sha256": protocol.payload_sha256(protocol.payload_sources(load_reference())),
        "tool_version": __version__,
        "demand_sha256": demand_sha256(image, plan.payload, plan.container),
        "started_at": datetime.now(timezone.utc) - timedelta(days=2),
    }
    return make_result("a@gpu", **{**defaults, **values}), plan


def since(revision: str) -> tuple[list[str], list[str], str]:
    """(cells that run, cells that are unchanged, what is said)."""
    done = CliRunner().invoke(command, ["--offline", "--format", "json", "--changed-since", revision])
    assert done.exit_code == 0, done.output
    plan = Plan.model_validate_json(done.stdout)
    unchanged = [cell.id for cell in plan.skipped if cell.kind == "unchanged"]
    return [cell.id for cell in plan.cells], unchanged, done.stderr


def test_a_cell_with_nothing_new_does_not_run(published: Published) -> None:
    base = published.accept(*accepted())
    ran, unchanged, said = since(base)
    assert (ran, unchanged) == ([], ["a@gpu"])
    assert "1 cells unchanged" in said


def test_a_file_of_the_image_makes_it_run_and_another_does_not(published: Published) -> None:
    base = published.accept(*accepted())
    (published.folder / "README.md").write_text("x")
    assert since(base)[0] == []
    (published.folder / "images/a").mkdir(parents=True)
    (published.folder / "images/a/Dockerfile").write_text("FROM scratch")
    ran, _, said = since(base)
    assert ran == ["a@gpu"]
    assert "1 cell run: images/a/Dockerfile has changed" in said


def test_what_was_merged_after_the_result_makes_it_run(published: Published) -> None:
    published.accept(*accepted())
    (published.folder / "images/a").mkdir(parents=True)
    (published.folder / "images/a/Dockerfile").write_text("FROM scratch")
    published.when += timedelta(days=29)
    published.git("add", "-A")
    published.git("commit", "-q", "-m", "merged, and no night has passed since")
    ran, _, said = since("HEAD")
    assert ran == ["a@gpu"]
    assert "images/a/Dockerfile has changed since its last result" in said


def test_a_report_that_was_committed_is_no_change_of_an_image(published: Published) -> None:
    (published.folder / "matrix/all.yml").write_text(PINNED.replace("images/a/**", "."))
    published.git("commit", "-q", "-a", "-m", "wide")
    result, plan = accepted()
    published.when = datetime.now(timezone.utc)
    assert since(published.accept(result, plan))[1] == ["a@gpu"]


def test_history_that_is_not_here_is_a_doubt(published: Published) -> None:
    base = published.accept(*accepted(started_at=datetime.now(timezone.utc) - timedelta(days=10)))
    published.git("commit", "-q", "--amend", "--no-edit")
    published.when = datetime.now(timezone.utc)
    tree = published.git("rev-parse", f"{base}^{{tree}}")
    young = published.git("commit-tree", "-m", "as after a shallow fetch", tree)
    published.git("reset", "-q", "--hard", young)
    ran, _, said = since("HEAD")
    assert ran == ["a@gpu"]
    assert "does not hold the files" in said


def test_what_a_proposal_writes_into_the_table_is_not_believed(published: Published) -> None:
    base = published.accept(*accepted(verdict=Verdict.FAIL))
    published.accept(*accepted())
    assert since(base)[0] == ["a@gpu"]


def test_a_configuration_that_asks_for_more_runs(published: Published) -> None:
    base = published.accept(*accepted())
    (published.folder / "matrix/more.yml").write_text("payload: {profile: full}")
    assert since(base)[0] == ["a@gpu"]


def test_no_table_takes_nothing_over(published: Published) -> None:
    ran, _, said = since(published.base)
    assert ran == ["a@gpu"]
    assert "there is no reports/results.jsonl" in said


def test_a_proposal_chooses_neither_the_table_nor_its_age(published: Published) -> None:
    old, plan = accepted(started_at=datetime.now(timezone.utc) - timedelta(days=20))
    base = published.accept(old, plan)
    (published.folder / "matrix/own.yml").write_text("policy: {max_age: 300d}\nreport: {branch: mine}")
    assert "20 days old" in since(base)[2]
    fresh, _ = accepted()
    mine = published.accept(fresh, plan)
    published.branch("mine", mine)
    assert since(base)[0] == ["a@gpu"]


def test_a_table_on_its_own_branch(published: Published) -> None:
    (published.folder / "matrix/report.yml").write_text("report: {branch: gpu-data}")
    published.git("add", "-A")
    table = published.accept(*accepted())
    published.branch("gpu-data", table)
    assert since(table)[1] == ["a@gpu"]
    published.git("update-ref", "-d", "refs/remotes/origin/gpu-data")
    ran, _, said = since("HEAD")
    assert ran == ["a@gpu"]
    assert "gpu-data is not in this checkout" in said


def test_a_broken_line_of_the_table_is_said(published: Published) -> None:
    result, plan = accepted()
    published.accept(result, plan)
    with (published.folder / "reports" / LEDGER_FILE).open("a") as file:
        file.write("{\n")
    published.git("commit", "-q", "-a", "-m", "broken")
    _, unchanged, said = since("HEAD")
    assert unchanged == ["a@gpu"]
    assert "results.jsonl:3" in said
