"""Jupyter and sshd as images start them: stand-ins that answer, that let everybody in, that die, and that hang."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from cuda_matrix.payload import checks_services

JUPYTER = """#!{python}
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
port = [int(each.partition("=")[2]) for each in sys.argv if each.startswith("--port=")][0]
assert "--ip=127.0.0.1" in sys.argv
token = os.environ["JUPYTER_TOKEN"]
open(os.path.join(os.environ["HOME"], "pid"), "w").write(str(os.getpid()))
print("http://127.0.0.1/lab?token=" + token, flush=True)
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        given = self.headers.get("Authorization", "").partition(" ")[2]
        status = 200 if ALLOWED else 403
        if self.path == "/lab" and status == 200:
            status = PAGE
        self.send_response(status)
        self.end_headers()
    def log_message(self, *args): pass
START
HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def jupyter(deployed):
    """A function that installs a stand-in for JupyterLab and runs its check; it must not outlive the run."""

    def run(allowed="given == token", page="200", start=""):
        script = JUPYTER.replace("ALLOWED", allowed).replace("PAGE", page).replace("START", start)
        deployed.executable("jupyter-lab", script.format(python=sys.executable))
        done = deployed.run(checks=("services.*", "python"), benchmarks=(), profile="full", limit_s=40.0)
        assert done.end("python")["status"] == "pass"
        assert done.end("services.ssh")["status"] in ("skip", "pass", "warn", "unknown")
        pid = deployed.home / "pid"
        if pid.exists():
            assert not Path(f"/proc/{pid.read_text()}").exists()
        return done

    return run


def test_a_jupyter_that_asks_for_its_token_passes(jupyter):
    run = jupyter()
    end = run.end("services.jupyter")
    assert end["status"] == "pass"
    assert (end["numbers"]["status_without_token"], end["numbers"]["status_with_token"]) == (403, 200)
    assert "token=…" in end["log"]


@pytest.mark.parametrize(
    ("changes", "summary"),
    [
        ({"allowed": "True"}, "lets in everybody"),
        ({"allowed": "given in (token, 'jupyter')"}, "a token that everybody knows"),
        ({"page": "500"}, "page does not (status 500)"),
        ({"start": "raise SystemExit('OSError: the directory cannot be written')"}, "ended before it answered"),
    ],
)
def test_a_jupyter_that_is_broken_or_open_fails(jupyter, changes, summary):
    end = jupyter(**changes).end("services.jupyter")
    assert end["status"] == "fail"
    assert summary in end["summary"]
    assert end["evidence"]


def test_a_jupyter_with_its_own_secret_passes(jupyter):
    end = jupyter(allowed="given == 'its own'").end("services.jupyter")
    assert end["status"] == "pass"
    assert "its own secret" in end["summary"]


def test_a_jupyter_that_hangs_fails_within_its_time_and_is_killed(deployed):
    deployed.executable("jupyter-lab", "#!/bin/sh\ntrap '' TERM\necho $$ > $HOME/pid\nwhile :; do sleep 1; done\n")
    context = type("Context", (), {"limit_s": 10.0, "thresholds": {}})()
    before = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{deployed.bin}:/usr/bin:/bin")
        patch.setenv("HOME", str(deployed.home))
        end = checks_services.jupyter(context)
    assert (end["status"], end["summary"]) == ("fail", "JupyterLab gave no answer on its port")
    assert time.monotonic() - before < 20
    assert not Path("/proc", (deployed.home / "pid").read_text().strip()).exists()


SSHD = """#!{python}
import os, socket, sys
if "-T" in sys.argv:
    print("passwordauthentication yes\\npermitrootlogin PERMIT\\npermitemptypasswords no")
    sys.exit(0)
START
listener = socket.socket()
listener.bind(("127.0.0.1", int(sys.argv[sys.argv.index("-p") + 1])))
listener.listen()
while True:
    connection, _ = listener.accept()
    connection.sendall(b"BANNER\\r\\n")
    connection.close()
"""


@pytest.mark.parametrize(
    ("changes", "statuses"),
    [
        ({}, ("pass", "unknown")),
        ({"PERMIT": "yes"}, ("warn", "unknown")),
        ({"BANNER": "HTTP/1.1 400"}, ("fail", "unknown")),
        ({"START": "sys.exit('sshd: no hostkeys available -- exiting.')"}, ("fail", "unknown")),
    ],
)
def test_sshd(deployed, changes, statuses):
    values = {"PERMIT": "no", "START": "", "BANNER": "SSH-2.0-Stand_in", **changes}
    script = SSHD
    for name, value in values.items():
        script = script.replace(name, value)
    deployed.executable("sshd", script.format(python=sys.executable))
    run = deployed.run(checks=("services.ssh", "python"), benchmarks=(), profile="full")
    assert run.end("python")["status"] == "pass"
    end = run.end("services.ssh")
    assert end["status"] in statuses  # whoever runs the tests may not be root
    if "START" in changes:
        assert "no hostkeys available" in end["evidence"]
    if not changes:
        assert end["numbers"]["banner"] == "SSH-2.0-Stand_in"


SSH = {
    "banner": "SSH-2.0-OpenSSH_9.2", "passwordauthentication": "yes", "permitrootlogin": "without-password",
    "permitemptypasswords": "no", "weak": [], "accounts_unread": "", "user": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "pass"),
        ({"weak": ["alice"]}, "fail"),
        ({"weak": ["root"]}, "pass"),
        ({"weak": ["root"], "permitrootlogin": "yes"}, "fail"),
        ({"weak": ["alice"], "passwordauthentication": "no"}, "pass"),
        ({"permitrootlogin": "yes"}, "warn"),
        ({"accounts_unread": "/etc/shadow cannot be read"}, "unknown"),
        ({"banner": None}, "fail"),
        ({"banner": None, "user": 1000}, "unknown"),
    ],
)
def test_whom_sshd_lets_in(changes, status):
    assert checks_services.judge_ssh({**SSH, **changes}, "", {})["status"] == status


def test_services_that_are_not_there_are_skipped(deployed):
    deployed.executable("nothing", "#!/bin/sh\n")
    run = deployed.run(checks=("services.jupyter",), benchmarks=(), profile="full")
    assert run.end("services.jupyter")["status"] == "skip"
