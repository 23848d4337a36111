from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from cuda_matrix.report import escape
from report_cases import HOSTILE

TEXTS = st.text(
    alphabet=st.one_of(st.sampled_from("`|\\<>&[]()*_~#@!\n\r\t -+.:=/$1aGHw"), st.characters()), max_size=60
)


def parser() -> MarkdownIt:
    return MarkdownIt("commonmark").enable("table").enable("strikethrough")


def inline(source: str) -> tuple[str, set[str]]:
    """Text and kinds of token that a Markdown parser sees in one paragraph."""
    tokens = [child for token in parser().parse(source) if token.type == "inline" for child in token.children or ()]
    return "".join(token.content for token in tokens), {token.type for token in tokens}


@given(TEXTS)
def test_escaped_text_is_one_paragraph_of_text_alone(text: str) -> None:
    escaped = escape.markdown(text)
    blocks = [token.type for token in parser().parse(f"x {escaped}")]
    assert blocks == ["paragraph_open", "inline", "paragraph_close"]
    shown, kinds = inline(f"x {escaped}")
    assert kinds in ({"text"}, {"text", "text_special"})
    assert shown.replace("\u200b", "").rstrip() == f"x {escape.one_line(text)}".rstrip()


@given(TEXTS)
def test_escaped_text_opens_no_block_at_the_start_of_a_line(text: str) -> None:
    tokens = parser().parse(f"{escape.markdown(text) or 'x'}\n\nlast")
    assert {token.type for token in tokens} == {"paragraph_open", "inline", "paragraph_close"}


@given(TEXTS)
def test_a_code_span_holds_exactly_its_text(text: str) -> None:
    tokens = parser().parse(f"x {escape.code(text)} y")
    spans = [child for child in tokens[1].children or () if child.type == "code_inline"]
    assert [span.content.strip(" ") for span in spans] == [escape.one_line(text)]


def letters(text: str) -> str:
    """Without spaces, backticks and what breaks a link."""
    return "".join(text.replace("\u200b", "").replace("`", "").split())


@given(TEXTS)
def test_prose_is_one_paragraph_of_text_and_code_alone(text: str) -> None:
    tokens = parser().parse(f"x {escape.markdown_prose(text)}")
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    shown, kinds = inline(f"x {escape.markdown_prose(text)}")
    assert kinds <= {"text", "text_special", "code_inline"}
    assert letters(shown) == letters(f"x{escape.one_line(text)}")


@pytest.mark.parametrize(
    ("text", "markdown", "html"),
    [
        ("than `expect` says", "than `expect` says", "than <code>expect</code> says"),
        ("`a|b`, `c`", "`a|b`, `c`", "<code>a|b</code>, <code>c</code>"),
        ("one ` alone", "one \\` alone", "one ` alone"),
        ("``two``", "\\`\\`two\\`\\`", "``two``"),
        ("`<b>` <i>", "`<b>` &lt;i&gt;", "<code>&lt;b&gt;</code> &lt;i&gt;"),
    ],
)
def test_backticks_of_prose_are_code(text: str, markdown: str, html: str) -> None:
    assert escape.markdown_prose(text) == markdown
    assert escape.html_prose(text) == html


@given(TEXTS)
def test_a_fence_cannot_be_left(text: str) -> None:
    tokens = parser().parse(f"{escape.fence(text)}\n\nafter")
    assert [token.type for token in tokens] == ["fence", "paragraph_open", "inline", "paragraph_close"]


@given(TEXTS, TEXTS)
def test_a_table_keeps_its_fields(first: str, second: str) -> None:
    source = f"| a | b |\n| --- | --- |\n| {escape.markdown(first)} | {escape.table_code(second)} |\n\nafter"
    kinds = [token.type for token in parser().parse(source)]
    assert kinds.count("td_open") == 2
    assert kinds.count("table_open") == kinds.count("paragraph_open") == 1


@given(st.text())
def test_printable_text_has_no_unseen_character(text: str) -> None:
    shown = escape.printable(text)
    assert not [c for c in shown if unicodedata.category(c) in {"Cc", "Cs"} and c not in "\n\t"]
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u2028\u2029]", shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]8;;https://x\x07link\x1b]8;;\x07", "link"),
        ("10%\r20%\r\n30%", "10%\n20%\n30%"),
        ("a\u202eb\x00c", "a\ufffdb\ufffdc"),
        ("24\u00a0GiB 3 × ≥ 德", "24\u00a0GiB 3 × ≥ 德"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert escape.printable(text) == shown


@pytest.mark.parametrize("text", ["@octocat", "x @a/b", "#12", "o/r#12", "GH-3", "https://x.y", "www.x.y", "a@b.com"])
def test_what_github_links_by_itself_is_broken(text: str) -> None:
    assert "\u200b" in escape.markdown(text)


def test_www_is_broken_before_its_dot_since_cmark_gfm_links_whatever_follows_it() -> None:
    assert escape.markdown("www.x.y") == "www\u200b.x.y"


@pytest.mark.parametrize("text", ["torch2.2.0-cu121@a800", "2.2.0+cu121", "550.54.15", "p5–p95", "a::b"])
def test_plain_words_stay_as_they_are(text: str) -> None:
    assert escape.markdown(text) == text


@pytest.mark.parametrize("target", ["javascript:alert(1)", "http://x.y", "https://x.y/)(", "https://x y", "//x", ""])
def test_a_link_leads_to_https_or_an_anchor_only(target: str) -> None:
    assert escape.link(escape.markdown("text"), target) == "text"


@pytest.mark.parametrize(
    "text", ["::error::x", "  ::set-output name=a::b", "a ::Stop-Commands::t", "##[error]x", "a\n::add-mask::x"]
)
def test_a_runner_obeys_nothing_in_a_log_line(text: str) -> None:
    shown = escape.console_text(text)
    assert "##[" not in shown
    assert not re.search(r"::(error|set-output|stop-commands|add-mask)", shown, re.IGNORECASE)


def test_the_hostile_text_is_hostile_enough() -> None:
    assert escape.printable(HOSTILE) != HOSTILE
    assert inline(f"x {HOSTILE}")[1] >= {"text", "html_inline", "code_inline", "strong_open"}
