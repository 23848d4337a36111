"""Owns the making harmless of hostile text, one function per place it can end up in.

Must not know what the text says. HTML itself is escaped by the template engine (autoescape).
"""

from __future__ import annotations

import re

from markupsafe import Markup

# CSI, OSC and two-character escape sequences (ECMA-48).
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_LINE_END = re.compile(r"\r\n|[\r\v\f\x85\u2028\u2029]")
# Controls, bidirectional overrides, invisible characters, surrogates and non-characters: what a reader cannot see.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n){2,}")
_GAP = re.compile(r"[ \t\n]+")

_MARKDOWN = re.compile(r"[\\`*_~\[\]$]")
# What GitHub links by itself: @name (not inside a word: a cell id stays whole), mail, #1, GH-1, ://, www.
_LINKED = re.compile(
    r"(?<![A-Za-z0-9_])@|@(?=[\w-]*\.)|#(?=\d)|(?<=GH)-(?=\d)|:(?=//)|(?:mailto|xmpp):|www(?=\.)", re.IGNORECASE
)
_LINE_START = re.compile(r"^(?:([-+=#:])|(\d+)([.)])(?= |$))")
_TICKED = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_RUN = re.compile(r"`+")
# Commands that a GitHub runner obeys in a log line (actions/runner, ActionCommand.cs), `::x::` and the old `##[x]`.
_RUNNER_COMMAND = re.compile(
    r":(?=:(?:add-mask|add-matcher|add-path|debug|echo|endgroup|error|group|notice|remove-matcher|save-state|set-env|"
    r"set-output|stop-commands|warning)\b)",
    re.IGNORECASE,
)
_BREAK = "\u200b"


class Markdown(str):
    """Text that is Markdown already: it is not escaped again."""

    __slots__ = ()


def printable(text: str) -> str:
    """Lines of visible characters: escape sequences dropped, other unseen characters shown as U+FFFD."""
    return _UNSEEN.sub("\ufffd", _LINE_END.sub("\n", _ANSI.sub("", text)))


def one_line(text: str) -> str:
    """Printable, on one line, without leading and trailing space. A no-break space stays."""
    return _GAP.sub(" ", printable(text)).strip(" ")


def short(text: str, limit: int) -> str:
    """At most `limit` characters, with an ellipsis where some are missing."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def markdown(text: str) -> Markdown:
    """Plain text for any inline place of GitHub's Markdown, tables included.

    Besides the syntax, it breaks mentions, references to issues, and bare links with a zero-width space.
    """
    escaped = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "&vert;")
    escaped = _MARKDOWN.sub(r"\\\g<0>", escaped)
    escaped = _LINKED.sub(rf"\g<0>{_BREAK}", escaped)
    return Markdown(_LINE_START.sub(_defused, escaped))


def _defused(match: re.Match[str]) -> str:
    return f"\\{match[1]}" if match[1] else f"{match[2]}\\{match[3]}"


def markdown_prose(text: str) -> Markdown:
    """Like `markdown`, but what stands between two single backticks is a code span. Not for tables."""
    parts = _TICKED.split(one_line(text))
    return Markdown("".join(code(part) if index % 2 else _inner(part) for index, part in enumerate(parts)))


def html_prose(text: str) -> Markup:
    """Escaped for HTML; what stands between two single backticks is code."""
    parts = _TICKED.split(printable(text))
    made = [Markup("<code>{}</code>").format(part) if i % 2 else Markup.escape(part) for i, part in enumerate(parts)]
    return Markup("").join(made)


def _inner(text: str) -> str:
    """Markdown of a part of a line, whose outer spaces count."""
    return f"{' ' * text.startswith(' ')}{markdown(text)}{' ' * (text.endswith(' ') and len(text) > 1)}"


def code(text: str) -> Markdown:
    """An inline code span outside a table."""
    content = one_line(text) or " "
    ticks = "`" * (_longest_run(content) + 1)
    space = " " if content[0] == "`" or content[-1] == "`" else ""
    return Markdown(f"{ticks}{space}{content}{space}{ticks}")


def table_code(text: str) -> Markdown:
    """An inline code span inside a table. GitHub splits cells before it looks for code, so no pipe may be in it."""
    return Markdown(f"<code>{markdown(text)}</code>") if "|" in text else code(text)


def fence(text: str, language: str = "") -> Markdown:
    """A fenced block, its fence longer than any run of backticks inside; several blank lines become one."""
    content = _BLANK_LINES.sub("\n\n", printable(text)).strip("\n")
    ticks = "`" * max(3, _longest_run(content) + 1)
    return Markdown(f"{ticks}{language}\n{content}\n{ticks}")


def anchor(name: str) -> Markdown:
    """A place that a link can point to; `name` is made of letters, digits, `.`, `_` and `-`."""
    return Markdown(f'<a id="{name}"></a>')


def link(text: Markdown, target: str) -> Markdown:
    """A link to an address; one that is not plain https or an anchor of this page is shown as text alone."""
    if not re.fullmatch(r"(?:https://|#)[A-Za-z0-9./?=&%#_~:@+,;-]+", target):
        return text
    return Markdown(f"[{text}]({target})")


def console_text(text: str) -> str:
    """One line for a terminal or a job log: nothing that either of them obeys."""
    broken = _RUNNER_COMMAND.sub(f":{_BREAK}", one_line(text))
    return broken.replace("##[", f"##{_BREAK}[")


def _longest_run(text: str) -> int:
    return max((len(run) for run in _RUN.findall(text)), default=0)
