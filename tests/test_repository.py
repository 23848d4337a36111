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


STEPS = [step for step in ACTION["runs"]["steps"] if "action/" in step["run"]]


def script_of(step: dict[str, str]) -> str:
    """The script of a step, and what it sources."""
    [name] = re.findall(r"action/([a-z]+\.sh)", step["run"])
    text = (ROOT / "action" / name).read_text(encoding="utf-8")
    sourced = re.findall(r'^\. ".*/([a-z]+\.sh)"$', text, re.MULTILINE)
    return "\n".join([text, *((ROOT / "action" / each).read_text(encoding="utf-8") for each in sourced)])


def test_every_input_reaches_a_script_by_environment_alone() -> None:
    passed = {name: value for step in STEPS for name, value in step.get("env", {}).items() if name.startswith("INPUT_")}
    assert passed == {
        f"INPUT_{name.upper().replace('-', '_')}": f"${{{{ inputs.{name} }}}}" for name in ACTION["inputs"]
    }
    assert not any("${{" in each["run"] for each in ACTION["runs"]["steps"])


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step["id"])
def test_a_script_reads_what_its_step_passes_and_nothing_else(step: dict[str, str]) -> None:
    passed = {name for name in step.get("env", {}) if name.startswith("INPUT_")}
    assert passed == set(re.findall(r"\$\{?(INPUT_[A-Z_]+)", script_of(step)))


def test_every_output_is_written_by_the_script() -> None:
    written = set(
        re.findall(r"^(?: *|.*\) )output ([a-z]+) ", "\n".join(script_of(step) for step in STEPS), re.MULTILINE)
    )
    assert written - {"config"} == set(ACTION["outputs"])  # `config` goes from one step to the next


@pytest.mark.parametrize("name", ["main", "publish"])
def test_every_option_that_the_action_gives_is_one_of_the_verbs_that_it_calls(name: str) -> None:
    text = (ROOT / f"action/{name}.sh").read_text(encoding="utf-8")
    commands = [
        importlib.import_module(f"cuda_matrix.commands.{verb}").command
        for verb in re.findall(r"cuda_matrix ([a-z]+)", text)
    ]
    known = {option for command in commands for each in command.params for option in (*each.opts, *each.secondary_opts)}
    assert commands
    assert set(re.findall(r"(?<=[( ])--[a-z-]+", text)) - {"--"} <= known


def test_only_the_publishing_step_knows_the_token() -> None:
    knowing = [step["id"] for step in ACTION["runs"]["steps"] if re.search("token", str(step.get("env")))]
    assert knowing == ["begin", "publish"]


WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/matrix.yml").read_text(encoding="utf-8"))
CALL = WORKFLOW[True]["workflow_call"]  # YAML 1.1 reads `on` as true


def test_the_workflow_gives_the_action_inputs_that_it_has() -> None:
    steps = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]
    ours = [step for step in steps if step.get("uses", "").startswith("org/cuda-matrix@")]
    assert [step["with"]["mode"] for step in ours] == ["plan", "run", "report"]
    for step in ours:
        assert set(step["with"]) <= set(ACTION["inputs"])
    assert "github.token" not in str(WORKFLOW["jobs"]["run"]) + str(ours[1])
    assert WORKFLOW["jobs"]["run"]["permissions"] == {}


def test_every_input_and_secret_of_the_workflow_is_used() -> None:
    text = (ROOT / ".github/workflows/matrix.yml").read_text(encoding="utf-8").partition("\njobs:\n")[2]
    assert set(re.findall(r"inputs\.([a-z-]+)", text)) == set(CALL["inputs"])
    assert set(re.findall(r"secrets\.([a-z-]+)", text)) == set(CALL["secrets"])


def steps_of(job: str, action: str) -> list[dict[str, str]]:
    """What a job of the workflow gives to its uses of one action."""
    return [step["with"] for step in WORKFLOW["jobs"][job]["steps"] if action in step.get("uses", "")]


def test_results_are_those_of_the_plan_that_asked_for_them() -> None:
    """An artifact outlives its attempt: with an earlier one's lanes, a lane that died would look good."""
    attempt = "${{ inputs.name }}-${{ github.run_attempt }}"
    said = WORKFLOW["jobs"]["plan"]["outputs"]
    assert said["prefix"] == attempt
    assert said["artifacts"] == f"{attempt}-{{plan,lane-*}}"
    assert [step["name"] for step in steps_of("plan", "upload-artifact")] == [f"{attempt}-plan"]
    prefix = "${{ needs.plan.outputs.prefix }}"  # of the attempt that planned, also where only failed jobs run again
    assert [step["name"] for step in steps_of("run", "download-artifact")] == [f"{prefix}-plan"]
    assert [step["name"] for step in steps_of("run", "upload-artifact")] == [f"{prefix}-lane-${{{{ matrix.lane }}}}"]
    [asked] = [step["pattern"] for step in steps_of("report", "download-artifact")]
    assert asked == "${{ needs.plan.outputs.artifacts || 'none' }}"
    assert CALL["outputs"]["artifacts"]["value"] == "${{ jobs.plan.outputs.artifacts }}"


def jobs_that_judge() -> list[tuple[str, dict[str, str], bool]]:
    """Workflow, what it gives to the action, whether its job checks the repository out: every `report` and `all`."""
    found = []
    for path in [ROOT / ".github/workflows/matrix.yml", *sorted((ROOT / "workflows").glob("*.yml"))]:
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
            steps = job.get("steps", ())
            checked_out = any("actions/checkout@" in step.get("uses", "") for step in steps)
            given = [step["with"] for step in steps if step.get("uses", "").startswith("org/cuda-matrix@")]
            found += [(path.name, one, checked_out) for one in given if one["mode"] in {"report", "all"}]
    return found


def test_a_configuration_is_named_only_where_there_is_one() -> None:
    """Exit 2 otherwise: in matrix.yml nothing is checked out for the report, whatever the caller's `config` is."""
    assert {name for name, *_ in jobs_that_judge()} == {
        "matrix.yml",
        "fork-safe.yml",
        "release.yml",
        "single-machine.yml",
    }
    for name, given, checked_out in jobs_that_judge():
        assert checked_out or "config" not in given, name


def test_no_artifact_says_which_tags_are_given_or_what_a_fork_had_to_show() -> None:
    by_name = {name: given for name, given, _ in jobs_that_judge()}
    assert by_name["release.yml"]["promote"] is True
    assert by_name["release.yml"]["config"] == "matrix"
    assert by_name["fork-safe.yml"]["config"] == "matrix"
    asked = yaml.safe_load((ROOT / "workflows/pull-request.yml").read_text(encoding="utf-8"))
    planned = asked["jobs"]["gpu-matrix"]["with"]
    assert by_name["fork-safe.yml"].get("tier") == planned.get("tier"), "else the rest of the matrix is missed"
    assert by_name["fork-safe.yml"].get("select") == planned.get("select")


@pytest.mark.parametrize("path", sorted((ROOT / "workflows").glob("*.yml")), ids=lambda path: path.name)
def test_callers_grant_what_the_workflow_asks_and_give_it_inputs_that_it_has(path: Path) -> None:
    wanted: dict[str, str] = {}
    for job in WORKFLOW["jobs"].values():
        wanted |= {name: level for name, level in job["permissions"].items() if wanted.get(name) != "write"}
    for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
        if "matrix.yml" in job.get("uses", ""):
            assert job["permissions"] == wanted  # less, and GitHub starts no job at all
            assert set(job.get("with", {})) <= set(CALL["inputs"])


def test_the_page_on_github_lists_every_input_and_secret_of_the_workflow() -> None:
    page = (ROOT / "docs/github.md").read_text(encoding="utf-8")
    listed = {}
    for row in rows(page.split("<!-- workflow -->")[1].split("<!-- end of workflow -->")[0])[2:]:
        listed[row[0].strip("`")] = row[-1]
    both = {**CALL["inputs"], **CALL["secrets"], **CALL["outputs"]}
    assert listed == {name: spec["description"] for name, spec in both.items()}


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
    assert all(re.search(r"@[0-9a-f]{40}$", use) or re.match(r"org/cuda-matrix[/@]", use) for use in uses)
    assert text.count("\n") <= 40
    assert text.startswith("# ")


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
