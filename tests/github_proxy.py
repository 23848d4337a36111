"""A proxy before the emulated GitHub: counts and checks every request, injects faults, and says what emulate cannot.

What emulate 0.11.2 does otherwise than GitHub, and is set right here:
- it takes any unknown token for its first user: here 401;
- it lets a personal token make check runs: here 403, as GitHub wants an App's token;
- it answers 409 when a protected branch refuses: here 422 with GitHub's words;
- it opens a second pull request for one pair of branches, and makes a branch that is missing: here 422;
- it takes a comment of any length: here 422 above 65,536 characters;
- it forgets the annotations of a check run when more are sent: here they are added;
- it invents the files of a pull request: here they are those that differ between its two trees;
- it has no GraphQL: `viewer` and `minimizeComment` are played here.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, urlsplit

RULES = "Repository rule violations found\n\nChanges must be made through a pull request.\n\n"
_COMMENT = re.compile(r"/(issues/\d+/comments|issues/comments/\d+)$")
_PULL_FILES = re.compile(r"(.*)/pulls/(\d+)/files")
_CHECK_RUN = re.compile(r"/check-runs(/\d+)?$")
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding"}


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sent:
    """One request as it came in, and the status that went out (0: the connection was cut)."""

    method: str
    target: str
    body: Any
    token: str
    status: int

    @property
    def path(self) -> str:
        return urlsplit(self.target).path


@dataclass
class Fault:
    """What happens to the next `times` requests of this method whose path matches.

    `status`: answered with it. `after`: GitHub does it first, then the answer is this status (0: the line is cut).
    `delay_s`: the answer comes so late.
    """

    method: str
    path: str
    status: int = 0
    body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes = b""  # instead of `body`
    after: bool = False
    delay_s: float = 0
    times: int = 1
    then: Callable[[], None] | None = None  # called before the answer: what somebody else did meanwhile

    def fits(self, method: str, path: str) -> bool:
        return self.times > 0 and method == self.method and re.search(self.path, path) is not None


def rate_limited(method: str, path: str, *, seconds: int = 1, times: int = 1) -> Fault:
    """429 that names its wait."""
    said = {"message": "API rate limit exceeded for installation ID 1."}
    return Fault(method, path, 429, said, {"Retry-After": str(seconds)}, times=times)


def secondary_limit(method: str, path: str, *, times: int = 1) -> Fault:
    """403 that names no wait."""
    said = {"message": "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}
    return Fault(method, path, 403, said, times=times)


def lost_answer(method: str, path: str, *, status: int = 502, times: int = 1) -> Fault:
    """GitHub does it, and says 502 (0: says nothing and hangs up)."""
    return Fault(method, path, status, {"message": "Server Error"}, after=True, times=times)


class GithubProxy:
    """Serves on 127.0.0.1 from construction to `close`; `reset` forgets what one test did."""

    def __init__(self, check: Callable[[str, str, bytes], list[str]] | None = None) -> None:
        self.upstream = ""  # host:port of emulate
        self.check = check
        self.logins: dict[str, str] = {}  # token → login with `[bot]`
        self.read_only: set[str] = set()
        self._lock = threading.Lock()
        self._annotations: dict[str, list[Any]] = {}  # path of a check run → all that were sent
        self.reset()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def reset(self) -> None:
        self.sent: list[Sent] = []
        self.complaints: list[str] = []
        self.faults: list[Fault] = []
        self.minimised: list[tuple[str, str]] = []  # node id, classifier

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def count(self, method: str = "", path: str = "") -> int:
        """Requests so far of this method (any) whose path matches."""
        return len([one for one in self.sent if method in {"", one.method} and re.search(path, one.path)])

    def writes(self) -> list[Sent]:
        return [one for one in self.sent if one.method != "GET"]

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
        """What the client gets; None: the line is cut."""
        sent = self.sent  # of this test, should the answer come after its end
        token = re.sub(r"(?i)^(bearer|token)\s+", "", headers.get("Authorization", "")).strip()
        target = target.removeprefix("/api/v3")  # GitHub Enterprise
        path = urlsplit(target).path
        if path not in {"/graphql", "/api/graphql"} and self.check is not None:
            self.complaints += self.check(method, target, body)
        fault = next((one for one in self.faults if one.fits(method, path)), None)
        answer: Answer | None = None
        if fault is None or fault.after or not fault.status:
            answer = self._true_answer(method, target, headers, body, token)
        if fault is not None:
            fault.times -= 1
            if fault.then is not None:
                fault.then()
            time.sleep(fault.delay_s)
            if fault.status:
                answer = Answer(fault.status, fault.raw or json.dumps(fault.body).encode(), fault.headers)
            elif fault.after:
                answer = None
        sent.append(Sent(method, target, _json(body), token, answer.status if answer else 0))
        return answer

    def _true_answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes, token: str) -> Answer:
        path, said = urlsplit(target).path, _json(body)
        if token not in self.logins:
            return _refusal(401, "Bad credentials")
        if path in {"/graphql", "/api/graphql"}:
            return self._graphql(said, token)
        if method == "GET" and _PULL_FILES.fullmatch(path):
            return self._pull_files(path, headers)
        if method == "POST" and path.endswith("/check-runs") and not token.startswith("ghs_"):
            return _refusal(403, "You must authenticate via a GitHub App.")
        if method in {"POST", "PATCH"} and _COMMENT.search(path) and len(said.get("body", "")) > 65536:
            return _refusal(422, "Validation Failed", "Body is too long (maximum is 65536 characters)")
        refused = self._pull_refused(path, headers, said) if method == "POST" and path.endswith("/pulls") else None
        if _CHECK_RUN.search(path) and method in {"POST", "PATCH"}:
            answer = self._check_run(method, target, headers, said)
        else:
            answer = refused or self.forward(method, target, headers, body)
        return _refusal(422, RULES) if answer.status == 409 and b"Protected branch" in answer.body else answer

    def _check_run(self, method: str, target: str, headers: Mapping[str, str], said: dict[str, Any]) -> Answer:
        with self._lock:
            kept = self._annotations.get(target, [])
            output = said.get("output") or {}
            told = [*kept, *output.get("annotations", [])]
            body = {**said, "output": {**output, "annotations": told}} if output else said
            answer = self.forward(method, target, headers, json.dumps(body).encode())
            if answer.status < 300:
                key = target if method == "PATCH" else f"{target}/{json.loads(answer.body)['id']}"
                self._annotations[key] = told
            return answer

    def _pull_refused(self, path: str, headers: Mapping[str, str], said: dict[str, Any]) -> Answer | None:
        repository, owner = path.removesuffix("/pulls"), path.split("/")[2]
        head = said["head"] if ":" in said["head"] else f"{owner}:{said['head']}"
        if head.startswith(f"{owner}:"):
            branch = quote(head.partition(":")[2])
            if self.forward("GET", f"{repository}/git/ref/heads/{branch}", headers, b"").status == 404:
                return _refusal(422, "Validation Failed", "head is invalid")
        query = f"state=open&head={quote(head)}&base={quote(said['base'])}"
        if _json(self.forward("GET", f"{path}?{query}", headers, b"").body):
            return _refusal(422, "Validation Failed", f"A pull request already exists for {head}.")
        return None

    def _pull_files(self, path: str, headers: Mapping[str, str]) -> Answer:
        def files(repository: str, commit: str) -> set[tuple[str, str]]:
            found = _json(self.forward("GET", f"/repos/{repository}/git/trees/{commit}?recursive=1", headers, b"").body)
            return {(one["path"], one["sha"]) for one in found["tree"] if one["type"] == "blob"}

        pull = _json(self.forward("GET", path.removesuffix("/files"), headers, b"").body)
        base, head = (files(pull[end]["repo"]["full_name"], pull[end]["sha"]) for end in ("base", "head"))
        names = sorted({name for name, _ in base ^ head})
        return Answer(200, json.dumps([{"filename": name, "status": "modified"} for name in names]).encode())

    def _graphql(self, said: dict[str, Any], token: str) -> Answer:
        if "viewer" in said["query"]:
            return Answer(200, json.dumps({"data": {"viewer": {"login": self.logins[token]}}}).encode())
        assert "minimizeComment" in said["query"], said
        if token in self.read_only:
            message = "Resource not accessible by integration"
            return Answer(200, json.dumps({"errors": [{"type": "FORBIDDEN", "message": message}]}).encode())
        values = said["variables"]["input"]
        self.minimised.append((values["subjectId"], values["classifier"]))
        data = {"minimizeComment": {"minimizedComment": {"isMinimized": True}}}
        return Answer(200, json.dumps({"data": data}).encode())

    def forward(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Emulate's own answer; `Host` stays, so that the links to further pages lead here."""
        connection = http.client.HTTPConnection(self.upstream, timeout=30)
        try:
            kept = {name: value for name, value in headers.items() if name.lower() not in _HOP | {"accept-encoding"}}
            connection.request(method, target, body or None, kept)
            answer = connection.getresponse()
            passed = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
            return Answer(answer.status, answer.read(), passed)
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    proxy: GithubProxy
    protocol_version = "HTTP/1.1"
    timeout = 60
    wbufsize = 1 << 16  # head and body in one packet: else each answer waits 40 ms for an acknowledgement
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.proxy.answer(self.command, self.path, dict(self.headers), body)
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in {"date", "server"}:
                self.send_header(name, value)
        if "content-type" not in {name.lower() for name in answer.headers}:
            self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve  # noqa: N815 - the names http.server looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):  # the client gave up: what a test of timeouts wants
            super().handle()


def _refusal(status: int, message: str, *errors: str) -> Answer:
    said = {"message": message, "errors": [{"message": one} for one in errors], "documentation_url": "https://docs"}
    return Answer(status, json.dumps(said).encode())


def _json(body: bytes) -> Any:
    try:
        return json.loads(body) if body else {}
    except ValueError:
        return {}
