"""The local engine: this host's interpreter, in a process group of its own, without the runner's secrets."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from builders import make_image, make_runner
from cuda_matrix import protocol
from cuda_matrix.adapters.local_engine import LocalEngine, find_python
from cuda_matrix.config import ContainerOptions
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.execute import Job
from cuda_matrix.plan import PlannedCell

PATH = os.environ["PATH"]


def job(script: str, **env: str) -> Job:
    request = protocol.Request(
        marker="0" * 32, profile="smoke", checks=(), benchmarks=(), gpu_required=False, expect={}, limit_s=60
    )
    return Job(
        cell=PlannedCell(id="a@b", image="a", runner="b", lane=0),
        image=make_image("a", env=env),
        runner=make_runner("b", gpu=None),
        container=ContainerOptions(),
        request=request,
        files={"__main__.py": script.encode(), "package/module.py": b"WHO = 'module'"},
        limit_s=60,
        demand_sha256="",
    )


def run(script: str, environ: dict[str, str] | None = None, **env: str) -> tuple[str, str, int | None, int | None]:
    engine = LocalEngine(sys.executable, environ or {"PATH": PATH})
    with engine.launch(job(script, **env), lambda _: None) as session:
        chunks = list(session.chunks())
        exit_ = session.wait()
    out, err = (b"".join(data for channel, data in chunks if channel == name).decode() for name in ("stdout", "stderr"))
    return out, err, exit_.code, exit_.signal


def test_output_exit_code_and_files() -> None:
    script = "import sys; from package.module import WHO; print(WHO); print('e', file=sys.stderr); sys.exit(3)"
    out, err, code, signal = run(script)
    assert (out, err, code, signal) == ("module\n", "e\n", 3, None)


def test_death_by_signal() -> None:
    assert run("import os; os.kill(os.getpid(), 11)")[2:] == (-11, 11)


def test_secrets_of_the_runner_do_not_reach_the_payload() -> None:
    kept = {"PATH": PATH, "LD_LIBRARY_PATH": "/cuda", "CUDA_HOME": "/c"}
    environ = {**kept, "GITHUB_TOKEN": "t", "ACTIONS_RUNTIME_TOKEN": "t"}
    out, *_ = run("import os, json; print(sorted(os.environ))", environ, EXTRA="1")
    assert "TOKEN" not in out
    assert all(name in out for name in ("LD_LIBRARY_PATH", "CUDA_HOME", "EXTRA", "PATH"))


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    engine = LocalEngine(sys.executable, {"PATH": PATH, "TMPDIR": str(tmp_path)})
    script = (
        "import subprocess, time; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); time.sleep(600)"
    )
    with engine.launch(job(script), lambda _: None) as session:
        _, data = next(session.chunks())
        grandchild = int(data)
        assert Path(f"/proc/{grandchild}").exists()
    deadline = time.monotonic() + 5
    while _alive(grandchild) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(grandchild)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_grandchild_that_holds_the_pipe_does_not_hold_the_cell() -> None:
    begin = time.monotonic()
    out, *_ = run("import subprocess; subprocess.Popen(['sleep', '30'], start_new_session=True); print('done')")
    assert out == "done\n"
    assert time.monotonic() - begin < 10


def test_python_that_does_not_exist() -> None:
    with pytest.raises(ConfigurationError, match="not a program"):
        LocalEngine("/nowhere/python3", {"PATH": PATH})


def fake_python(folder: Path, name: str, *, has_torch: bool) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\nexit {0 if has_torch else 1}\n")
    path.chmod(0o755)
    return path


def test_the_first_interpreter_with_torch_is_chosen(tmp_path: Path) -> None:
    fake_python(tmp_path / "one", "python3", has_torch=False)
    wanted = fake_python(tmp_path / "two", "python", has_torch=True)
    assert find_python({"PATH": f"{tmp_path / 'one'}:{tmp_path / 'two'}"}) == str(wanted)


def test_without_torch_the_active_environment_comes_first(tmp_path: Path) -> None:
    fake_python(tmp_path / "system", "python3", has_torch=False)
    active = fake_python(tmp_path / "venv/bin", "python3", has_torch=False)
    assert find_python({"PATH": str(tmp_path / "system"), "VIRTUAL_ENV": str(tmp_path / "venv")}) == str(active)


def test_no_interpreter_at_all(tmp_path: Path) -> None:
    assert find_python({"PATH": str(tmp_path)}) is None
