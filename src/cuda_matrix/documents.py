"""Owns reading: bytes of one YAML or JSON file → a document with places, and a document → a valid model.

Every problem of a file is reported at once, with file, line and column. Must not know which files there
are (config_files) or what the models mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from cuda_matrix.errors import ConfigurationError, Problem
from cuda_matrix.explain import ValuePath, dotted, message, split_location
from cuda_matrix.yaml_values import Node, YamlError, compose

FILE_LIMIT = 4 << 20  # bytes

Model = TypeVar("Model", bound=BaseModel)


class Place(NamedTuple):
    """Where something was written. `line` and `column` count from 1; 0 means "the whole file"."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


Locate = Callable[[ValuePath, bool], Place]


@dataclass(frozen=True)
class Document:
    """One file, read. `value` is made of dict, tuple, str, bool, None, PlainInt and PlainFloat."""

    file: str
    root: Node

    @property
    def value(self) -> Any:
        """The file's content."""
        return self.root.value

    def locate(self, path: ValuePath, key: bool = False) -> Place:
        """Where the value at `path` stands (with `key`: its key). A path that is not there gives its nearest parent."""
        node, mark = self.root, self.root.mark
        for part in path:
            child = node.children.get(part)
            if child is None:
                return Place(self.file, *mark)
            mark = node.keys[part] if key and isinstance(part, str) else child.mark
            node = child
        return Place(self.file, *mark)


def parse(data: bytes, file: str) -> Document:
    """Read one YAML document (UTF-8, with or without a byte order mark, at most 4 MiB).

    Raises:
        ConfigurationError: with one problem, at its line and column.
    """
    if len(data) > FILE_LIMIT:
        raise _unreadable(file, f"the file is larger than {FILE_LIMIT >> 20} MiB")
    try:
        return Document(file, compose(data.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        start = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        line = data.count(b"\n", 0, start) + 1
        text = f"not UTF-8: byte 0x{data[start]:02x} at offset {start}; save the file as UTF-8"
        raise _unreadable(file, text, line, start - data.rfind(b"\n", 0, start)) from error
    except YamlError as error:
        raise _unreadable(file, str(error), *(error.mark or ())) from error


def validate(model: type[Model], value: Any, locate: Locate, *, strict: bool = True) -> Model:
    """Turn a value into a model.

    Args:
        model: the model asked for.
        value: what was read; sequences must be tuples.
        locate: (path, whether the key is meant) → place.
        strict: no conversions, such as "1" to 1 (leave off for models that hold enums or dates).

    Raises:
        ConfigurationError: with every problem, in the order of the files' lines.
    """
    found = problems_of(model, value, locate, strict=strict)
    if isinstance(found, model):
        return found
    assert isinstance(found, list)
    raise wrong(found)


def problems_of(model: type[Model], value: Any, locate: Locate, *, strict: bool = True) -> Model | list[Problem]:
    """As `validate`, but the problems are returned, for a caller that has more to look for."""
    try:
        return model.model_validate(value, strict=strict)
    except ValidationError as error:
        return _problems(model, error, locate)


def wrong(problems: list[Problem]) -> ConfigurationError:
    """The error that carries these problems, in the order of the files' lines."""
    ordered = tuple(sorted(problems, key=lambda problem: (problem.file, problem.line, problem.column)))
    count = f"{len(ordered)} problems" if len(ordered) > 1 else "1 problem"
    files = sorted({problem.file for problem in ordered})
    return ConfigurationError(f"{count} in {', '.join(files[:3])}{' …' if len(files) > 3 else ''}", problems=ordered)


def load_table(model: type[Model], data: bytes, file: str) -> Model:
    """Read one YAML table into a model.

    Raises:
        ConfigurationError: with every problem, at its line and column.
    """
    document = parse(data, file)
    return validate(model, document.value, document.locate, strict=False)


def read_json(model: type[Model], data: bytes, file: str) -> Model:
    """Read a JSON document into a model. Problems name paths, not lines.

    Raises:
        ConfigurationError: with every problem.
    """
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise wrong(_problems(model, error, lambda _path, _key: Place(file))) from error


def _problems(model: type[BaseModel], error: ValidationError, locate: Locate) -> list[Problem]:
    details = error.errors(include_url=False)
    problems = []
    for detail in details:
        path, is_key = split_location(detail["loc"])
        is_short = detail["type"] == "too_short"
        if is_short and any(other["loc"][: len(path)] == path for other in details if other is not detail):
            continue  # pydantic counts only valid entries: a list of one wrong entry is not also empty
        place = locate(path, is_key or detail["type"] == "extra_forbidden")
        problems.append(Problem(place.file, place.line, place.column, dotted(path), message(model, detail)))
    return problems


def _unreadable(file: str, text: str, line: int = 0, column: int = 0) -> ConfigurationError:
    problem = Problem(file, line, column, "", text)
    return ConfigurationError(f"cannot read {file}", problems=(problem,))
