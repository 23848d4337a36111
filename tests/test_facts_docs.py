"""docs/causes.md and docs/compatibility-rules.md say what the tables of facts say."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from cuda_matrix.reference import load_reference

ROOT = Path(__file__).resolve().parent.parent
TOOL = runpy.run_path(str(ROOT / "tools" / "facts_docs.py"))
REFERENCE = load_reference()


def page(name: str) -> str:
    return str(TOOL["PAGES"][name](REFERENCE))


@pytest.mark.parametrize("name", TOOL["PAGES"])
def test_the_page_is_generated_from_the_tables(name: str) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == page(name), "run: make docs"


def test_every_cause_has_one_section_that_the_overview_links() -> None:
    text = page("causes.md")
    headings = re.findall(r"^### (`([a-z0-9-]+)`: .*)$", text, re.MULTILINE)
    assert sorted(code for _, code in headings) == sorted(REFERENCE.catalogue.causes)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading, _ in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) == anchors


def test_every_rule_and_every_row_is_there() -> None:
    text = page("compatibility-rules.md")
    assert set(re.findall(r"^### `([a-z0-9-]+)`: ", text, re.MULTILINE)) == set(REFERENCE.rules)
    for row in REFERENCE.drivers.toolkits:
        assert f"| {row.cuda} | {row.release} | {row.driver} |" in text
    for release in REFERENCE.releases.releases:
        assert f"| {release.torch} | {release.python_min}–{release.python_max} | " in text
    for month in REFERENCE.schemes.ngc:
        assert f"| {month.release}-py3 |" in text
    for system in REFERENCE.systems.systems:
        assert f"| {system.os} | {system.glibc} |" in text


def test_a_doubt_is_shown() -> None:
    row = next(line for line in page("compatibility-rules.md").splitlines() if line.startswith("| 12.2 | 12.2.1"))
    assert row.split("|")[4].strip() == "uncertain"


@pytest.mark.parametrize(
    ("text", "shown"), [("a", "`a`"), ("a`b", "``a`b``"), ("`a`", "`` `a` ``"), ("``", "``` `` ```"), ("a|b", "`a|b`")]
)
def test_code_survives_markdown(text: str, shown: str) -> None:
    assert TOOL["code"](text) == shown


def test_a_pipe_does_not_end_a_cell() -> None:
    assert TOOL["table"](("a", "b"), [("x|y", "z")]) == "| a | b |\n|---|---|\n| x\\|y | z |\n"
