"""Owns the checks services.*: Jupyter and sshd are started on a free loopback port, answer, and let nobody in for free.

What is started stays in this child's process group, which is killed when the check ends. Must not leave files behind.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from . import passwords, scratch
from .context import failed, passed, skipped, unknown, warned

LOOPBACK = "127.0.0.1"
_RESERVE_S = 8.0  # of the item's limit, to stop what was started and to report
_STOP_S = 3.0
_SSH_PLACES = ":/usr/sbin:/usr/local/sbin:/sbin"


class Server:
    """A program that was started on a port, with its output in a file that has no name."""

    def __init__(self, argv, environment=None):
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop()
        self.process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT, env=environment
        )

    def ended(self):
        """Whether it has ended by itself."""
        return self.process.poll() is not None

    def output(self) -> str:
        """What it has printed, without the query of any address: a token may stand there."""
        self._log.seek(0)
        text = self._log.read(1 << 16).decode("utf-8", "replace")
        return re.sub(r"(token=)[^\s&'\"]+", r"\1…", text)

    def stop(self) -> None:
        """End it, politely first."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.ended():
                break
            self.process.send_signal(number)
            try:
                self.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                continue
        self._log.close()


def free_port() -> int:
    """A loopback port that nobody has at the moment."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return listener.getsockname()[1]


def jupyter(context):
    """`jupyter lab` with the image's own configuration and a random token; asked with it and without."""
    program = shutil.which("jupyter-lab")
    if program is None:
        return skipped("there is no JupyterLab here")
    with scratch.Folder("jupyter") as folder:  # for what it writes while it runs: cookies, its own address
        seen, output = _ask_jupyter(program, folder, context.limit_s - _RESERVE_S)
    seen["open_files"] = {path: passwords.jupyter_open(path) for path in passwords.jupyter_files(os.environ)}
    return judge_jupyter(seen, output, context.thresholds)


def _ask_jupyter(program, directory, limit_s):
    """Start it, ask it, stop it: what it answered, and what it printed."""
    token, port = os.urandom(16).hex(), free_port()
    argv = [program, "--no-browser", f"--ip={LOOPBACK}", f"--port={port}", "--allow-root"]
    started = time.monotonic()
    steered = {"JUPYTER_TOKEN": token, "JUPYTER_PORT_RETRIES": "0", "JUPYTER_RUNTIME_DIR": directory}
    server = Server(argv, {**os.environ, **steered})
    try:
        status = _wait_for(server, lambda: http_status(port), started + limit_s)
        seen = {"status_without": status, "status_with": None, "start_s": round(time.monotonic() - started, 1)}
        if status is not None:
            seen["status_with"] = http_status(port, token)
            seen["page"] = http_status(port, token, "/lab")
            seen["known"] = any(http_status(port, word) == _OK for word in passwords.KNOWN if word)
        seen["ended"] = server.ended()
        output = server.output()
    finally:
        server.stop()
    return seen, output


_OK = 200


def http_status(port: int, token: str = "", page: str = "/api/status"):
    """The HTTP status of a page; /api/status is one that only the admitted may see. None where nobody answers."""
    import http.client

    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5.0)
    try:
        connection.request("GET", page, headers={"Authorization": "token " + token} if token else {})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _wait_for(server, look, until):
    """Ask again and again until there is an answer, the server has ended, or the time is up."""
    while time.monotonic() < until and not server.ended():
        answer = look()
        if answer is not None:
            return answer
        time.sleep(0.2)
    return None


def judge_jupyter(seen, output, thresholds):
    """No answer fails; an answer for somebody without a token, or with a known one, fails too."""
    opened = [f"{path}: {why}" for path, why in sorted(seen["open_files"].items()) if why]
    numbers = {
        "status_without_token": seen["status_without"],
        "status_with_token": seen["status_with"],
        "status_of_page": seen.get("page"),
        "start_s": seen["start_s"],
        "open_configurations": len(opened),
    }
    keys = {"numbers": numbers, "thresholds": thresholds, "log": output}
    if seen["status_without"] is None:
        text = "JupyterLab ended before it answered" if seen["ended"] else "JupyterLab gave no answer on its port"
        return failed(text, evidence=last_error(output), **keys)
    complaint = _admits(seen, opened)
    if complaint:
        return failed(complaint, evidence="\n".join([complaint, *opened]), **keys)
    if seen["status_with"] == _OK and seen["page"] != _OK:
        text = f"the server answers, but JupyterLab's page does not (status {seen['page']})"
        return failed(text, evidence=last_error(output) or text, **keys)
    if seen["status_with"] == _OK:
        return passed("answers on its port, and asks for its token", **keys)
    text = f"answers on its port, and refuses the token that it was given (status {seen['status_with']})"
    if seen["status_with"] in (401, 403):
        return passed(text + ": the image's configuration sets its own secret", **keys)
    return warned(text, evidence=text, **keys)


def _admits(seen, opened) -> str:
    """How somebody gets in who was told no secret, or ""."""
    if seen["status_without"] == _OK:
        return "JupyterLab lets in everybody: the image's configuration asks for no token and no password"
    if seen.get("known"):
        return "JupyterLab lets in whoever uses a token that everybody knows"
    return "JupyterLab has a password or a token that everybody knows" if opened else ""


def ssh(context):
    """Sshd with the image's own configuration, on a loopback port: its banner, and whom it lets in."""
    path = os.environ.get("PATH", "") + _SSH_PLACES
    program = shutil.which("sshd", path=path)
    if program is None:
        return skipped("there is no sshd here")
    with scratch.Folder("ssh") as folder:
        seen, output = _start_sshd(program, path, folder, time.monotonic() + context.limit_s - _RESERVE_S)
    accounts = passwords.accounts()
    seen.update(weak=accounts.weak, accounts_unread=accounts.reason, user=os.geteuid())
    return judge_ssh(seen, output, context.thresholds)


def _start_sshd(program, path, directory, until):
    """A host key of our own: most images make theirs at the first start, as they make /run/sshd."""
    key, port = os.path.join(directory, "key"), free_port()
    keygen = shutil.which("ssh-keygen", path=path)
    if keygen is not None:
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", key], check=False, timeout=20)
    options = ["-h", key] if os.path.exists(key) else []
    made = _make_run_directory()
    try:
        settings = _ssh_settings(program, options)
        argv = [program, "-D", "-e", "-p", str(port), "-o", f"ListenAddress={LOOPBACK}", "-o", "PidFile=none", *options]
        server = Server(argv)
        try:
            banner = _wait_for(server, lambda: banner_of(port), until)
            ended, output = server.ended(), server.output()
        finally:
            server.stop()
    finally:
        if made:
            os.rmdir("/run/sshd")
    return {"banner": banner, "ended": ended, **settings}, output


def _make_run_directory():
    """Whether /run/sshd was made here: start scripts make it, the image need not have it."""
    try:
        os.mkdir("/run/sshd", 0o755)
    except OSError:
        return False
    return True


def _ssh_settings(program, options):
    """The settings in force, as `sshd -T` prints them."""
    done = subprocess.run(
        [program, "-T", *options], check=False, timeout=20, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    found = dict(re.findall(r"^(\w+) (\S+)$", done.stdout.decode("utf-8", "replace"), re.MULTILINE))
    names = ("passwordauthentication", "permitrootlogin", "permitemptypasswords")
    return {name: found.get(name) for name in names}


def banner_of(port: int):
    """The first line that a server on a loopback port says; None where nobody answers."""
    try:
        with socket.create_connection((LOOPBACK, port), 2.0) as connection:
            connection.settimeout(2.0)
            return connection.recv(256).decode("ascii", "replace").strip() or None
    except OSError:
        return None


def judge_ssh(seen, output, thresholds):
    """A banner is the proof that it runs; then nobody may get in with a known password."""
    names = ("banner", "passwordauthentication", "permitrootlogin", "permitemptypasswords")
    numbers = {name: seen[name] for name in names}
    numbers["weak_accounts"] = len(seen["weak"])
    keys = {"numbers": numbers, "thresholds": thresholds, "log": output}
    if not (seen["banner"] or "").startswith("SSH-"):
        evidence = last_error(output) or f"answered {seen['banner']!r}"
        if seen["user"] != 0:
            return unknown("sshd does not start for a user that is not root", evidence=evidence, **keys)
        return failed("sshd does not start with the image's configuration", evidence=evidence, **keys)
    by_password = seen["passwordauthentication"] == "yes"
    weak = [name for name in seen["weak"] if name != "root" or seen["permitrootlogin"] == "yes"]
    if by_password and weak:
        text = "sshd lets in {} with a password that everybody knows".format(", ".join(weak))
        return failed(text, evidence=text, **keys)
    if by_password and seen["accounts_unread"]:
        return unknown("sshd answers; the accounts were not compared: " + seen["accounts_unread"], **keys)
    if by_password and seen["permitrootlogin"] == "yes":
        text = "sshd answers, and takes a password from root"
        return warned(text, evidence="passwordauthentication yes, permitrootlogin yes", **keys)
    return passed("answers on its port: {banner}".format(**seen), **keys)


def last_error(output: str) -> str:
    """The last line that speaks of an error, else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [
        line
        for line in lines
        if re.search(r"error|fatal|cannot|could not|no such|missing|bad |not found", line, re.IGNORECASE)
    ]
    return (errors or lines or [""])[-1]
