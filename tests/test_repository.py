"""What is stated twice in this repository is the same both times."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cuda_matrix.cli import VERBS
from cuda_matrix.errors import ExitCode
from cuda_matrix.model import Verdict

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))


def rows(text: str) -> list[list[str]]:
    """Cells of every Markdown table row."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[-1].split("\n## ")[0]


def between(name: str) -> str:
    return README.split(f"<!-- {name} -->")[1].split(f"<!-- end of {name} -->")[0]


def test_readme_lists_every_input_of_the_action() -> None:
    said = {row[0].strip("`"): row[1:] for row in rows(between("inputs"))[2:]}
    expected = {name: [_default(spec), spec["description"]] for name, spec in ACTION["inputs"].items()}
    assert said == expected


def _default(spec: dict[str, str]) -> str:
    if spec.get("required"):
        return "(required)"
    return f"`{spec['default']}`" if spec["default"] else ""


def test_readme_lists_every_output_of_the_action() -> None:
    said = {row[0].strip("`"): row[1] for row in rows(between("outputs"))[2:]}
    assert said == {name: spec["description"] for name, spec in ACTION["outputs"].items()}


def test_every_input_reaches_the_script_by_environment_and_is_read_there() -> None:
    step = ACTION["runs"]["steps"][-1]
    passed = {name for name in step["env"] if name.startswith("INPUT_")}
    assert passed == {f"INPUT_{name.upper().replace('-', '_')}" for name in ACTION["inputs"]}
    script = (ROOT / "action/main.sh").read_text(encoding="utf-8")
    assert passed == set(re.findall(r"INPUT_[A-Z_]+", script))
    assert not any("${{" in each["run"] for each in ACTION["runs"]["steps"])


def test_every_output_is_written_by_the_script() -> None:
    script = (ROOT / "action/main.sh").read_text(encoding="utf-8")
    assert set(re.findall(r"output ([a-z]+) ", script)) == set(ACTION["outputs"])


def test_readme_exit_codes() -> None:
    assert [int(row[0]) for row in rows(section("Exit codes"))[2:]] == [code.value for code in ExitCode]


def test_readme_explains_every_verdict() -> None:
    assert {row[1] for row in rows(section("Reading the report"))[2:]} == {verdict.value for verdict in Verdict}


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_the_verb_is_the_one_that_the_list_shows(verb: str) -> None:
    command = importlib.import_module(f"cuda_matrix.commands.{verb}").command
    assert command.get_short_help_str(limit=200) == VERBS[verb]


def test_readme_names_every_verb_that_it_shows_and_no_other() -> None:
    shown = set(
        re.findall(r"cuda-matrix ([a-z]+)", "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)) + README)
    )
    assert shown - {"launches"} <= set(VERBS)


def test_architecture_names_every_module() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    modules = {path.stem for path in (ROOT / "src/cuda_matrix").glob("*.py")} - {"__init__"}
    missing = sorted(module for module in modules if f"`{module}`" not in page)
    assert missing == []


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_are_small_and_say_what_they_own(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    if path.name == "__init__.py":
        assert text == ""
    else:
        assert ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("path", sorted((ROOT / "workflows").glob("*.yml")), ids=lambda path: path.name)
def test_callers_are_short_and_pin_their_actions(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    uses = re.findall(r"uses: (\S+)", text)
    assert uses
    assert all(re.search(r"@[0-9a-f]{40}$", use) or use.startswith("org/cuda-matrix@") for use in uses)


def test_help_costs_little_more_than_the_interpreter() -> None:
    script = (
        "import sys; sys.argv = ['cuda-matrix', '--help']\n"
        "try:\n import cuda_matrix.__main__ as m; m.main()\n"
        "except SystemExit: pass\n"
        "heavy = ('docker', 'github', 'jinja2', 'matplotlib', 'pydantic', 'yaml', 'requests')\n"
        "print(' '.join(name for name in heavy if name in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Commands" in done.stdout
    assert done.stderr.strip() == ""
