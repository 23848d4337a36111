"""The demo: the articles' fleet, simulated, and this machine, measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from builders import make_diagnosis, make_result
from cuda_matrix.commands.demo import MEANT, closing
from cuda_matrix.model import EngineName, Verdict


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder and stdout of one run, with no network, Docker or runner's secret to lean on."""
    folder = tmp_path_factory.mktemp("demo")
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "DOCKER_HOST": "unix:///nowhere"}
    begin = time.monotonic()
    command = [sys.executable, "-m", "cuda_matrix", "demo", "--out", str(folder / "out")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begin < 60
    return folder / "out", done.stdout


def test_the_table_has_three_cards_and_the_old_driver_fails(demo: tuple[Path, str]) -> None:
    text = (demo[0] / "report.md").read_text(encoding="utf-8")
    header, *rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(card in header for card in ("RTX 3090", "RTX 4090", "A800"))
    row = next(line for line in rows if "`torch2.2.0-cu121`" in line)
    assert "simulated" in row
    assert row.count("driver-too-old") == 1
    assert "found version 11040" in text
    assert "525.60.13" in text


def test_the_five_rows_of_the_article_are_in_the_performance_table(demo: tuple[Path, str]) -> None:
    text = (demo[0] / "report.md").read_text(encoding="utf-8")
    for card, cuda, torch, speed in [
        ("RTX 4090", "12.1", "2.2.0+cu121", "1,245"),
        ("RTX 4090", "11.8", "2.2.0+cu118", "1,180"),
        ("A800 80GB PCIe", "11.8", "2.2.0+cu118", "980"),
        ("A800 80GB PCIe", "12.1", "2.2.0+cu121", "–"),
        ("RTX 3090", "11.8", "2.2.0+cu118", "850"),
    ]:
        assert f"| {card} | {cuda} | {torch} | {speed} |" in text


def test_every_simulated_cell_was_predicted_and_the_score_says_what_it_rests_on(demo: tuple[Path, str]) -> None:
    score = json.loads((demo[0] / "report.json").read_text(encoding="utf-8"))["foretold"]
    assert (score["right"], score["comparable"], score["unknown"]) == (9, 9, 0)
    assert score["notes"] == ["Every result behind this is simulated."]
    assert "Predicted and measured: All 9 predictions were right. Every result" in demo[1]


def test_this_machine_was_run_and_its_result_counts(demo: tuple[Path, str]) -> None:
    cells = {cell["cell"]: cell for cell in json.loads((demo[0] / "report.json").read_text(encoding="utf-8"))["cells"]}
    assert cells["this-python@this-machine"]["verdict"] != "not-run"
    result = json.loads((demo[0] / "results/this-machine/this-python@this-machine.json").read_text(encoding="utf-8"))
    assert result["engine"] == "local"
    assert result["facts"]["python"]
    assert "9 of 10 results are simulated" in (demo[0] / "report.md").read_text(encoding="utf-8")


def test_it_ends_by_naming_the_files_that_it_wrote(demo: tuple[Path, str]) -> None:
    folder, stdout = demo
    named = [line.split()[0] for line in stdout.split("Written:\n")[1].splitlines()[:-1]]
    assert [Path(name).name for name in named] == ["report.md", "index.html", "report.json", "junit.xml", "results"]
    assert all(Path(name).exists() for name in named)
    assert Path(named[0]).parent == folder


def test_its_last_line_says_that_the_red_is_as_it_should_be(demo: tuple[Path, str]) -> None:
    last = demo[1].splitlines()[-1]
    assert last.startswith("As intended: the A800 fails where its driver is too old, every other card is good; ")
    assert "this machine's own Python: " in last
    result = json.loads((demo[0] / "results/this-machine/this-python@this-machine.json").read_text(encoding="utf-8"))
    assert (result["diagnosis"]["cause"] if result["diagnosis"] else "good") in last


def test_another_outcome_is_not_called_intended() -> None:
    simulated = {"engine": EngineName.SIMULATED}
    failed = {cell: make_result(cell, Verdict.FAIL, diagnosis=make_diagnosis(cause), **simulated)  # type: ignore[arg-type]
              for cell, cause in MEANT.items()}  # fmt: skip
    good = make_result("torch2.2.0-cu118@rtx3090", **simulated)  # type: ignore[arg-type]
    local = make_result("this-python@this-machine", engine=EngineName.LOCAL)
    assert closing([*failed.values(), good, local]).endswith("this machine's own Python: good.")
    for others in ([], [good], [*failed.values(), make_result("a@rtx3090", Verdict.FAIL, **simulated)]):  # type: ignore[arg-type]
        assert closing(others).startswith("Not as intended: of the simulated fleet ")
