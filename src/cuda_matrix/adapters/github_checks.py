"""Owns check runs: made once, taken up again, completed with any number of annotations.

Must not know what a check run says. Only an App's token may make one (GITHUB_TOKEN is one), and GitHub hangs it onto a
check suite of its own choice, so no branch should require it: the job's exit code is the gate.
https://docs.github.com/rest/checks/runs
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cuda_matrix.adapters.github_answers import Lost
from cuda_matrix.adapters.github_client import GithubClient
from cuda_matrix.forge import Annotation, CheckReport, Conclusion

ANNOTATIONS_A_REQUEST = 50
FIELD_LIMIT = 65_535  # bytes of a summary and of a text; GitHub says characters
MESSAGE_LIMIT = 64 << 10  # bytes of an annotation's message
TITLE_LIMIT = 255  # characters of a name or a title
_ANNOTATIONS_MOST = 1_000  # 20 requests; who has more findings reads the report
_LEVELS = {"notice": "notice", "warning": "warning", "failure": "failure"}


class GithubChecks:
    """The check runs of one repository."""

    def __init__(self, client: GithubClient, root: str) -> None:
        self._client = client
        self._root = root

    def start(self, name: str, sha: str, external_id: str, details_url: str, report: CheckReport) -> int:
        """Make it, or set the one that there is back to `in_progress`. Annotations are for `finish`."""
        body = {"status": "in_progress", "details_url": details_url, "output": _output(report)}
        failures = 0
        while True:
            found = self.find(name, sha, external_id)
            if found is not None:
                self._client.ask("PATCH", f"{self._root}/check-runs/{found}", body)
                return found
            made = {**body, "name": _short(name), "head_sha": sha, "external_id": external_id}
            try:
                return self._client.ask("POST", f"{self._root}/check-runs", made, profile="create").number("id")
            except Lost:
                failures += 1
                if failures >= self._client.tries:
                    raise
                self._client.wait(failures)

    def find(self, name: str, sha: str, external_id: str) -> int | None:
        """Its id; the newest where there are several."""
        path = f"{self._root}/commits/{sha}/check-runs"
        for page in self._client.pages(path, check_name=_short(name), filter="all"):
            for run in page.entries("check_runs"):
                if run.field("external_id") == external_id:
                    return run.number("id")
        return None

    def finish(self, check: int, conclusion: Conclusion, report: CheckReport) -> None:
        """The conclusion comes with the first request: whatever happens then, nobody waits for this check for ever.

        GitHub adds the annotations of every request to those that it has, so a request with annotations is no
        repeatable one: what is there is counted before it is sent again.
        """
        annotations = report.annotations[:_ANNOTATIONS_MOST]
        body: dict[str, Any] = {"status": "completed", "conclusion": conclusion}
        for start in range(0, len(annotations) or 1, ANNOTATIONS_A_REQUEST):
            chunk = annotations[start : start + ANNOTATIONS_A_REQUEST]
            self._append(check, {**body, "output": _output(report, chunk)}, start + len(chunk))

    def _append(self, check: int, body: dict[str, Any], expected: int) -> None:
        path, failures = f"{self._root}/check-runs/{check}", 0
        while True:
            try:
                self._client.ask("PATCH", path, body, profile="create" if expected else "repeatable")
            except Lost:
                failures += 1
                if failures >= self._client.tries:
                    raise
                self._client.wait(failures)
                if self._client.get(path).number("output", "annotations_count") < expected:
                    continue
            return


def _output(report: CheckReport, annotations: Sequence[Annotation] = ()) -> dict[str, Any]:
    output: dict[str, Any] = {"title": _short(report.title), "summary": bounded(report.summary, FIELD_LIMIT)}
    if report.text:
        output["text"] = bounded(report.text, FIELD_LIMIT)
    if annotations:
        output["annotations"] = [_annotation(one) for one in annotations]
    return output


def _annotation(one: Annotation) -> dict[str, Any]:
    line = max(one.line, 1)
    return {
        "path": one.path,
        "start_line": line,
        "end_line": line,
        "annotation_level": _LEVELS[one.level],
        "title": _short(one.title),
        "message": bounded(one.message, MESSAGE_LIMIT) or _short(one.title) or "see the report",
    }


def _short(text: str) -> str:
    return text if len(text) <= TITLE_LIMIT else f"{text[: TITLE_LIMIT - 1]}…"


def bounded(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8, cut between two characters: a net below who renders, who cuts with more sense."""
    encoded = text.encode("utf-8", "replace")
    return text if len(encoded) <= limit else encoded[:limit].decode("utf-8", "ignore")
