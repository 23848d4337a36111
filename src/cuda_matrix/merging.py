"""Owns the merging of several YAML documents into one configuration that remembers where each part stands.

Must not know files (config_files) or what the parts mean.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from cuda_matrix.config import Config
from cuda_matrix.documents import Document, Place, problem_at
from cuda_matrix.errors import Problem
from cuda_matrix.explain import ValuePath, describe, near, unknown_key

SECTIONS = tuple(Config.model_fields)

_LISTS = ("images", "exclude", "include")
_NAMED = re.compile(rf"\b({'|'.join(SECTIONS)})[\"']?\s*:")


def sections_named(data: bytes) -> set[str]:
    """Sections that a file which is not YAML may hold, by the looks of its text."""
    return set(_NAMED.findall(data.decode("utf-8", "replace")))


class Merged:
    """Several documents as one value: lists are joined, mappings united; nothing is overridden.

    `doubtful` names sections that may hold more than was read; `repeated`, keys that stand twice in one mapping.
    """

    def __init__(self, found: list[Document], source: str, unread: Collection[str] = ()) -> None:
        self.value: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self.doubtful: set[str] = set(unread)
        self.repeated: list[ValuePath] = []
        self._source = source
        self._origins: dict[ValuePath, tuple[Document, ValuePath]] = {}
        self._starts: dict[tuple[str, str], int] = {}
        for document in found:
            if not isinstance(document.value, dict):
                text = f"expected a mapping (key: value) such as `version: 1`, found {describe(document.value)}"
                self._report(document, (), text)
                continue
            for key, value in document.value.items():
                self._add(document, key, value)
            self.repeated += [self._merged_path(document, path) for path in document.repeated]
        if "version" not in self.value:
            self.value["version"] = 1  # one problem in our words, not a second in pydantic's
            if found and "version" not in self.doubtful:
                text = "the version of the format is missing: write `version: 1` at the top"
                self.problems.append(Problem(found[0].file, 1, 1, "version", text))

    def locate(self, path: ValuePath, key: bool = False) -> Place:
        """Where the user wrote the value at a path of the merged configuration, or its nearest parent."""
        for length in (2, 1):
            origin = self._origins.get(path[:length]) if len(path) >= length else None
            if origin is not None:
                document, start = origin
                return document.locate((*start, *path[length:]), key)
        return Place(self._source)

    def _add(self, document: Document, key: str, value: Any) -> None:
        if key not in Config.model_fields:
            self._report(document, (key,), unknown_key(key, Config.model_fields), key=True)
            self.doubtful.update(filter(None, [near(key, SECTIONS)]))
        elif key == "version":
            self._version(document, value)
        elif value is not None:  # a section whose entries are all commented out is an empty one
            self._origins.setdefault((key,), (document, (key,)))
            if key in _LISTS and isinstance(value, tuple):
                self._join(document, key, value)
            elif key not in _LISTS and isinstance(value, dict):
                self._unite(document, key, value)
            else:
                words = "a list" if key in _LISTS else "a mapping (key: value)"
                self._report(document, (key,), f"expected {words}, found {describe(value)}")
                self.doubtful.add(key)
                self.value.setdefault(key, () if key in _LISTS else {})

    def _merged_path(self, document: Document, path: ValuePath) -> ValuePath:
        start = self._starts.get((document.file, str(path[0]))) if len(path) > 1 else None
        return path if start is None else (path[0], start + int(path[1]), *path[2:])

    def _version(self, document: Document, value: Any) -> None:
        if isinstance(value, bool) or value != 1:
            text = f"this cuda-matrix reads version 1 of the format (write `version: 1`), found {describe(value)}"
            self._report(document, ("version",), text)
        self._origins.setdefault(("version",), (document, ("version",)))
        self.value["version"] = 1

    def _join(self, document: Document, key: str, value: tuple[Any, ...]) -> None:
        before = self.value.get(key, ())
        self._starts[document.file, key] = len(before)
        for index in range(len(value)):
            self._origins[key, len(before) + index] = (document, (key, index))
        self.value[key] = before + value

    def _unite(self, document: Document, key: str, value: dict[str, Any]) -> None:
        target = self.value.setdefault(key, {})
        for name, entry in value.items():
            if name in target:
                first = self.locate((key, name), key=True)
                self._report(document, (key, name), f"{name!r} stands twice; first at {first}", key=True)
                continue
            target[name] = entry
            self._origins[key, name] = (document, (key, name))

    def _report(self, document: Document, path: ValuePath, text: str, *, key: bool = False) -> None:
        self.problems.append(problem_at(path, text, document.locate, key=key))
