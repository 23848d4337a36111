"""The table in README.md is the one that the demo's fleet gives."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BEGIN = "<!-- demo table: written by `pytest tests/test_readme.py --update-golden` -->\n"
END = "<!-- end of the demo table -->"


def test_the_yaml_that_it_shows_is_a_configuration(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(version: 1\n.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "matrix").mkdir()
    for number, block in enumerate(blocks):
        (tmp_path / f"matrix/{number}.yml").write_text(block)
    command = [sys.executable, "-m", "cuda_matrix", "validate"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "ok: 4 images × 1 runner = 4 cells (0 excluded)\n"), done.stderr


def demo_table(folder: Path) -> str:
    config = ROOT / "src/cuda_matrix/data/demo-config.yml"
    command = [sys.executable, "-m", "cuda_matrix"]
    run = [*command, "run", "--engine", "simulated", "--config", str(config), "--out", "results"]
    subprocess.run(run, cwd=folder, check=True, capture_output=True)
    report = subprocess.run(
        [*command, "report", "results", "--format", "markdown"], cwd=folder, check=True, capture_output=True, text=True
    )
    sections = re.split(r"^## .*\n", report.stdout, flags=re.MULTILINE)
    tables = "\n".join(sections[1:3]).strip() + "\n"
    return re.sub(r"\[([^\]]+)\]\(#[^)]*\)", r"\1", tables)  # the links lead into the report


def test_the_table_is_the_demo_s(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    table = demo_table(tmp_path)
    if request.config.getoption("--update-golden"):
        path.write_text(before + BEGIN + table + END + after, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == before + BEGIN + table + END + after
