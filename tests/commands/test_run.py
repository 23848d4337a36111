"""Runs into one folder, one after another: what is asked is what the configuration says now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BASE = """
version: 1
images:
  - {id: torch2.2.0-cu118, ref: "example.org/torch:1"}
  - {id: torch2.2.0-cu121, ref: "example.org/torch:2"}
runners:
  rtx3090: {labels: [x], gpu: RTX 3090}
  rtx4090: {labels: [y], gpu: RTX 4090}
"""
EXCLUDED = BASE + 'exclude: [{image: torch2.2.0-cu121, runner: rtx4090, reason: "broken card"}]\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cuda-matrix.yml").write_text(BASE)
    return tmp_path


def cuda_matrix(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cuda_matrix", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def run(folder: Path, *arguments: str) -> None:
    done = cuda_matrix(folder, "run", "--engine", "simulated", *arguments)
    assert done.returncode == 0, done.stderr


def gate(folder: Path) -> tuple[int, str]:
    done = cuda_matrix(folder, "gate", "results")
    return done.returncode, done.stdout


def change(folder: Path, old: str, new: str) -> None:
    path = folder / "cuda-matrix.yml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_cell_that_is_run_again_joins_the_others(folder: Path) -> None:
    run(folder)
    run(folder, "--select", "torch2.2.0-cu118@rtx3090")
    assert gate(folder)[0] == 0
    assert [path.name for path in (folder / "results/previous").iterdir()] == ["torch2.2.0-cu118@rtx3090.1.json"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("example.org/torch:2", "example.org/torch:3"),
        ('"example.org/torch:2"', '"example.org/torch:2", expect: {torch: "9.9"}'),
        ("gpu: RTX 4090", "gpu: A800"),
        ("version: 1", "version: 1\npayload: {profile: full}"),
    ],
)
def test_what_was_changed_and_not_run_again_is_not_run(folder: Path, old: str, new: str) -> None:
    run(folder)
    change(folder, old, new)
    run(folder, "--select", "torch2.2.0-cu118@rtx3090")
    code, text = gate(folder)
    assert code == 1
    assert "did not run" in text


def test_a_cell_that_is_no_longer_excluded_must_run(folder: Path) -> None:
    (folder / "cuda-matrix.yml").write_text(EXCLUDED)
    run(folder)
    assert gate(folder)[0] == 0
    (folder / "cuda-matrix.yml").write_text(BASE)
    run(folder, "--select", "*@rtx3090")
    code, text = gate(folder)
    assert code == 1
    assert "torch2.2.0-cu121@rtx4090" in text


def test_a_cell_that_is_excluded_now_no_longer_counts(folder: Path) -> None:
    run(folder)
    (folder / "cuda-matrix.yml").write_text(EXCLUDED)
    run(folder, "--select", "*@rtx3090")
    code, text = gate(folder)
    assert code == 0
    assert "torch2.2.0-cu121@rtx4090: a result that the plan does not ask for" in text


def test_a_part_alone_is_said_to_be_one(folder: Path) -> None:
    run(folder, "--select", "torch2.2.0-cu118@rtx3090")
    code, text = gate(folder)
    assert code == 0
    assert "1 of 4 cells of the matrix was selected" in text or "1 of 4 cells of the matrix were selected" in text


def test_a_plan_in_the_folder_of_its_results_does_not_grow(folder: Path) -> None:
    (folder / "results").mkdir()
    assert cuda_matrix(folder, "plan", "--offline", "--output", "results/plan.json").returncode == 0
    sizes = set()
    for lane in ("0", "1", "0", "1"):
        run(folder, "--plan", "results/plan.json", "--lane", lane)
        sizes.add((folder / "results/plan.json").stat().st_size)
    assert len(sizes) == 1
    assert gate(folder)[0] == 0
