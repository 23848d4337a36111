"""The composite action's scripts, run as the runner would: inputs by environment, outputs by file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DEFAULTS = {
    f"INPUT_{name.upper().replace('-', '_')}": str(spec.get("default", ""))
    for name, spec in yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))["inputs"].items()
}
FLEET = """
version: 1
images: [{id: torch2.2.0-cu118, ref: "example.org/torch:1"}, {id: torch2.2.0-cu121, ref: "example.org/torch:2"}]
runners: {rtx3090: {labels: [x], gpu: RTX 3090}, a800: {labels: [y], gpu: A800}}
"""


def action(folder: Path, **inputs: str) -> tuple[subprocess.CompletedProcess[str], dict[str, str], str]:
    """Run main.sh in `folder`; returns the process, its outputs, and the job summary."""
    (folder / "cuda-matrix.yml").write_text(FLEET)
    output, summary = folder / "output", folder / "summary"
    output.write_text("")
    summary.write_text("")
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GITHUB_OUTPUT": str(output),
        "GITHUB_STEP_SUMMARY": str(summary),
        "CUDA_MATRIX_PYTHON": sys.executable,
        "DOCKER_HOST": "unix:///nowhere/docker.sock",
        **DEFAULTS,
        **{f"INPUT_{name.upper()}": value for name, value in inputs.items()},
    }
    script = ["bash", str(ROOT / "action/main.sh")]
    done = subprocess.run(script, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=120)
    return done, parse_outputs(output.read_text(encoding="utf-8")), summary.read_text(encoding="utf-8")


def parse_outputs(text: str) -> dict[str, str]:
    """As the runner reads it: `name<<DELIMITER`, lines, `DELIMITER`."""
    outputs, lines = {}, iter(text.splitlines())
    for line in lines:
        name, delimiter = line.split("<<")
        assert len(delimiter) > 20
        values = []
        while (value := next(lines)) != delimiter:
            values.append(value)
        outputs[name] = "\n".join(values)
    return outputs


def test_plan_gives_the_job_matrix(tmp_path: Path) -> None:
    done, outputs, _ = action(tmp_path, mode="plan", offline="true")
    assert done.returncode == 0, done.stderr
    lanes = json.loads(outputs["matrix"])["include"]
    assert outputs["lanes"] == "2"
    assert [lane["runner"] for lane in lanes] == ["rtx3090", "a800"]
    assert json.loads(lanes[0]["labels"]) == ["x"]
    assert (tmp_path / outputs["plan"]).is_file()


def test_the_three_modes_one_after_the_other(tmp_path: Path) -> None:
    action(tmp_path, mode="plan", offline="true")
    for lane in ("0", "1"):
        done, outputs, _ = action(tmp_path, mode="run", lane=lane, engine="simulated")
        assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / outputs["results"]).iterdir()} == {
        "plan.json",
        "torch2.2.0-cu118@a800.json",
        "torch2.2.0-cu118@rtx3090.json",
        "torch2.2.0-cu121@a800.json",
        "torch2.2.0-cu121@rtx3090.json",
    }
    done, outputs, summary = action(tmp_path, mode="report")
    assert done.returncode == 1
    assert outputs["verdict"] == "no"
    assert summary == (tmp_path / outputs["report"] / "report.md").read_text(encoding="utf-8")
    assert "driver-too-old" in summary
    assert "driver-too-old" in done.stdout


def test_a_lane_that_never_ran_is_not_run_and_the_job_is_red(tmp_path: Path) -> None:
    action(tmp_path, mode="plan", offline="true", select="torch2.2.0-cu118@*")
    action(tmp_path, mode="run", lane="0", engine="simulated")
    done, outputs, summary = action(tmp_path, mode="report")
    assert (done.returncode, outputs["verdict"]) == (1, "no")
    assert "not run" in summary


@pytest.mark.parametrize(("gate", "code"), [("true", 1), ("false", 0)])
def test_all_reports_what_ran_and_ends_by_the_gate(tmp_path: Path, gate: str, code: int) -> None:
    done, outputs, summary = action(tmp_path, mode="all", offline="true", engine="simulated", gate=gate)
    assert done.returncode == code
    assert outputs["verdict"] == "no"
    assert "A800" in summary


def test_all_is_green_when_everything_is(tmp_path: Path) -> None:
    done, outputs, _ = action(tmp_path, mode="all", offline="true", engine="simulated", select="*@rtx3090")
    assert (done.returncode, outputs["verdict"]) == (0, "yes")


def test_what_cells_print_cannot_command_the_runner(tmp_path: Path) -> None:
    action(tmp_path, mode="plan", offline="true")
    done, *_ = action(tmp_path, mode="run", engine="simulated")
    lines = done.stdout.splitlines()
    token = lines[0].removeprefix("::stop-commands::")
    assert len(token) > 30
    assert lines[-1] == f"::{token}::"


@pytest.mark.parametrize(
    "inputs",
    [
        {"mode": "plan", "select": "$(touch forged)\n`touch forged`"},
        {"mode": "plan", "config": "; touch forged"},
        {"mode": "$(touch forged)"},
        {"mode": "run", "lane": "0; touch forged"},
    ],
)
def test_an_input_is_never_code(tmp_path: Path, inputs: dict[str, str]) -> None:
    done, *_ = action(tmp_path, offline="true", **inputs)
    assert done.returncode == 2
    assert not (tmp_path / "forged").exists()


@pytest.mark.parametrize("gate", ["True", "yes", "0", ""])
def test_the_gate_is_switched_off_by_false_alone(tmp_path: Path, gate: str) -> None:
    done, outputs, _ = action(tmp_path, mode="all", offline="true", engine="simulated", gate=gate)
    assert done.returncode in {1, 2}
    assert outputs.get("verdict") in {"no", None}


def test_results_of_an_earlier_run_release_nothing_when_this_one_cannot_run(tmp_path: Path) -> None:
    good = {"mode": "all", "offline": "true", "select": "*@rtx3090"}
    assert action(tmp_path, engine="simulated", **good)[1]["verdict"] == "yes"
    done, outputs, summary = action(tmp_path, engine="docker", **good)  # no Docker at DOCKER_HOST
    assert done.returncode == 3
    assert outputs["verdict"] == "no"
    assert "not run" in summary


def test_an_option_is_no_folder(tmp_path: Path) -> None:
    done, outputs, _ = action(tmp_path, mode="report", results="--help")
    assert done.returncode == 2
    assert "verdict" not in outputs


def test_modules_of_the_checked_out_repository_are_not_ours(tmp_path: Path) -> None:
    for name in ("click", "json", "secrets", "cuda_matrix"):
        (tmp_path / f"{name}.py").write_text("open('forged', 'w').close()")
    done, *_ = action(tmp_path, mode="plan", offline="true")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "forged").exists()


def test_a_cancelled_step_passes_the_signal_on(tmp_path: Path) -> None:
    (tmp_path / "cuda-matrix.yml").write_text(FLEET)
    sleeper = tmp_path / "bin/python3"
    sleeper.parent.mkdir()
    sleeper.write_text(f"#!/bin/sh\n[ $1 != -c ] || exit 1\n: > {tmp_path}/running\nexec sleep 600\n")
    sleeper.chmod(0o755)
    action(tmp_path, mode="plan", offline="true")
    environ = {
        **DEFAULTS,
        "PATH": f"{sleeper.parent}:{os.environ['PATH']}",
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "CUDA_MATRIX_PYTHON": sys.executable,
        "INPUT_MODE": "run",
        "INPUT_ENGINE": "local",
    }
    script = ["bash", str(ROOT / "action/main.sh")]
    with subprocess.Popen(script, cwd=tmp_path, env=environ, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 30
        while not (tmp_path / "running").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert list(tmp_path.glob("cuda-matrix-results/*@*.json"))


def test_a_stray_delimiter_cannot_forge_an_output(tmp_path: Path) -> None:
    done, outputs, _ = action(tmp_path, mode="plan", offline="true", plan="results/x\nmatrix<<end\nforged\nend")
    assert "forged" not in outputs.get("matrix", "")
    assert done.returncode in {0, 2}


def test_install_makes_one_private_environment_and_uses_it_again(tmp_path: Path) -> None:
    output = tmp_path / "output"
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "GITHUB_OUTPUT": str(output),
        "RUNNER_TOOL_CACHE": str(tmp_path / "tools"),
    }
    script = ["bash", str(ROOT / "action/install.sh")]
    first = subprocess.run(script, env=environ, capture_output=True, text=True, check=False, timeout=280)
    if first.returncode != 0 and "No matching distribution" in first.stderr + first.stdout:
        pytest.skip("no package index is reachable from here")
    assert first.returncode == 0, first.stderr
    python = output.read_text().removeprefix("python=").strip()
    assert Path(python).is_relative_to(tmp_path / "tools")
    subprocess.run([python, "-c", "import docker, pydantic, jinja2, yaml, click, tabulate"], check=True)
    before = Path(python).stat().st_ino
    subprocess.run(script, env={**environ, "PIP_NO_INDEX": "1"}, check=True, capture_output=True, timeout=60)
    assert Path(python).stat().st_ino == before
    assert [path.name for path in (tmp_path / "tools/cuda-matrix").iterdir()] == [Path(python).parents[1].name]


def test_install_says_what_is_missing(tmp_path: Path) -> None:
    for tool in ("bash", "dirname"):
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / tool).symlink_to(found)
    environ = {"PATH": str(tmp_path), "GITHUB_OUTPUT": str(tmp_path / "output")}
    script = [str(tmp_path / "bash"), str(ROOT / "action/install.sh")]
    done = subprocess.run(script, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stdout.startswith("::error::cuda-matrix needs Python 3.10 or newer")
