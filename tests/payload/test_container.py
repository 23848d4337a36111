"""The container's own limits, accounts and secrets, from fakes that are too small, too open or unreadable."""

from __future__ import annotations

import ctypes
import hashlib

import pytest

from cuda_matrix.payload import checks_container, passwords

GIB, MIB = 1 << 30, 1 << 20
SHM = {"size_gib": 1, "free_gib": 0.0625}
CPU = {"threads_per_quota": 2, "cpus_for_one_thread": 4}
CHECKS = ("container.shm", "container.memlock", "container.root-user", "container.default-password")


@pytest.mark.parametrize(
    ("size", "free", "status"),
    [
        (64 * MIB, 64 * MIB, "warn"),
        (GIB - 1, GIB - 1, "warn"),
        (GIB, GIB, "pass"),
        (8 * GIB, 32 * MIB, "warn"),
        (None, None, "warn"),
    ],
)
def test_shared_memory(size, free, status):
    result = checks_container.judge_shm(size, free, SHM, "No such file or directory")
    assert result["status"] == status
    assert result.get("cause") == ("shm-too-small" if status == "warn" else None)


@pytest.mark.parametrize(
    ("limit", "cards", "status"),
    [(None, 8, "pass"), (8 * MIB, 1, "pass"), (8 * MIB, 2, "warn"), (64 * MIB, 2, "pass"), (64 * 1024, 0, "pass")],
)
def test_lockable_memory(limit, cards, status):
    assert checks_container.judge_memlock(limit, cards, {"limit_mib": 64})["status"] == status


@pytest.mark.parametrize(
    ("cpus", "quota", "threads", "asked", "status"),
    [
        (16, None, 8, None, "pass"),
        (16, 2.0, 4, None, "pass"),
        (16, 2.0, 16, None, "warn"),
        (16, None, 1, None, "warn"),
        (16, None, 1, "1", "pass"),
        (16, 1.0, 1, None, "pass"),
        (2, None, 1, None, "pass"),
    ],
)
def test_threads_against_cpu_time(cpus, quota, threads, asked, status):
    seen = {"cpus": cpus, "quota": quota, "threads": threads, "asked": asked, "openmp": ["libgomp.so.1", "libiomp5.so"]}
    result = checks_container.judge_cpu_quota(seen, CPU)
    assert result["status"] == status
    assert result["numbers"]["openmp_runtimes"] == 2


SAFE = {"weak": [], "tried": 20, "reason": "", "sshd": True, "jupyter": {"/c.py": ""}, "variables": []}


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "pass"),
        ({"weak": ["root"]}, "fail"),
        ({"weak": ["root"], "sshd": False}, "warn"),
        ({"jupyter": {"/c.py": "its token is empty and it has no password"}}, "fail"),
        ({"variables": ["VNC_PW"]}, "warn"),
        ({"reason": "/etc/shadow cannot be read: Permission denied"}, "skip"),
        ({"reason": "this Python and this system have no crypt function"}, "unknown"),
        ({"reason": "/etc/shadow cannot be read: Permission denied", "variables": ["VNC_PW"]}, "warn"),
    ],
)
def test_known_passwords_are_judged_by_who_can_use_them(changes, status):
    assert checks_container.judge_passwords({**SAFE, **changes}, {})["status"] == status


def hashed(word: str) -> str:
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    return crypt(word.encode(), b"$6$abcdefgh$").decode()


def test_accounts_with_a_known_password_are_named(tmp_path):
    shadow = tmp_path / "shadow"
    lines = [
        "root:" + hashed("changeme") + ":19000:0:99999:7:::",
        "alice:" + hashed("alice") + ":19000:0:99999:7:::",
        "bob:" + hashed("a good long secret") + ":19000:0:99999:7:::",
        "nobody:*:19000:0:99999:7:::",
        "daemon:!:19000:0:99999:7:::",
        "open::19000:0:99999:7:::",
    ]
    shadow.write_text("\n".join(lines) + "\n")
    found = passwords.accounts(str(shadow))
    assert (sorted(found.weak), found.tried, found.reason) == (["alice", "open", "root"], 6, "")
    absent = passwords.accounts(str(tmp_path / "absent"))
    assert (absent.weak, absent.reason.endswith("No such file or directory")) == ([], True)


@pytest.mark.parametrize(
    ("name", "text", "open_"),
    [
        ("a.py", "c.ServerApp.token = ''\nc.ServerApp.password = ''\n", True),
        ("a.py", 'c.IdentityProvider.token = ""  # open\n', True),
        ("a.py", "c.NotebookApp.token = 'jupyter'\n", True),
        ("a.py", "# c.ServerApp.token = ''\n", False),
        ("a.py", "c.ServerApp.token = ''\nc.ServerApp.password = 'argon2:x'\n", False),
        ("a.py", "c.ServerApp.token = ''\nc.ServerApp.password = passwd(secret)\n", False),
        ("a.py", "c.ServerApp.token = os.environ['TOKEN']\n", False),
        ("a.py", "c.ServerApp.password = 'sha1:s:" + hashlib.sha1(b"roots").hexdigest() + "'\n", True),
        ("a.py", "c.ServerApp.password = 'sha1:s:" + hashlib.sha1(b"good and longs").hexdigest() + "'\n", False),
        ("a.json", '{"ServerApp": {"token": ""}}', True),
        ("a.json", '{"ServerApp": {"token": "", "password": "argon2:x"}}', False),
        ("a.json", '{"ServerApp": {}}', False),
        ("a.json", "no json", False),
    ],
)
def test_jupyter_configurations_that_let_everybody_in(tmp_path, name, text, open_):
    path = tmp_path / name
    path.write_text(text)
    assert bool(passwords.jupyter_open(str(path))) is open_


def test_a_variable_with_a_known_password_is_named_and_its_value_is_not_shown(deployed):
    deployed.variables.update({"VNC_PW": "toor", "JUPYTER_TOKEN": "a-good-long-secret"})
    run = deployed.run(checks=CHECKS, benchmarks=())
    end = run.end("container.default-password")
    assert end["status"] == "warn"
    assert end["evidence"] == "the variable VNC_PW holds a password that everybody knows"
    assert b"toor" not in run.stdout
    assert b"a-good-long-secret" not in run.stdout
    assert run.end("container.root-user")["status"] == "pass"


def test_an_open_jupyter_fails_that_check_alone(deployed):
    config = deployed.home / ".jupyter"
    config.mkdir()
    good = deployed.run(checks=CHECKS, benchmarks=()).statuses()
    assert good["container.default-password"] in ("pass", "skip")
    (config / "jupyter_server_config.py").write_text("c.ServerApp.token = ''\n")
    bad = deployed.run(checks=CHECKS, benchmarks=()).statuses()
    assert bad == {**good, "container.default-password": "fail"}
