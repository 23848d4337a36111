from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt

from cuda_matrix.report.console import render_console
from cuda_matrix.report.html import render_html
from cuda_matrix.report.jsonform import ReportForm, render_json
from cuda_matrix.report.junit import render_junit
from cuda_matrix.report.markdown import render_brief, render_markdown
from cuda_matrix.report.render import FILES, render
from report_cases import CASES, HOSTILE, hostile, mixed

Golden = Callable[[str, str], None]


@pytest.mark.parametrize("case", CASES)
def test_whole_reports(case: str, golden: Golden) -> None:
    view = CASES[case]()
    for name, text in render(view).items():
        golden(f"report/{case}/{name}", text)
    golden(f"report/{case}/console.txt", render_console(view, colour=False))
    golden(f"report/{case}/brief.md", render_brief(view))


@pytest.mark.parametrize("case", CASES)
def test_the_same_input_gives_the_same_bytes(case: str) -> None:
    assert render(CASES[case]()) == render(CASES[case]())


def test_only_the_formats_asked_for() -> None:
    assert list(render(mixed(), ["json"])) == ["report.json"]
    assert list(render(mixed())) == [name for name, _ in FILES.values()]


@pytest.mark.parametrize("case", CASES)
def test_markdown_tables_have_as_many_fields_as_columns(case: str) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(render_markdown(CASES[case]()))
    widths: list[list[int]] = []
    for token in tokens:
        if token.type == "table_open":
            widths.append([])
        elif token.type == "tr_open":
            widths[-1].append(0)
        elif token.type in {"td_open", "th_open"}:
            widths[-1][-1] += 1
    source = render_markdown(CASES[case]())
    assert len(widths) == len(re.findall(r"^\| :?-+", source, re.MULTILINE)) >= 2
    # markdown-it fills short rows and cuts long ones, so the source is counted too
    for line in source.splitlines():
        if line.startswith("| ") and "```" not in line:
            assert line.count(" | ") + 1 in {table[0] for table in widths}


def test_no_html_of_a_container_reaches_markdown() -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(render_markdown(hostile()))
    found = {token.content.strip() for token in tokens if token.type == "html_block"}
    found |= {c.content for t in tokens for c in t.children or () if c.type == "html_inline"}
    ours = r'</?details>|</?summary>|<br>|</?code>|</a>|<a id="cell-[\w.-]+">|<details><summary>[\w, ]+</summary>'
    assert [html for html in found if not re.fullmatch(ours, html)] == []
    images = [c.type for t in tokens for c in t.children or () if c.type == "image"]
    links = [c.attrs["href"] for t in tokens for c in t.children or () if c.type == "link_open"]
    assert images == []
    assert all(str(link).startswith("#cell-") for link in links)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in {"meta", "input", "br", "rect"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "rect":
            assert self.open.pop() == tag


@pytest.mark.parametrize("case", CASES)
def test_the_page_is_well_formed_and_loads_nothing(case: str) -> None:
    page = _Page()
    page.feed(render_html(CASES[case]()))
    assert page.open == []
    assert page.tags.count("script") == page.tags.count("style") == 1
    assert not {"img", "link", "iframe", "object", "base", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in {"src", "style"}]
    targets = [value or "" for name, value in page.attributes if name == "href"]
    assert all(target.startswith(("#cell-", "https://")) for target in targets)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {target[1:] for target in targets if target[0] == "#"} <= set(ids)


def test_the_page_and_markdown_say_the_same_figures() -> None:
    page, text = render_html(mixed()), render_markdown(mixed())
    for row in mixed().performance:
        for value in (row.images_per_s, row.spread, row.memory_gb, row.stable):
            assert value in page
            assert value in text


def test_json_fits_its_own_schema_and_is_ascii() -> None:
    for case in CASES.values():
        text = render_json(case())
        assert text.isascii()
        assert ReportForm.model_validate_json(text).report_version == 1
    assert json.loads(render_json(mixed()))["gate"]["released"] is False


def test_junit_counts_what_it_holds() -> None:
    root = ElementTree.fromstring(render_junit(mixed()))
    for suite in root:
        for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.attrib[attribute]) == len(suite.findall(f"testcase/{tag}"))
        assert int(suite.attrib["tests"]) == len(suite.findall("testcase"))
    assert root.find("testsuite[@name='a800']/testcase[@name='torch2.9.1-cu130']/error") is not None


def test_junit_is_xml_whatever_a_container_says() -> None:
    root = ElementTree.fromstring(render_junit(hostile()))
    failure = root.find("testsuite/testcase/failure")
    assert failure is not None
    assert "<script>alert(1)</script>" in (failure.text or "")


def test_the_console_is_coloured_only_where_asked_and_obeys_nothing() -> None:
    plain = render_console(hostile(), colour=False)
    assert "\x1b" not in plain
    assert "::error::" not in plain
    assert "##[" not in plain
    assert "\u202e" not in plain
    coloured = render_console(mixed(), colour=True)
    assert re.sub(r"\x1b\[\d+m", "", coloured) == render_console(mixed(), colour=False)
    assert coloured.count("\x1b[0m") == len(re.findall(r"\x1b\[[1-9]\d*m", coloured))


def test_a_brief_report_leaves_out_what_is_all_good() -> None:
    assert "torch2.6.0-cpu" not in render_brief(mixed())
    assert "torch2.2.0-cu121" in render_brief(mixed())
    assert "| Image |" not in render_brief(CASES["green"]())
    assert len(render_brief(hostile())) < 60_000
    assert HOSTILE not in render_brief(hostile())


def test_a_brief_report_links_to_the_page_or_nowhere() -> None:
    assert "](https://o.github.io/r/#cell-torch2.2.0-cu121--a800)" in render_brief(mixed())
    assert "](#" not in render_brief(CASES["nothing-ran"]())
