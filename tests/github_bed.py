"""GitHub as a test wants it: `emulate` (npm) behind a proxy of ours, with people, tokens and a fresh repository.

`.ci/run` installs it; by hand:
    npm install --prefix /var/cache/cuda-matrix-ci/emulate emulate@0.11.2 \
        @octokit/openapi@23.0.2 @octokit/graphql-schema@15.26.1
Another folder: CUDA_MATRIX_TEST_EMULATE.

What emulate does otherwise than GitHub is set right in github_proxy; what stays: the head of a pull request is where it
was when it was opened, the annotations of a check run are listed in an envelope, and no commit is ever signed.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from github_proxy import GithubProxy
from registry_bed import free_port

if TYPE_CHECKING:
    from cuda_matrix.adapters.github_client import Clock
    from cuda_matrix.adapters.github_forge import GithubForge

FOLDER = Path(os.environ.get("CUDA_MATRIX_TEST_EMULATE", "/var/cache/cuda-matrix-ci/emulate"))
ORGANISATION = "acme"
BOT = "github-actions"  # the App behind GITHUB_TOKEN; its login is `github-actions[bot]`
_APP_ID, _INSTALLATION = 15368, 1
_PERMISSIONS = ("contents", "pull_requests", "issues", "checks")
# Personal tokens: the owner of the organisation, a developer who may push, a stranger.
OWNER, DEVELOPER, STRANGER = (f"ghp_{name:x<36}" for name in ("olga", "dana", "mallory"))
_PEOPLE = {OWNER: "olga", DEVELOPER: "dana", STRANGER: "mallory"}
_numbers = itertools.count(1)


@dataclass
class Waits:
    """A clock that does not wait; `slept` holds the seconds it was asked for."""

    slept: list[float] = field(default_factory=list)

    def clock(self) -> Clock:
        from cuda_matrix.adapters.github_client import Clock

        return Clock(now=lambda: 1_700_000_000.0, sleep=self.slept.append, chance=lambda: 1.0)


@dataclass
class GithubBed:
    """One repository of its own per test. `url` is what GITHUB_API_URL would say."""

    proxy: GithubProxy
    repository: str
    bot: str  # a token as GITHUB_TOKEN with write permissions
    read_only: str  # as a pull request from a fork gets it
    owner: str = OWNER
    developer: str = DEVELOPER
    stranger: str = STRANGER
    default_branch: str = "main"

    @property
    def url(self) -> str:
        return self.proxy.url

    def forge(self, token: str = "", *, waits: Waits | None = None, api_url: str = "") -> GithubForge:
        """Our adapter for this repository, with the bot's token; it never really waits."""
        from cuda_matrix.adapters.github_client import GithubClient
        from cuda_matrix.adapters.github_forge import GithubForge

        clock = (waits or Waits()).clock()
        client = GithubClient(token or self.bot, api_url=api_url or self.url, clock=clock, pace_s=0)
        return GithubForge(self.repository, client)

    def ask(self, method: str, path: str, body: Any = None, *, token: str = OWNER) -> Any:
        """Emulate's answer, past the proxy: neither counted nor checked nor disturbed. Errors fail the test."""
        status, answer = _ask(self.proxy.upstream, method, path, body, token)
        assert status < 400, f"{method} {path}: {status} {answer}"
        return answer

    def here(self, path: str) -> str:
        return f"/repos/{self.repository}{path}"

    def head(self, branch: str = "main") -> str:
        return str(self.ask("GET", self.here(f"/git/ref/heads/{quote(branch)}"))["object"]["sha"])

    def files(self, commit: str = "main") -> dict[str, bytes]:
        """Every file of a branch or commit."""
        sha = commit if len(commit) == 40 else self.head(commit)
        tree = self.ask("GET", self.here(f"/git/trees/{sha}?recursive=1"))["tree"]
        return {
            one["path"]: base64.b64decode(self.ask("GET", self.here(f"/git/blobs/{one['sha']}"))["content"])
            for one in tree
            if one["type"] == "blob"
        }

    def commits(self, branch: str = "main") -> list[dict[str, Any]]:
        """First parents, newest first, as the Git Data API shows them."""
        found, sha = [], self.head(branch)
        while sha:
            found.append(self.ask("GET", self.here(f"/git/commits/{sha}")))
            sha = next((one["sha"] for one in found[-1]["parents"]), "")
        return found

    def push(self, files: Mapping[str, str], branch: str = "main", *, repository: str = "", token: str = OWNER) -> str:
        """What somebody else commits meanwhile; a branch that is not there is made at `main`."""
        root = f"/repos/{repository or self.repository}"
        refs = {one["ref"]: one["object"]["sha"] for one in self.ask("GET", f"{root}/git/matching-refs/heads/")}
        parent = refs.get(f"refs/heads/{branch}") or refs["refs/heads/main"]
        base = self.ask("GET", f"{root}/git/commits/{parent}")["tree"]["sha"]
        entries = [{"path": p, "mode": "100644", "type": "blob", "content": text} for p, text in files.items()]
        tree = self.ask("POST", f"{root}/git/trees", {"base_tree": base, "tree": entries}, token=token)["sha"]
        body = {"message": f"by somebody else: {', '.join(files)}", "tree": tree, "parents": [parent]}
        commit = str(self.ask("POST", f"{root}/git/commits", body, token=token)["sha"])
        if f"refs/heads/{branch}" in refs:
            self.ask("PATCH", f"{root}/git/refs/heads/{quote(branch)}", {"sha": commit}, token=token)
        else:
            self.ask("POST", f"{root}/git/refs", {"ref": f"refs/heads/{branch}", "sha": commit}, token=token)
        return commit

    def pull(self, branch: str = "work", *, files: Mapping[str, str] | None = None) -> int:
        """The number of a pull request from a branch of this repository."""
        self.push(files or {f"{branch}.txt": "work\n"}, branch)
        body = {"title": f"Pull {branch}", "head": branch, "base": "main"}
        return int(self.ask("POST", self.here("/pulls"), body)["number"])

    def fork_pull(self, branch: str = "work") -> tuple[int, str, str]:
        """A pull request from a stranger's fork: number, repository of the fork, head commit."""
        fork = self.ask("POST", self.here("/forks"), {}, token=self.stranger)["full_name"]
        head = self.push({"evil.txt": "from outside\n"}, branch, repository=fork, token=self.stranger)
        body = {"title": "From a fork", "head": f"{fork.split('/')[0]}:{branch}", "base": "main"}
        return int(self.ask("POST", self.here("/pulls"), body, token=self.stranger)["number"]), fork, head

    def comment(self, pull: int, body: str, *, token: str = DEVELOPER) -> dict[str, Any]:
        answer: dict[str, Any] = self.ask("POST", self.here(f"/issues/{pull}/comments"), {"body": body}, token=token)
        return answer

    def comments(self, pull: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            path = f"/issues/{pull}/comments?per_page=100&page={len(found) // 100 + 1}"
            page = self.ask("GET", self.here(path))
            found += page
            if len(page) < 100:
                return found

    def protect(self, branch: str = "main", *, check: str = "") -> None:
        """Changes only through a pull request; or only with a check of this name."""
        rules: dict[str, Any] = {"enforce_admins": True, "restrictions": None, "required_pull_request_reviews": None}
        rules["required_status_checks"] = {"strict": False, "contexts": [check]} if check else None
        if not check:
            rules["required_pull_request_reviews"] = {"required_approving_review_count": 1}
        self.ask("PUT", self.here(f"/branches/{quote(branch)}/protection"), rules)

    def check_runs(self, sha: str) -> list[dict[str, Any]]:
        runs: list[dict[str, Any]] = self.ask("GET", self.here(f"/commits/{sha}/check-runs?filter=all"))["check_runs"]
        return runs

    def annotations(self, check: int) -> list[dict[str, Any]]:
        """Every page of them."""
        found: list[dict[str, Any]] = []
        while True:
            path = f"/check-runs/{check}/annotations?per_page=100&page={len(found) // 100 + 1}"
            page = self.ask("GET", self.here(path))["check_annotations"]
            found += page
            if len(page) < 100:
                return found


def installation_token(upstream: str, key: str, level: str) -> str:
    """A token of the App, with this level (`write`, `read`) of what the reports need."""
    import jwt  # comes with PyGithub

    now = int(time.time())
    signed = jwt.encode({"iat": now - 60, "exp": now + 300, "iss": str(_APP_ID)}, key, algorithm="RS256")
    path = f"/app/installations/{_INSTALLATION}/access_tokens"
    body = {"permissions": dict.fromkeys(_PERMISSIONS, level)}
    status, answer = _ask(upstream, "POST", path, body, signed)
    assert status == 201, answer
    return str(answer["token"])


def _seed(key: str) -> dict[str, Any]:
    permissions = dict.fromkeys(_PERMISSIONS, "write")
    installation = {"installation_id": _INSTALLATION, "account": ORGANISATION, "repository_selection": "all"}
    app = {"app_id": _APP_ID, "slug": BOT, "name": "GitHub Actions", "private_key": key, "permissions": permissions}
    return {
        "tokens": {token: {"login": login, "scopes": ["repo"]} for token, login in _PEOPLE.items()},
        "github": {
            "users": [{"login": login, "email": f"{login}@example.org"} for login in _PEOPLE.values()],
            "orgs": [{"login": ORGANISATION, "members": [{"login": "olga", "role": "admin"}]}],
            "apps": [{**app, "installations": [installation]}],
        },
    }


@contextmanager
def serving_github(folder: Path) -> Iterator[tuple[GithubProxy, str, str]]:
    """The proxy before a GitHub without repositories, and tokens of its bot: one that writes, one that reads."""
    from github_openapi import github_openapi

    folder.mkdir(parents=True, exist_ok=True)
    command = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
    key = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seed, port = folder / "seed.json", free_port()
    seed.write_text(json.dumps(_seed(key)))
    program = FOLDER / "node_modules/emulate/dist/index.js"
    proxy = GithubProxy(github_openapi(FOLDER).complaints)
    arguments = ["node", str(program), "start", "--service", "github", "--port", str(port), "--seed", str(seed)]
    arguments += ["--base-url", proxy.url]
    with (folder / "emulate.log").open("w") as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        proxy.upstream = _wait_for(port, process, folder / "emulate.log")
        bot, read_only = (installation_token(proxy.upstream, key, level) for level in ("write", "read"))
        proxy.logins = {**_PEOPLE, bot: f"{BOT}[bot]", read_only: f"{BOT}[bot]"}
        proxy.read_only = {read_only}
        yield proxy, bot, read_only
    finally:
        proxy.close()
        process.terminate()
        process.wait(20)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> str:
    deadline = time.monotonic() + seconds
    while True:
        for host in ("127.0.0.1", "[::1]"):
            try:
                _ask(f"{host}:{port}", "GET", "/meta", None, OWNER)
            except OSError:
                continue
            return f"{host}:{port}"
        assert process.poll() is None, f"emulate ended: {log.read_text()[-2000:]}"
        assert time.monotonic() < deadline, f"emulate did not answer on {port}: {log.read_text()[-2000:]}"
        time.sleep(0.1)


def _ask(upstream: str, method: str, path: str, body: Any, token: str) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://{upstream}{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
            return answer.status, json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(errors="replace")


def missing_parts() -> str:
    """Why GitHub cannot be emulated here, and how to get what is missing; empty where it can."""
    if shutil.which("node") is None:
        return "no Node.js (20 or newer): apt-get install nodejs npm"
    from github_openapi import DESCRIPTION, GRAPHQL_SCHEMA

    for part in ("node_modules/emulate/dist/index.js", DESCRIPTION, GRAPHQL_SCHEMA):
        if not (FOLDER / part).is_file():
            wanted = "emulate@0.11.2 @octokit/openapi@23.0.2 @octokit/graphql-schema@15.26.1"
            return f"no {part}: npm install --prefix {FOLDER} {wanted} (another folder: CUDA_MATRIX_TEST_EMULATE)"
    return ""


@pytest.fixture(scope="session")
def emulated_github(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GithubProxy, str, str]]:
    """One process for all tests of a worker."""
    missing = missing_parts()
    if missing:
        pytest.skip(missing)
    with serving_github(tmp_path_factory.mktemp("github")) as served:
        yield served


@pytest.fixture
def github_bed(emulated_github: tuple[GithubProxy, str, str]) -> Iterator[GithubBed]:
    """A fresh public repository with one commit; at the end every request of the test must have been valid."""
    proxy, bot, read_only = emulated_github
    proxy.reset()
    name = f"images-{next(_numbers)}"
    bed = GithubBed(proxy, f"{ORGANISATION}/{name}", bot, read_only)
    bed.ask("POST", f"/orgs/{ORGANISATION}/repos", {"name": name, "auto_init": True})
    bed.ask("PUT", bed.here("/collaborators/dana"), {"permission": "push"})
    yield bed
    assert not proxy.complaints, "\n".join(proxy.complaints)
