from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from builders import make_plan, make_result
from cuda_matrix.commands.report import command
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.result_files import write_plan, write_result


def results(folder: Path) -> str:
    write_plan(folder, make_plan(images=("good", "absent")))
    write_result(folder, make_result("good@rtx4090", images_per_s=900))
    return str(folder)


def test_a_report_on_the_console_ends_well_whatever_it_says(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [results(tmp_path)])
    assert result.exit_code == 0
    assert "Release: no.\n  1 required cell did not run: absent@rtx4090\n" in result.stdout
    assert list(tmp_path.glob("*.md")) == []


def test_every_file_with_out_and_only_those_asked_for(tmp_path: Path) -> None:
    folder = results(tmp_path / "results")
    CliRunner().invoke(command, [folder, "--out", str(tmp_path / "all")], catch_exceptions=False)
    names = {path.name for path in (tmp_path / "all").iterdir()}
    assert names == {"report.md", "index.html", "report.json", "junit.xml"}
    one = CliRunner().invoke(command, [folder, "--out", str(tmp_path / "one"), "--format", "json"])
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["report.json"]
    assert one.stdout == ""


def test_one_format_without_out_is_printed_and_nothing_else(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [results(tmp_path), "--format", "json"])
    assert json.loads(result.stdout)["gate"]["released"] is False


def test_two_formats_need_a_folder(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [results(tmp_path), "--format", "json", "--format", "html"])
    assert result.exit_code == 2
    assert "--out DIR" in result.output


def test_a_report_may_be_written_into_the_results_and_read_over(tmp_path: Path) -> None:
    folder = results(tmp_path)
    for _ in range(2):
        result = CliRunner().invoke(command, [folder, "--out", folder])
        assert "Could not be read" not in result.stdout


def test_nothing_readable_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{")
    result = CliRunner().invoke(command, [str(tmp_path)])
    assert isinstance(result.exception, ConfigurationError)
    assert [problem.file for problem in result.exception.problems] == ["plan.json"]
