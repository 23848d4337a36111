from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt

from cuda_matrix.model import Verdict
from cuda_matrix.report.console import render_console
from cuda_matrix.report.drawings import drawn
from cuda_matrix.report.html import render_html
from cuda_matrix.report.jsonform import ReportForm, render_json
from cuda_matrix.report.junit import render_junit
from cuda_matrix.report.markdown import render_markdown
from cuda_matrix.report.render import FILES, render
from cuda_matrix.report.words import WORDS
from report_cases import CASES, hostile, mixed

Golden = Callable[[str, str], None]


@pytest.mark.parametrize("case", CASES)
def test_whole_reports(case: str, golden: Golden) -> None:
    view = CASES[case]()
    for name, text in render(view).items():
        golden(f"report/{case}/{name}", text)
    golden(f"report/{case}/console.txt", render_console(view, colour=False))


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


@pytest.mark.parametrize("case", CASES)
def test_the_page_needs_no_font_with_emoji_and_says_what_it_draws(case: str) -> None:
    page = render_html(CASES[case]())
    symbols = {word.symbol for word in WORDS.values()}
    assert [symbol for symbol in symbols if symbol in page] == []
    drawings = re.findall(r'<svg class="symbol s-([\w-]+)" viewBox="0 0 16 16" ([^>]*)><path d="([^"]+)"/></svg>', page)
    assert len(drawings) == page.count('class="symbol ')
    spoken = {word.word for word in WORDS.values()}
    for verdict, attributes, _ in drawings:
        label = re.fullmatch(r'role="img" aria-label="([^"]+)"', attributes)
        assert attributes == 'aria-hidden="true"' or (label and label[1] in spoken)
        assert Verdict(verdict) in WORDS
    for cell in re.findall(r"<td class=\"v-.*?</td>", page, re.DOTALL):
        assert 'role="img"' in cell  # a number alone says nothing of good and bad


def test_prose_on_a_terminal_is_broken_at_100_columns() -> None:
    for case in CASES.values():
        text = render_console(case(), colour=False)
        long = [line for line in text.splitlines() if len(line) > 100 and not line.startswith("  $ ")]
        tables = re.compile(r"\S {2,}\S|^ {20,}")
        assert [line for line in long if not tables.search(line) and " " in line.strip()[:80]] == []
    lines = render_console(mixed(), colour=False).splitlines()
    assert any(line.endswith("-> torch2.2.0-cu118") and "FAIL" not in line for line in lines)


def test_no_two_verdicts_are_drawn_alike() -> None:
    paths = [re.sub(r'.*<path d="([^"]+)".*', r"\1", drawn(word.symbol)) for word in WORDS.values()]
    assert len(set(paths)) == len(WORDS)
    assert drawn("simulated:") == "simulated:"


def test_a_wide_table_says_on_a_small_screen_that_it_scrolls() -> None:
    assert '<p class="note sideways">4 machines: the table scrolls sideways.</p>' in render_html(mixed())


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
