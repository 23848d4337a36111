"""The composite action's scripts, run as the runner would: inputs by environment, outputs by file."""

from __future__ import annotations

import base64
import json
import os
import re
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


def action(
    folder: Path, extra: dict[str, str] | None = None, **inputs: str
) -> tuple[subprocess.CompletedProcess[str], dict[str, str], str]:
    """Run the action's main steps in `folder`: the last process, the outputs, and the report."""
    (folder / "cuda-matrix.yml").write_text(FLEET)
    output = folder / "output"
    output.write_text("")
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GITHUB_OUTPUT": str(output),
        "CUDA_MATRIX_PYTHON": sys.executable,
        "DOCKER_HOST": "unix:///nowhere/docker.sock",
        **DEFAULTS,
        **{f"INPUT_{name.upper()}": value for name, value in inputs.items()},
        **(extra or {}),
    }
    steps = {"plan": ["plan"], "all": ["plan", ""]}.get(inputs["mode"], [""])  # as action.yml's `if:` say
    for step in steps:
        done = script("main.sh", environ, folder, *filter(None, [step]))
        if done.returncode != 0:
            break
    report = folder / environ["INPUT_REPORT"] / "report.md"
    text = report.read_text(encoding="utf-8") if report.is_file() else ""
    return done, parse_outputs(output.read_text(encoding="utf-8")), text


def script(name: str, environ: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One of the action's scripts, in `folder`."""
    bash = Path(environ["PATH"].split(":")[0]) / "bash"
    command = [str(bash if bash.exists() else "bash"), str(ROOT / "action" / name), *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


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
    done, outputs, report = action(tmp_path, mode="report")
    assert done.returncode == 1
    assert outputs["verdict"] == "no"
    assert "driver-too-old" in report
    assert "driver-too-old" in done.stdout


def test_a_lane_that_never_ran_is_not_run_and_the_job_is_red(tmp_path: Path) -> None:
    action(tmp_path, mode="plan", offline="true", select="torch2.2.0-cu118@*")
    action(tmp_path, mode="run", lane="0", engine="simulated")
    done, outputs, report = action(tmp_path, mode="report")
    assert (done.returncode, outputs["verdict"]) == (1, "no")
    assert "not run" in report


@pytest.mark.parametrize(("gate", "code"), [("true", 1), ("false", 0)])
def test_all_reports_what_ran_and_ends_by_the_gate(tmp_path: Path, gate: str, code: int) -> None:
    done, outputs, report = action(tmp_path, mode="all", offline="true", engine="simulated", gate=gate)
    assert done.returncode == code
    assert outputs["verdict"] == "no"
    assert "A800" in report


def test_all_is_green_when_everything_is(tmp_path: Path) -> None:
    done, outputs, _ = action(tmp_path, mode="all", offline="true", engine="simulated", select="*@rtx3090")
    assert (done.returncode, outputs["verdict"]) == (0, "yes")


def test_what_was_planned_of_a_configuration_is_what_is_judged_by_it(tmp_path: Path) -> None:
    given = {"mode": "all", "offline": "true", "engine": "simulated", "config": "cuda-matrix.yml"}
    done, outputs, _ = action(tmp_path, select="*@rtx3090", **given)
    assert (done.returncode, outputs["verdict"]) == (0, "yes"), done.stdout
    done, outputs, _ = action(tmp_path, mode="report", config="cuda-matrix.yml")
    assert (done.returncode, outputs["verdict"]) == (1, "no"), "the artifact's word for what was asked is not enough"
    assert "not in the plan" in done.stdout


def test_the_report_that_cannot_be_written_fails_the_job(tmp_path: Path) -> None:
    """Bash forgets `set -e` in what stands before `||`."""
    (tmp_path / "cuda-matrix-report").write_text("a file where the folder should be")
    done, outputs, _ = action(tmp_path, mode="all", offline="true", engine="simulated", select="*@rtx3090")
    assert done.returncode not in {0, 1}
    assert outputs.get("verdict") != "yes"


def test_publishing_judges_by_the_configuration_and_the_part_that_was_planned(tmp_path: Path) -> None:
    spy = tmp_path / "python"
    spy.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/said\n')
    spy.chmod(0o755)
    environ = {**DEFAULTS, "PATH": os.environ["PATH"], "HOME": str(tmp_path), "CUDA_MATRIX_PYTHON": str(spy)}
    environ |= {"INPUT_MODE": "report", "INPUT_TOKEN": "ghs_secret"}
    assert script("publish.sh", environ, tmp_path).returncode == 0
    assert "--config" not in (said := (tmp_path / "said").read_text().splitlines())
    assert not any("ghs_secret" in argument for argument in said)
    part = {"INPUT_CONFIG": "matrix", "INPUT_TIER": "pull request", "INPUT_SELECT": "*@a\n\n$(touch forged)"}
    assert script("publish.sh", {**environ, **part}, tmp_path).returncode == 0
    said = (tmp_path / "said").read_text().splitlines()
    wanted = ["--config", "matrix", "--tier", "pull request", "--select", "*@a", "--select", "$(touch forged)"]
    assert said[said.index("--config") :][: len(wanted)] == wanted
    assert said[-2:] == ["--", "cuda-matrix-report"]
    assert not (tmp_path / "forged").exists()


def test_a_configuration_of_a_fork_commands_no_runner_while_it_is_planned(tmp_path: Path) -> None:
    evil = r"\n::add-mask::x\n##[error]EVIL\n::set-output name=matrix::EVIL\n"
    for text in (
        f'{{version: 1, "{evil}": 1}}',
        f'{{version: 1, images: [{{id: "{evil}", ref: "{evil}"}}], runners: {{"{evil}": {{labels: ["{evil}"]}}}}}}',
        FLEET.replace("RTX 3090", f'"{evil}"'),
        FLEET + f'policy: {{required: ["{evil}"]}}\n',
        f'version: 1\n::add-mask::x\n"{evil}',
    ):
        (tmp_path / "evil.yml").write_text(text)
        done, outputs, _ = action(
            tmp_path, mode="plan", offline="true", config="evil.yml", extra={"GITHUB_ACTIONS": "true"}
        )
        said = (done.stdout + done.stderr).splitlines()
        said = [line for line in said if not line.startswith(("::error file=", "::warning file="))]  # ours, escaped
        obeyed = [line for line in said if line.lstrip().startswith("::") or "##[" in line]
        assert obeyed == [], text
        assert set(outputs) <= {"matrix", "lanes", "plan"}
    assert done.returncode == 2


@pytest.mark.parametrize("mode", ["Plan", "reprot", "", "all "])
def test_a_mode_that_is_misspelt(tmp_path: Path, mode: str) -> None:
    """GitHub's `==` does not mind capitals, so that a step may be reached with them."""
    (tmp_path / "cuda-matrix.yml").write_text(FLEET)
    environ = {**DEFAULTS, "PATH": os.environ["PATH"], "HOME": str(tmp_path), "CUDA_MATRIX_PYTHON": sys.executable}
    for step in ([], ["plan"]):
        done = script("main.sh", {**environ, "INPUT_MODE": mode}, tmp_path, *step)
        assert (done.returncode, done.stdout) == (2, "::error::mode must be plan, run, report or all\n")


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
    done, outputs, report = action(tmp_path, engine="docker", **good)  # no Docker at DOCKER_HOST
    assert done.returncode == 3
    assert outputs["verdict"] == "no"
    assert "not run" in report


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
    warm_start(tmp_path, environ, python)


def warm_start(folder: Path, environ: dict[str, str], python: str) -> None:
    """Install.sh with its environment there, then a run up to its first line: 1.5 s, and three times that here."""
    action(folder, mode="plan", offline="true", extra={"CUDA_MATRIX_PYTHON": python})
    run = {**environ, **DEFAULTS, "INPUT_MODE": "run", "INPUT_ENGINE": "simulated", "CUDA_MATRIX_PYTHON": python}
    begin = time.monotonic()
    subprocess.run(["bash", str(ROOT / "action/install.sh")], env=environ, check=True, capture_output=True, timeout=60)
    command = ["bash", str(ROOT / "action/main.sh")]
    with subprocess.Popen(
        command, cwd=folder, env=run, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as it:
        assert it.stderr is not None
        first = it.stderr.readline()
        took = time.monotonic() - begin
        it.communicate()
    assert first.startswith("4 cells, engine simulated")
    print(f"warm start: {took:.2f} s")
    assert took < 4.5  # 1.4 s on two busy cores


# A runner's programs without Python: what install.sh and launch.sh call, and a `docker` that writes down its arguments.
TOOLS = (
    "bash",
    "dirname",
    "find",
    "sort",
    "xargs",
    "sha256sum",
    "cut",
    "id",
    "stat",
    "od",
    "tr",
    "mkdir",
    "cat",
    "env",
)
DOCKER = """#!/bin/sh
printf '%s\\n' "$*" >>"$LOG"
case "$1" in
  version) [ ! -e "$LOG.down" ] ;;
  image) [ -e "$LOG.built" ] ;;
  build) : >"$LOG.built" ;;
  run) env >"$LOG.env"; cat >/dev/null; echo '{"include": []}' ;;
esac
"""


def bare_runner(folder: Path, *, docker: bool) -> dict[str, str]:
    programs = folder / "bin"
    programs.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (programs / tool).symlink_to(found)
    if docker:
        (programs / "docker").write_text(DOCKER)
        (programs / "docker").chmod(0o755)
    return {
        "PATH": str(programs),
        "HOME": str(folder),
        "GITHUB_OUTPUT": str(folder / "output"),
        "LOG": str(folder / "log"),
    }


def test_install_says_what_is_missing(tmp_path: Path) -> None:
    done = script("install.sh", bare_runner(tmp_path, docker=False), tmp_path)
    assert done.returncode == 3
    assert done.stdout.startswith("::error::cuda-matrix needs Python 3.10 or newer on this runner, or Docker")


def test_a_docker_that_does_not_answer_is_no_way_out(tmp_path: Path) -> None:
    environ = bare_runner(tmp_path, docker=True)
    (tmp_path / "log.down").touch()
    assert script("install.sh", environ, tmp_path).returncode == 3


def test_without_python_the_image_is_built_once_and_said(tmp_path: Path) -> None:
    environ = bare_runner(tmp_path, docker=True)
    first = script("install.sh", environ, tmp_path)
    assert first.returncode == 0, first.stderr + first.stdout
    assert "::notice::cuda-matrix found no Python 3.10 or newer" in first.stdout
    second = script("install.sh", environ, tmp_path)
    assert second.returncode == 0
    tags = (tmp_path / "output").read_text().splitlines()
    assert len(set(tags)) == 1
    assert re.fullmatch(r"image=cuda-matrix-action:[0-9a-f]{20}", tags[0])
    builds = [line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("build")]
    assert builds == [f"build --quiet --tag {tags[0].removeprefix('image=')} {ROOT}"]


def test_no_token_reaches_what_is_installed(tmp_path: Path) -> None:
    environ = bare_runner(tmp_path, docker=True)
    python = tmp_path / "bin/python3"
    python.write_text(f"#!/bin/sh\nenv >>{tmp_path}/seen\nexit 1\n")
    python.chmod(0o755)
    tokens = dict.fromkeys(("GITHUB_TOKEN", "GH_TOKEN", "ACTIONS_RUNTIME_TOKEN"), "ghs_secret")
    assert script("install.sh", {**environ, **tokens}, tmp_path).returncode == 0
    seen = (tmp_path / "seen").read_text()
    assert f"HOME={tmp_path}" in seen
    assert "ghs_secret" not in seen


@pytest.mark.parametrize("version", ["sys.exit(1)", "import ensurepip_is_missing"])
def test_a_python_that_is_too_old_or_has_no_venv_is_no_python(tmp_path: Path, version: str) -> None:
    environ = bare_runner(tmp_path, docker=True)
    python = tmp_path / "bin/python3"
    python.write_text("#!/bin/sh\nexit 1\n")  # what `import ensurepip` and the version's check end with there
    python.chmod(0o755)
    done = script("install.sh", environ, tmp_path)
    assert done.returncode == 0, version
    assert "image=" in (tmp_path / "output").read_text()


def test_the_image_gets_the_workspace_at_its_own_path_and_no_secret(tmp_path: Path) -> None:
    environ = {
        **bare_runner(tmp_path, docker=True),
        **DEFAULTS,
        "CUDA_MATRIX_IMAGE": "cuda-matrix-action:0",
        "GITHUB_WORKSPACE": str(tmp_path),
        "GITHUB_TOKEN": "ghs_secret",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        "MY_SECRET": "s3cret",
        "INPUT_MODE": "plan",
    }
    done = script("main.sh", environ, tmp_path, "plan")
    assert "cuda-matrix-action:0" in (tmp_path / "log").read_text(), done.stderr
    [first, *_] = (tmp_path / "log").read_text().splitlines()
    assert f"--volume {tmp_path}:{tmp_path}" in first
    assert f"--workdir {tmp_path}" in first
    assert f"--user {os.getuid()}:{os.getgid()}" in first
    assert first.index("cuda-matrix-action:0") < first.index("plan --max-jobs 256 --format github")
    passed = set(re.findall(r"--env ([A-Za-z_]+)", first))
    assert "GITHUB_WORKSPACE" in passed
    assert not passed & {"GITHUB_TOKEN", "MY_SECRET", "GITHUB_OUTPUT", "INPUT_MODE"}
    assert "s3cret" not in first
    assert "ghs_secret" not in (tmp_path / "log.env").read_text()  # not even the docker client has it


def test_no_token_reaches_plan_run_or_report(tmp_path: Path) -> None:
    """Whatever a workflow has put into the job's environment."""
    spy = tmp_path / "python"
    spy.write_text(f'#!/bin/sh\nenv >>{tmp_path}/seen\nexec {sys.executable} "$@"\n')
    spy.chmod(0o755)
    tokens = dict.fromkeys(("GITHUB_TOKEN", "GH_TOKEN", "INPUT_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"), "ghs_secret")
    for mode in ("plan", "run", "report"):
        action(
            tmp_path, mode=mode, offline="true", engine="simulated", extra={**tokens, "CUDA_MATRIX_PYTHON": str(spy)}
        )
    seen = (tmp_path / "seen").read_text()
    assert "INPUT_MODE=run" in seen
    assert "ghs_secret" not in seen


def test_a_login_is_written_beside_the_runner_s_own_and_readable_to_nobody_else(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    mine = {"auths": {"other.example": {"auth": "eDp5"}}, "credHelpers": {"r.example": "desktop"}}
    (tmp_path / ".docker/config.json").write_text(json.dumps(mine))
    (tmp_path / "temp").mkdir()
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "RUNNER_TEMP": str(tmp_path / "temp"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "CUDA_MATRIX_PYTHON": sys.executable,
        "INPUT_REGISTRY": "r.example",
        "INPUT_REGISTRY_USERNAME": "dana",
        "INPUT_REGISTRY_PASSWORD": 'pass:w"rd $(x)',
    }
    done = script("login.sh", environ, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = Path(parse_outputs((tmp_path / "output").read_text())["config"])
    written = json.loads((folder / "config.json").read_text())
    assert base64.b64decode(written["auths"]["r.example"]["auth"]).decode() == 'dana:pass:w"rd $(x)'
    assert written["auths"]["other.example"] == {"auth": "eDp5"}
    assert written["credHelpers"] == {}
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "config.json").stat().st_mode & 0o077 == 0
    assert json.loads((tmp_path / ".docker/config.json").read_text()) == mine
    assert "pass:w" not in done.stdout + done.stderr


def test_a_password_without_a_name(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "INPUT_REGISTRY_PASSWORD": "x"}
    done = script("login.sh", environ, tmp_path)
    assert (done.returncode, done.stdout) == (2, "::error::registry-password needs a registry-username\n")
