from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cuda_matrix.commands.plan import ROWS_SHOWN, command
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.plan import Plan
from foretold_fleet import write_fleet

DIGEST = "sha256:" + "0" * 64
FLEET = f"""\
version: 1
images:
  - {{id: old, ref: "pytorch/pytorch:2.2.0-cuda11.8-cudnn8-runtime"}}
  - {{id: pinned, ref: "registry.example/a@{DIGEST}"}}
runners:
  g1: {{labels: [self-hosted, g1], jobs: 2}}
  g2: {{labels: [g2]}}
exclude:
  - {{image: pinned, runner: g2, reason: driver too old}}
policy: {{tiers: {{pr: ["*@g1"]}}}}
"""


@pytest.fixture
def fleet(tmp_path: Path) -> str:
    path = tmp_path / "fleet.yml"
    path.write_text(FLEET)
    return str(path)


def plan(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments), standalone_mode=False)


def test_table(fleet: str) -> None:
    lines = plan("--offline", "--config", fleet).stdout.splitlines()
    assert [line.split() for line in lines if "@g" in line and "excluded" not in line] == [
        ["old@g1", "pytorch/pytorch:2.2.0-cuda11.8-cudnn8-runtime", "0", "–"],
        ["old@g2", "pytorch/pytorch:2.2.0-cuda11.8-cudnn8-runtime", "2", "–"],
        ["pinned@g1", f"registry.example/a@{DIGEST}", "1", "–"],
    ]
    assert "pinned@g2  excluded: driver too old" in lines
    assert "3 cells in 3 lanes on 2 runners; 1 skipped" in lines
    assert lines[-1].startswith("tags are unresolved (--offline)")


def test_one_of_each(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("version: 1\nimages: [{id: a, ref: 'a:1'}]\nrunners: {g: {labels: [x]}}\n")
    assert "1 cell in 1 lane on 1 runner; 0 skipped" in plan("--offline", "--config", str(tmp_path / "a.yml")).stdout


def test_json_alone_on_stdout_and_in_the_file(fleet: str, tmp_path: Path) -> None:
    output = tmp_path / "plan.json"
    done = plan("--offline", "--config", fleet, "--format", "json", "--output", str(output))
    assert Plan.model_validate_json(done.stdout) == Plan.model_validate_json(output.read_bytes())


def test_github(fleet: str) -> None:
    done = plan("--offline", "--config", fleet, "--format", "github", "--max-jobs", "2", "--tier", "pr")
    assert [entry["name"] for entry in json.loads(done.stdout)["include"]] == ["g1 1/2 (1 cell)", "g1 2/2 (1 cell)"]


def test_pinned_images_need_no_registry_and_no_docker(fleet: str) -> None:
    command = [sys.executable, "-m", "cuda_matrix", "plan", "--config", fleet, "--select", "pinned", "--format", "json"]
    environ = {"PATH": os.environ["PATH"], "DOCKER_HOST": "unix:///nowhere"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["digests"] == "resolved"


def test_a_wrong_glob(fleet: str) -> None:
    assert isinstance(plan("--offline", "--config", fleet, "--select", "new").exception, ConfigurationError)


def test_an_output_that_cannot_be_written(fleet: str, tmp_path: Path) -> None:
    error = plan("--offline", "--config", fleet, "--output", str(tmp_path / "gone" / "plan.json")).exception
    assert isinstance(error, ConfigurationError)
    assert "cannot write" in str(error)


def large(path: Path) -> str:
    """A hundred images on a hundred machines, no two of one driver."""
    tags = [f"2.{n % 8 + 2}.{n // 8}-cuda12.{n % 9}-cudnn9-runtime" for n in range(100)]
    images = "".join(f"  - {{id: i{n}, ref: 'pytorch/pytorch:{tag}'}}\n" for n, tag in enumerate(tags))
    runners = "".join(
        f"  g{n}: {{labels: [g{n}], jobs: 3, gpu: A800, driver: '{450 + 2 * n}.{n}.05'}}\n" for n in range(100)
    )
    path.write_text(f"version: 1\nimages:\n{images}runners:\n{runners}")
    return str(path)


def test_a_long_table_is_cut(tmp_path: Path) -> None:
    lines = plan("--offline", "--config", large(tmp_path / "a.yml")).stdout.splitlines()
    assert sum("@g" in line for line in lines) == ROWS_SHOWN
    assert f"… and {10_000 - ROWS_SHOWN:,} more (--format json shows all)".replace(",", "") in lines


def test_ten_thousand_cells_cost_little(tmp_path: Path) -> None:
    """Processor time and memory by the operating system's count, predictions and interpreter included."""
    script = (
        "import re, resource, sys\n"
        "from cuda_matrix.commands.plan import command\n"
        "command(sys.argv[1:], standalone_mode=False)\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        # Not ru_maxrss: it begins with the memory of the process that started this one.
        "peak_kib = int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "print(used.ru_utime + used.ru_stime, peak_kib / 1024, file=sys.stderr)\n"
    )
    arguments = ["--offline", "--format", "json", "--config", large(tmp_path / "a.yml")]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    seconds, megabytes = map(float, done.stderr.split())
    cells = json.loads(done.stdout)["cells"]
    assert len(cells) == 10_000
    assert len({cell["prediction"]["explanation"] for cell in cells}) > 500
    assert seconds < 8  # 2 to 3.5 on an idle machine
    assert megabytes < 300


def foretold(folder: Path, *arguments: str, policy: str = "") -> Result:
    return plan("--offline", "--config", str(write_fleet(folder, policy) / "cuda-matrix.yml"), *arguments)


def test_what_is_predicted_stands_in_the_table_and_whole_in_the_document(tmp_path: Path) -> None:
    lines = foretold(tmp_path).stdout.splitlines()
    said = {line.split()[0]: line.split(maxsplit=3)[3] for line in lines if "pytorch/pytorch" in line}
    assert said["torch2.2.0-cu12.1@a800"] == "fail: driver-too-old"
    assert said["torch2.2.0-cu12.1@rtx3090"] == "pass"
    assert said["torch2.2.0-cu12.1@cpu"] == "–"
    cells = json.loads(foretold(tmp_path, "--format", "json").stdout)["cells"]
    found = next(cell["prediction"] for cell in cells if cell["id"] == "torch2.2.0-cu12.1@a800")
    assert (found["cause"], found["needs_driver"]) == ("driver-too-old", "525.60.13")
    assert found["source"].startswith("http") or "http" in found["source"]


def test_unknown_predictions_have_a_reason(tmp_path: Path) -> None:
    """The first thing that a newcomer sees after `init`."""
    config = tmp_path / "first.yml"
    config.write_text(
        "version: 1\nimages: [{id: t, ref: 'pytorch/pytorch:2.2.0-cuda12.1-cudnn8-runtime'}]\n"
        "runners: {rtx4090: {labels: [x], gpu: RTX 4090}, cpu: {labels: [c]}}\n"
    )
    text = plan("--offline", "--config", str(config)).stdout
    assert "unknown" in text
    assert " ".join(text.split()).count("rtx4090 has no `driver:`: its predictions are unknown; add it") == 1
    assert "cpu has no" not in text
    assert "has no `driver:`" not in foretold(tmp_path).stdout


def test_doomed_cells_run_unless_the_policy_says_otherwise(tmp_path: Path) -> None:
    assert "0 skipped" in foretold(tmp_path).stdout
    text = foretold(tmp_path, policy="policy: {skip_predicted: true}\n").stdout
    assert "6 cells in 3 lanes on 3 runners; 3 skipped" in text
    line = next(line for line in text.splitlines() if line.startswith("torch2.2.0-cu12.1@a800"))
    assert "predicted: driver-too-old: " in line
    assert "(rule minor-version)" in " ".join(text.split())
    assert " ".join(text.split()).count("rule minor-version: https://docs.nvidia.com/") == 1
    assert max(len(line) for line in text.splitlines()) <= 130
    assert "0 skipped" in foretold(tmp_path, "--no-skip", policy="policy: {skip_predicted: true}\n").stdout
