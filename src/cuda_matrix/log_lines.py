"""Owns what one line of a log says once everything that tools wrap around it is gone.

Terminal colours, time stamps, the prefixes of docker compose, kubectl, GitHub Actions and the journal, Markdown
quotes and fences, JSON records (also cut or nested ones), the headers of Docker's raw stream, characters that nobody
sees. Must not know which line matters.
"""

from __future__ import annotations

import html
import re

from cuda_matrix.json_records import said_in_record

LINE_LIMIT = 2_000  # characters: what a diagnosis looks at

# CSI sequences, OSC, DCS and APC strings, character sets (`tput sgr0`) and the two-character ones (ECMA-48, ECMA-35).
_ANSI = re.compile(
    r"\x1b(?:\[[0-?]{0,64}[ -/]{0,8}[@-~]|[\]P^_X][^\x07\x1b]{0,2000}(?:\x07|\x1b\\)?|[ -/]{1,8}[0-~]|[@-Z\\-_])"
)
# Docker's stream of a container without a terminal: which stream, three zeros, the length (docs.docker.com/reference/
# api/engine, "Stream format").
_DOCKER_HEADER = re.compile(rb"(?<![^\n])[\0-\2]\0{3}\0[\0-\xff]{3}")
# What a paste from a web page, a chat or a manual page carries along: joiners, marks of direction, overstruck letters.
# And halves of a character, which JSON can name and nothing can print.
_INVISIBLE = re.compile(
    "[\0\x0e\x0f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\ud800-\udfff]|.\x08"
)
_SPACES = str.maketrans(dict.fromkeys("\u00a0\u2002\u2003\u2007\u2009\u202f\u3000", " "))
_ENTITY = re.compile(r"&(?:lt|gt|quot|amp|nbsp|#39|#x27|#34|#x2f);", re.IGNORECASE)
# A text that somebody printed as a literal: its line ends and quotes are escaped, once or more often.
_ESCAPED_END = re.compile(r"(?:\\{1,4}r)?\\{1,4}n")
_ESCAPED_QUOTE = re.compile(r"\\{1,4}(?=\")")
_ESCAPED_SIGN = re.compile(r"\\{1,2}u00(3[ce]|26)", re.IGNORECASE)
_ESCAPED_ENDS = 2  # from which on they are line ends; a Windows path has a `\n` as well
_DRIVE = re.compile(r"[A-Za-z]:\\")
_ENDS = re.compile(r"[\r\n\x0b\x0c\x85\u2028\u2029]")
_QUOTED = re.compile(r"(`{1,3})[^`\s][^`]*\1")  # a line as code in Markdown
_FENCE = re.compile(r"(?:```|~~~)[\w.+-]{0,20}")
_STAMP = r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:[ ]?(?:Z|UTC|[+-]\d\d:?\d\d))?"
_PREFIX = re.compile(
    rf"""\s{{0,200}}(?:
      (?:>\s?){{1,8}}                                        # Markdown quote
    | [A-Za-z0-9][\w.-]{{0,63}}\s{{0,40}}\|\s                # docker compose
    | \[(?:pod|container)/[^\]\s]{{1,200}}\]\s               # kubectl logs --prefix
    | (?:stdout|stderr)\s[FP]\s                              # CRI
    | [A-Z][a-z]{{2}}\s[\s\d]\d\s\d\d:\d\d:\d\d(?:\.\d{{6}})?\s
      [\w.-]{{1,64}}\s[\w./@-]{{1,64}}(?:\[\d{{1,10}}\])?:\s   # journal
    | {_STAMP}\s[\w.-]{{1,64}}\s[\w./@-]{{1,64}}\[\d{{1,10}}\]:\s # journal, short-iso
    | \[?{_STAMP}\]?(?:\s|$)                                 # GitHub Actions, docker logs -t, many loggers
    | [^\t]{{1,100}}\t[^\t]{{1,100}}\t\ufeff?(?={_STAMP}\s)      # gh run view --log
    | [0-9a-f]{{2}}[OE][ +](?=\S)                            # GitLab, behind a time stamp
    | \[\s{{0,12}}\d{{1,9}}\.\d{{6}}\]\s                     # kernel ring buffer
    | \[[A-Z][a-z]{{2}}\s[A-Z][a-z]{{2}}\s[\s\d]\d\s\d\d:\d\d:\d\d\s\d{{4}}\]\s # dmesg -T
    | <\d{{1,3}}>(?=\[)                                     # its level
    | \#\d{{1,4}}\s\d{{1,6}}\.\d{{1,3}}\s                    # BuildKit
    | \[(?:rank|default)\d{{1,5}}\]:(?:\s|$)                 # torchrun
    | \#\#\[[a-z-]{{1,20}}\]                                 # GitHub Actions, as stored
    )""",
    re.VERBOSE,
)
_PREFIXES_LIMIT = 8
_RECORDS_LIMIT = 3  # records inside the text of a record


def said(raw: bytes) -> list[str]:
    """What a stretch of a log says: its lines that are not empty, each at most LINE_LIMIT characters.

    A longer line comes in several parts that overlap by a quarter, so that a sentence is whole in one of them.
    """
    if b"\0" in raw:
        raw = _DOCKER_HEADER.sub(b"", raw)
    text = seen(_decoded(raw))
    return [part for line in _ENDS.split(text) for each in _unwrapped(line) for part in _parts(each)]


def seen(text: str) -> str:
    """The text as a reader sees it: no escape sequences, no invisible characters, every space a space."""
    text = _ANSI.sub("", text)
    return text if text.isascii() and text.isprintable() else _INVISIBLE.sub("", text).translate(_SPACES)


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        # A cut in the middle of a character is no other encoding.
        forgiving = raw.decode("utf-8", "replace")
        return forgiving if forgiving.count("\ufffd") <= 2 + len(raw) // 500 else raw.decode("latin-1")


def _unwrapped(line: str, depth: int = 0) -> list[str]:
    """The line without its prefixes; a JSON record gives the lines that it holds."""
    for _ in range(_PREFIXES_LIMIT if depth == 0 else 1):
        found = _PREFIX.match(line)
        if found is None:
            break
        line = line[found.end() :]
    line = line.strip()
    if not line or _FENCE.fullmatch(line):
        return []
    if _QUOTED.fullmatch(line):
        line = line.strip("`").strip()
    inner = said_in_record(line)
    if inner is not None and depth < _RECORDS_LIMIT:
        return [each for part in _ENDS.split(seen(inner)) for each in _unwrapped(part, depth + 1)]
    return _unescaped(line)


def _unescaped(line: str) -> list[str]:
    """The lines of a text that was printed as a literal, or that a web page has escaped."""
    if "&" in line:
        line = _ENTITY.sub(lambda entity: html.unescape(entity[0]), line).translate(_SPACES)
    if "\\" not in line:
        return [line]
    line = _ESCAPED_SIGN.sub(lambda sign: chr(int(sign[1], 16)), _ESCAPED_QUOTE.sub("", line))
    if _DRIVE.search(line) or len(_ESCAPED_END.findall(line)) < _ESCAPED_ENDS:
        return [line]
    return [part for each in _ESCAPED_END.split(line) if (part := each.strip())]


def _parts(line: str) -> list[str]:
    if len(line) <= LINE_LIMIT:
        return [line]
    step = LINE_LIMIT - LINE_LIMIT // 4
    return [line[start : start + LINE_LIMIT] for start in range(0, len(line) - LINE_LIMIT // 4, step)]
