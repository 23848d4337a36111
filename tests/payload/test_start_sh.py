"""start.sh: finds a Python, passes over the ones that cannot do it, and speaks for itself where there is none."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from builders import item_row

SHELLS = [shell for shell in ("/bin/sh", "/usr/bin/dash", "/bin/busybox") if shutil.which(shell)]


@pytest.fixture(params=SHELLS)
def shell(request):
    return [request.param, "sh"] if request.param.endswith("busybox") else [request.param]


def only_path(script):
    """start.sh without its absolute candidates: this machine may have one."""
    changed, count = re.subn(
        r"for candidate in .*?; do", "for candidate in python3 python; do", script, flags=re.DOTALL
    )
    assert count == 1
    return changed


def run(deployed, shell, **options):
    deployed.script(only_path)
    env = {"PATH": str(deployed.bin), **options.pop("env", {})}
    request = {"checks": ("python",), "benchmarks": (), **options}
    return deployed.run(command=[*shell, str(deployed.root / "start.sh")], env=env, **request)


def wrapper(interpreter):
    return f'#!/bin/sh\nexec "{interpreter}" "$@"\n'


def test_the_first_python_runs_the_payload(deployed, shell):
    deployed.executable("python3", wrapper(sys.executable))
    result = run(deployed, shell)
    assert result.code == 0
    assert result.statuses() == {"python": "pass"}
    assert result.kinds()[-1] == "done"


def test_without_python_the_shell_reports(deployed, shell):
    result = run(deployed, shell, env={"PATH": f'{deployed.bin}:/a "quoted"\\\\path\twith\nall\x01\u00e9'})
    assert result.code == 0
    assert result.kinds() == ["hello", "plan", "start", *["fact"] * result.kinds().count("fact"), "end", "done"]
    assert result.events[0] == {"event": "hello", "protocol": 1, "python": None}
    assert result.planned() == ["python"]
    end = result.end("python")
    assert (end["status"], end["cause"]) == ("fail", "python-missing")
    assert '/a "quoted"\\\\path\twith\nall?' in end["evidence"]
    assert result.facts()["nvidia_smi"]


def test_without_python_every_candidate_is_named(deployed, shell):
    deployed.executable("python3", "#!/bin/sh\nprintf 'half a line'\nexit 97\n")
    deployed.executable("python", "#!/bin/sh\nexit 1\n")
    result = run(deployed, shell)
    end = result.end("python")
    assert (
        f"tried: {deployed.bin}/python3 (older than 3.7), {deployed.bin}/python (does not start, exit code 1)"
        in end["evidence"]
    )


@pytest.mark.parametrize(
    ("script", "smi", "driver"),
    [
        ("echo 550.54.15", "ok", "550.54.15"),
        ("echo '550.54.15'; echo '550.54.15'", "ok", "550.54.15"),
        ('echo "NVIDIA-SMI has failed because it couldn\'t communicate" >&2; exit 9', None, None),
    ],
)
def test_without_python_nvidia_smi_is_asked(deployed, shell, script, smi, driver):
    deployed.executable("nvidia-smi", f"#!/bin/sh\n{script}\n")
    facts = run(deployed, shell).facts()
    assert facts["nvidia_smi"] == (smi or "NVIDIA-SMI has failed because it couldn't communicate")
    if driver:
        assert facts["driver"] == driver


def test_without_python_a_hanging_nvidia_smi_is_given_up(deployed, shell):
    deployed.executable("nvidia-smi", "#!/bin/sh\nexec /bin/sleep 600\n")
    deployed.executable("sleep", "#!/bin/sh\nexec /bin/sleep 1\n")
    result = run(deployed, shell)
    assert "nvidia-smi did not answer within 20 s" in result.facts()["nvidia_smi"]
    assert result.seconds < 15


@pytest.mark.parametrize("old", ["2.7", "3.6"])
def test_an_old_python_is_passed_over_for_a_newer_one(deployed, shell, pyenv, old):
    deployed.executable("python3", wrapper(pyenv(old)))
    deployed.executable("python", wrapper(pyenv("3.7")))
    result = run(deployed, shell)
    assert result.events[0]["python"].startswith("3.7")
    assert result.statuses() == {"python": "pass"}
    assert b"is too old, 3.7 is needed" in result.stderr


def test_a_python_without_json_is_passed_over(deployed, shell):
    """Debian's python3-minimal."""
    (deployed.site / "minimal").mkdir()
    (deployed.site / "minimal" / "json.py").write_text("raise ImportError('No module named json')")
    deployed.executable("python3", f'#!/bin/sh\nPYTHONPATH={deployed.site}/minimal exec "{sys.executable}" "$@"\n')
    end = run(deployed, shell).end("python")
    assert (end["cause"], "python3 (its standard library is incomplete)" in end["evidence"]) == ("python-missing", True)


def test_a_broken_python_is_passed_over(deployed, shell):
    deployed.executable("python3", "#!/nonexistent/python\n")
    deployed.executable("python", wrapper(sys.executable))
    assert run(deployed, shell).statuses() == {"python": "pass"}


def test_a_payload_that_ends_by_a_signal_is_not_run_twice(deployed, shell):
    deployed.executable("python3", "#!/bin/sh\nkill -9 $$\n")
    deployed.executable("python", wrapper(sys.executable))
    result = run(deployed, shell)
    assert result.code == 137
    assert result.events == []


def test_sigterm_reaches_the_payload(deployed, shell):
    deployed.executable("python3", wrapper(sys.executable))
    deployed.items(
        item_row("slow", "checks_stub:slow", 60),
        checks="import time\ndef slow(context):\n    time.sleep(600)\n",
    )
    deployed.write()
    command = [*shell, str(deployed.root / "start.sh")]
    with subprocess.Popen(command, env=deployed.environment(), stdout=subprocess.PIPE) as process:
        for line in process.stdout:
            if b'"start"' in line:
                break
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
    assert process.returncode == 143
    assert time.monotonic() - started < 3
