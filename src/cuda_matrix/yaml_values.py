"""Owns YAML text → plain values that remember where they were written.

Built from PyYAML's events, without recursion, so that depth, size and aliases are bounded before anything
is built. Must not know files, models or what the values mean.

A mapping's keys are text exactly as written (`on`, `12.10` and `no` are words here). Scalars resolve as
PyYAML's SafeLoader does, except that dates stay text and numbers keep their spelling. Sequences are tuples.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml
from yaml.constructor import SafeConstructor

DEPTH_LIMIT = 64
NODE_LIMIT = 1_000_000  # values, each alias counted as often as it is used

_TAGS = "tag:yaml.org,2002:"
_SCALARS = SafeConstructor()
_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# https://yaml.org/spec/1.1/#c-printable
_NOT_PRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")


class PlainInt(int):
    """An unquoted whole number, and how it was written."""

    text: str

    def __new__(cls, value: int, text: str) -> PlainInt:
        """A number that keeps its spelling."""
        self = super().__new__(cls, value)
        self.text = text
        return self

    def __str__(self) -> str:
        return self.text


class PlainFloat(float):
    """An unquoted number with a fraction, and how it was written: 12.10 is not 12.1."""

    text: str

    def __new__(cls, value: float, text: str) -> PlainFloat:
        """A number that keeps its spelling."""
        self = super().__new__(cls, value)
        self.text = text
        return self

    def __str__(self) -> str:
        return self.text


class Mark(NamedTuple):
    """A place in a text; both count from 1."""

    line: int
    column: int


class YamlError(Exception):
    """The text cannot be read. `mark` is None where the whole text is meant."""

    def __init__(self, message: str, mark: Mark | None) -> None:
        super().__init__(message)
        self.mark = mark


class Node:
    """One value, its place, and what lies below it: `keys` and `children` for a mapping, `children` for a sequence."""

    __slots__ = ("children", "height", "is_open", "items", "keys", "mark", "size", "text", "value")

    def __init__(self, value: Any, mark: Mark, text: str | None = None) -> None:
        self.value = value
        self.mark = mark
        self.text = text  # of a scalar, as written
        if text is None:
            self.children: dict[str | int, Node] = {}
            self.keys: dict[str, Mark] = {}
            self.items: list[tuple[str, Mark, Node]] = []  # of an open mapping, still with its merge keys
        else:  # a million scalars share what none of them fills
            self.children, self.keys, self.items = _CHILDREN, _KEYS, _ITEMS
        self.size = 1
        self.height = 0
        self.is_open = False


class Repeated(NamedTuple):
    """A key that stands twice in one mapping; the first is kept."""

    mapping: Node
    key: str
    mark: Mark
    message: str


_CHILDREN: dict[str | int, Node] = {}
_KEYS: dict[str, Mark] = {}
_ITEMS: list[tuple[str, Mark, Node]] = []


def compose(text: str, repeated: list[Repeated] | None = None) -> Node:
    """The one document of a text. With a list in `repeated`, keys that stand twice are noted there and forgiven.

    Raises:
        YamlError: it is not YAML, not one document, empty, or beyond a limit; or a key stands twice.
    """
    bad = _NOT_PRINTABLE.search(text)
    if bad:
        msg = f"the character U+{ord(bad[0]):04X} is not allowed in YAML"
        raise YamlError(msg, _mark_at(text, bad.start()))
    composer = _Composer(repeated)
    try:
        for event in _events(text):
            composer.take(event)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(text, error) from error
    except yaml.YAMLError as error:
        msg = f"not valid YAML: {error}"
        raise YamlError(msg, None) from error
    if composer.root is None or composer.root.value is None:
        msg = "the file is empty"
        raise YamlError(msg, None)
    return composer.root


def _events(text: str) -> Iterator[Any]:
    return yaml.parse(text, Loader=_PARSER)


class _Composer:
    """Turns events into nodes. A stack of open containers stands for the recursion."""

    def __init__(self, repeated: list[Repeated] | None) -> None:
        self.root: Node | None = None
        self._repeated = repeated
        self._stack: list[Node] = []
        self._pending: list[tuple[str, Mark] | None] = []  # per open container: the key that waits for its value
        self._anchors: dict[str, Node] = {}
        self._total = 0

    def take(self, event: Any) -> None:
        """Feed one event."""
        mark = Mark(event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, yaml.DocumentStartEvent):
            if self.root is not None:
                msg = "a second document starts here: write one document per file"
                raise YamlError(msg, mark)
        elif isinstance(event, yaml.AliasEvent):
            self._attach(self._alias(event.anchor, mark), mark)
        elif isinstance(event, yaml.ScalarEvent):
            node = Node(_scalar(event, mark), mark, event.value)
            self._enter(node, event)
            self._attach(node, mark)
        elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            is_mapping = isinstance(event, yaml.MappingStartEvent)
            _refuse_tag(event.tag, "map" if is_mapping else "seq", mark)
            if len(self._stack) >= DEPTH_LIMIT:
                raise _too_deep(mark)
            node = Node({} if is_mapping else (), mark)
            node.is_open = True
            self._enter(node, event)
            self._stack.append(node)
            self._pending.append(None)
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            self._close()

    def _enter(self, node: Node, event: Any) -> None:
        self._count(1, node.mark)
        if event.anchor is not None:
            self._anchors[event.anchor] = node

    def _count(self, nodes: int, mark: Mark) -> None:
        self._total += nodes
        if self._total > NODE_LIMIT:
            msg = f"more than {NODE_LIMIT:,} values, aliases expanded: this looks like a YAML bomb"
            raise YamlError(msg, mark)

    def _alias(self, anchor: str | None, mark: Mark) -> Node:
        node = self._anchors.get(anchor or "")
        if node is None:
            msg = f"the alias *{anchor} has no anchor &{anchor} before it"
            raise YamlError(msg, mark)
        if node.is_open:
            msg = f"the alias *{anchor} stands inside its own anchor"
            raise YamlError(msg, mark)
        self._count(node.size, mark)
        if len(self._stack) + node.height > DEPTH_LIMIT:
            raise _too_deep(mark)
        return node

    def _attach(self, node: Node, mark: Mark) -> None:
        if not self._stack:
            self.root = node
            return
        parent = self._stack[-1]
        parent.size += node.size
        parent.height = max(parent.height, node.height + 1)
        if isinstance(parent.value, tuple):
            parent.children[len(parent.children)] = node
            return
        pending = self._pending[-1]
        if pending is not None:
            self._pending[-1] = None
            parent.items.append((*pending, node))
        elif node.text is None:
            msg = "a key must be a word, not a list or a mapping (a value that starts with { or [ needs quotes)"
            raise YamlError(msg, mark)
        else:
            self._pending[-1] = (node.text, mark)

    def _close(self) -> None:
        node = self._stack.pop()
        self._pending.pop()
        node.is_open = False
        node.height = max(node.height, 1)
        if isinstance(node.value, tuple):
            node.value = tuple(child.value for child in node.children.values())
        else:
            _fill_mapping(node, self._repeated)
        self._attach(node, node.mark)


def _fill_mapping(node: Node, repeated: list[Repeated] | None) -> None:
    """Check the keys; resolve `<<` (https://yaml.org/type/merge.html): own keys win, then the earlier mapping."""
    merged: list[Node] = []
    seen: dict[str, Mark] = {}
    for key, mark, child in node.items:
        if key in seen:
            first = seen[key]
            msg = f"the key {key!r} stands twice in one mapping; first at line {first.line}, column {first.column}"
            if repeated is None:
                raise YamlError(msg, mark)
            repeated.append(Repeated(node, key, mark, msg))
            continue
        seen[key] = mark
        if key == "<<":
            merged = _merge_sources(child, mark)
        else:
            node.keys[key] = mark
            node.children[key] = child
    for source in merged:
        for key, mark in source.keys.items():
            node.keys.setdefault(key, mark)
            node.children.setdefault(key, source.children[key])
    node.items = []
    node.value = {key: child.value for key, child in node.children.items()}


def _merge_sources(node: Node, mark: Mark) -> list[Node]:
    sources = list(node.children.values()) if isinstance(node.value, tuple) else [node]
    if not all(isinstance(source.value, dict) for source in sources):
        msg = "`<<` merges a mapping or a list of mappings, usually an alias such as *name"
        raise YamlError(msg, mark)
    return sources


def _scalar(event: Any, mark: Mark) -> Any:
    text: str = event.value
    bad = _NOT_PRINTABLE.search(text)
    if bad:
        msg = f"the character U+{ord(bad[0]):04X} is not allowed in a value"
        raise YamlError(msg, mark)
    if event.tag is not None:
        _refuse_tag(event.tag, "str", mark)
        return text
    if not event.implicit[0]:
        return text
    tag = _resolve(text)
    if tag not in {"null", "bool", "int", "float"}:
        return text
    node = yaml.ScalarNode(f"{_TAGS}{tag}", text)
    try:
        if tag == "int":
            return PlainInt(_SCALARS.construct_yaml_int(node), text)
        if tag == "float":
            return PlainFloat(_SCALARS.construct_yaml_float(node), text)
    except (ValueError, OverflowError) as error:
        msg = "this looks like a number but is none; write it in quotes if it is meant as text"
        raise YamlError(msg, mark) from error
    return None if tag == "null" else _SCALARS.construct_yaml_bool(node)


def _resolve(text: str) -> str:
    """Short tag of a plain scalar, by the tables of PyYAML's SafeLoader."""
    table = yaml.SafeLoader.yaml_implicit_resolvers
    for tag, pattern in table.get(text[:1], ()):
        if pattern.match(text):
            return str(tag).removeprefix(_TAGS)
    return "str"


def _refuse_tag(tag: str | None, allowed: str, mark: Mark) -> None:
    if tag is None or tag in {"!", f"{_TAGS}{allowed}"}:
        return
    shown = tag.replace(_TAGS, "!!")[:80]
    msg = f"the tag {shown} is not allowed: only plain values are read"
    raise YamlError(msg, mark)


def _too_deep(mark: Mark) -> YamlError:
    return YamlError(f"nested more than {DEPTH_LIMIT} levels deep", mark)


def _syntax_error(text: str, error: yaml.MarkedYAMLError) -> YamlError:
    place = error.problem_mark or error.context_mark
    if place is None:
        return YamlError(f"not valid YAML: {error}", None)
    lines = _LINE_BREAK.split(text)
    line = lines[place.line] if place.line < len(lines) else ""
    if line.lstrip(" ")[:1] == "\t":
        return YamlError("a tab cannot indent YAML: use spaces", Mark(place.line + 1, line.index("\t") + 1))
    words = "; ".join(part for part in (error.problem, error.context) if part)
    return YamlError(f"not valid YAML: {words}", Mark(place.line + 1, place.column + 1))


def _mark_at(text: str, offset: int) -> Mark:
    start, line = 0, 1
    for found in _LINE_BREAK.finditer(text, 0, offset):
        start, line = found.end(), line + 1
    return Mark(line, offset - start + 1)
