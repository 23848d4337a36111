"""Owns what a GitHub runner tells a step (environment, event file), and what a step tells the runner.

Must not know whether a workflow runs (commands) or what is done with it. The only module that knows the syntax of
workflow commands, of the output file and of the job summary
(https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands). The event file of a fork's pull
request holds texts of the fork's author: numbers, object names and names of repositories are taken from it, checked.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuda_matrix.errors import ConfigurationError

if TYPE_CHECKING:
    from cuda_matrix.errors import Problem

EVENT_LIMIT = 25 << 20  # bytes; GitHub's own bound of a webhook's payload
SUMMARY_LIMIT = 1 << 20  # bytes of a step's summary; above it the runner drops the whole summary
_NUMBER_LIMIT = 18  # digits
_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}")
_OUTPUT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")
_ACTIVITY = re.compile(r"[a-z_]{1,50}")
_BRANCH = re.compile(r"(?!-)[^\s\x00-\x1f\x7f~^:?*\[\\]{1,250}")
_AFTER_ANOTHER = "workflow_run"
_PROPOSING = ("pull_request", "workflow_run")  # how events about proposed code begin
_LABEL_LIMIT = 100  # characters; GitHub's are 50 at most


@dataclass(frozen=True)
class ActionsRun:
    """One job of a workflow. Texts are empty and numbers None where the runner said nothing.

    `head_sha` is the commit that a pull request proposes; `sha` is then GitHub's merge of it into the base, which has
    no checks page of its own. For a `workflow_run` both `head_sha` and `from_fork` speak of the run that came before.
    `pull` is None for such a run, whose event names none for forks: ask `Forge.pulls_of`; `ref` is the branch of that
    run (or a tag: the event does not tell them apart), `after` its event. `from_fork` is true wherever an event about
    proposed code does not say whose it is, as for a comment on a pull request; `head_sha` is then empty.
    """

    repository: str
    sha: str
    head_sha: str
    head_repository: str
    ref: str
    event: str
    activity: str  # the event's `action`: opened, synchronize, labeled, …
    label: str  # that was just given or taken, for those two activities
    pull: int | None
    base_ref: str
    base_sha: str
    from_fork: bool
    run_id: str
    attempt: str
    run_url: str
    api_url: str
    graphql_url: str
    server_url: str
    token: str = field(repr=False)
    output: Path | None = None
    summary: Path | None = None
    after: str = ""


def actions_run(environ: Mapping[str, str], *, token: str = "") -> ActionsRun:
    """What the runner says of this job (https://docs.github.com/actions/reference/workflows-and-actions/variables).

    Args:
        environ: The environment; the event file is the one that GITHUB_EVENT_PATH names.
        token: Stronger than GITHUB_TOKEN of the environment.

    Raises:
        ConfigurationError: The event file cannot be read, or what must be there is missing or no such thing.
    """
    repository, sha = environ.get("GITHUB_REPOSITORY", ""), environ.get("GITHUB_SHA", "")
    if not _REPOSITORY.fullmatch(repository) or not _SHA.fullmatch(sha):
        hint = "this is said by the runner of GitHub Actions; elsewhere set both, and GITHUB_TOKEN"
        msg = "GITHUB_REPOSITORY and GITHUB_SHA name no repository and commit"
        raise ConfigurationError(msg, hint=hint)
    event, event_name = _Event(_event(environ.get("GITHUB_EVENT_PATH", ""))), environ.get("GITHUB_EVENT_NAME", "")
    head = event.head()
    server = environ.get("GITHUB_SERVER_URL", "").rstrip("/") or "https://github.com"
    run_id, attempt = _digits(environ.get("GITHUB_RUN_ID", "")), _digits(environ.get("GITHUB_RUN_ATTEMPT", "")) or "1"
    url = f"{server}/{repository}/actions/runs/{run_id}" if run_id else ""
    head_repository = head.name("repo", "full_name")
    commented = event.number("issue", "number") if isinstance(event.field("issue", "pull_request"), dict) else None
    if not head_repository and not head.data and not event_name.startswith(_PROPOSING) and commented is None:
        head_repository = repository
    return ActionsRun(
        repository=repository,
        sha=sha,
        head_sha=head.sha("sha") or (sha if commented is None else ""),
        head_repository=head_repository,
        ref=_ref(event, event_name, environ.get("GITHUB_REF", "")),
        event=event_name,
        activity=event.match(_ACTIVITY, "action"),
        label=event.text("label", "name")[:_LABEL_LIMIT],
        pull=event.number("pull_request", "number") or _merge_ref(environ.get("GITHUB_REF", "")) or commented,
        base_ref=event.text("pull_request", "base", "ref")
        or event.text("merge_group", "base_ref").removeprefix("refs/heads/"),
        # A comment starts the workflow of the default branch, at its head.
        base_sha=event.sha("pull_request", "base", "sha")
        or event.sha("merge_group", "base_sha")
        or (sha if commented is not None else ""),
        # A head without a repository is that of a fork that was deleted.
        from_fork=head_repository.lower() != repository.lower(),
        run_id=run_id,
        attempt=attempt,
        run_url=f"{url}/attempts/{attempt}" if url and attempt != "1" else url,
        api_url=environ.get("GITHUB_API_URL", "") or "https://api.github.com",
        graphql_url=environ.get("GITHUB_GRAPHQL_URL", ""),
        server_url=server,
        token=token or environ.get("GITHUB_TOKEN", ""),
        output=_path(environ, "GITHUB_OUTPUT"),
        summary=_path(environ, "GITHUB_STEP_SUMMARY"),
        after=event.match(_ACTIVITY, "workflow_run", "event") if event_name == _AFTER_ANOTHER else "",
    )


@dataclass(frozen=True)
class _Event:
    """Hostile JSON, read field by field: what is missing or of another kind is empty."""

    data: Any

    def field(self, *path: str) -> Any:
        value = self.data
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def text(self, *path: str) -> str:
        value = self.field(*path)
        return value if isinstance(value, str) else ""

    def match(self, pattern: re.Pattern[str], *path: str) -> str:
        value = self.text(*path)
        return value if pattern.fullmatch(value) else ""

    def sha(self, *path: str) -> str:
        return self.match(_SHA, *path)

    def name(self, *path: str) -> str:
        return self.match(_REPOSITORY, *path)

    def number(self, *path: str) -> int | None:
        value = self.field(*path)
        return (
            value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**_NUMBER_LIMIT else None
        )

    def head(self) -> _Event:
        """What is proposed, as `{sha, repo: {full_name}}`; empty where the event proposes nothing."""
        if isinstance(self.field("pull_request", "head"), dict):
            return _Event(self.field("pull_request", "head"))
        if isinstance(self.field("workflow_run"), dict):
            run = self.field("workflow_run")
            return _Event({"sha": run.get("head_sha"), "repo": run.get("head_repository")})
        return _Event({})


def append_summary(run: ActionsRun, markdown: str, *, limit: int = SUMMARY_LIMIT) -> bool:
    """Add to the job's summary; False, and nothing written, where it has no room or the runner offers none.

    All or nothing: above the limit the runner drops the summary of the whole step, and Markdown that is cut anywhere
    swallows what follows. Raises OSError.
    """
    if run.summary is None:
        return False
    content = f"{markdown.rstrip()}\n".encode("utf-8", "replace")
    there = run.summary.stat().st_size if run.summary.is_file() else 0
    if there + len(content) > limit:
        return False
    with run.summary.open("ab") as file:
        file.write(content)
    return True


def write_output(run: ActionsRun, name: str, value: str, *, delimiter: str = "") -> None:
    """Set an output of the step; does nothing where the runner offers none.

    The delimiter is random, so that no value can end itself and set another output.

    Raises:
        ValueError: The name is none, or the value holds the delimiter.
        OSError: The runner's file cannot be written.
    """
    delimiter = delimiter or f"cuda_matrix_{secrets.token_hex(16)}"
    if not _OUTPUT_NAME.fullmatch(name):
        msg = f"{name!r} is no name of an output"
        raise ValueError(msg)
    if delimiter in value:
        msg = f"the value of output {name} holds the delimiter"
        raise ValueError(msg)
    if run.output is None:
        return
    text = value.replace("\r\n", "\n").replace("\r", "\n")
    with run.output.open("a", encoding="utf-8", errors="replace", newline="\n") as file:
        file.write(f"{name}<<{delimiter}\n{text}\n{delimiter}\n")


def _event(path: str) -> Any:
    if not path:
        return {}
    hint = "GITHUB_EVENT_PATH names the file that the runner wrote"
    try:
        with Path(path).open("rb") as file:
            content = file.read(EVENT_LIMIT + 1)
    except OSError as error:
        msg = f"the event file cannot be read: {error.strerror or error}"
        raise ConfigurationError(msg, hint=hint) from None
    if len(content) > EVENT_LIMIT:
        msg = f"the event file has more than {EVENT_LIMIT:,} bytes"
        raise ConfigurationError(msg, hint=hint)
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        msg_0 = "the event file is no JSON object"
        raise ConfigurationError(msg_0, hint=hint)
    return data


def _ref(event: _Event, event_name: str, ref: str) -> str:
    """Of a `workflow_run` the runner's variable names the default branch, wherever the run before it was."""
    if event_name != _AFTER_ANOTHER:
        return ref
    branch = event.text("workflow_run", "head_branch")
    return f"refs/heads/{branch}" if _BRANCH.fullmatch(branch) else ""


def _merge_ref(ref: str) -> int | None:
    """`refs/pull/N/merge`: the event of a pull request without its file."""
    found = re.fullmatch(r"refs/pull/([1-9][0-9]{0,17})/(?:merge|head)", ref)
    return int(found[1]) if found else None


def _digits(text: str) -> str:
    return text if re.fullmatch(r"[0-9]{1,20}", text) else ""


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    return Path(environ[name]) if environ.get(name) else None


def error_command(problem: Problem) -> str:
    """`::error file=…,line=…,col=…::message`, escaped as the runner's own toolkit does."""
    return _command("error", problem)


def warning_command(problem: Problem) -> str:
    """`::warning file=…,line=…,col=…::message`: an annotation that fails nothing."""
    return _command("warning", problem)


def _command(name: str, problem: Problem) -> str:
    place = f"file={_property(problem.file)}"
    if problem.line:
        place += f",line={problem.line},col={problem.column}"
    text = f"{problem.path}: {problem.message}" if problem.path else problem.message
    return f"::{name} {place}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
