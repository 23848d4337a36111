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
from cuda_matrix.explain import Flaw, ValuePath, dotted, flaws
from cuda_matrix.yaml_values import Node, Repeated, YamlError, compose

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
    """One file, read. `value` is made of dict, tuple, str, bool, None, PlainInt and PlainFloat.

    `repeated` and `problems` are filled where a key that stands twice was forgiven: where it is, and what to say.
    """

    file: str
    root: Node
    repeated: tuple[ValuePath, ...] = ()
    problems: tuple[Problem, ...] = ()

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


def parse(data: bytes, file: str, *, forgiving: bool = False) -> Document:
    """Read one YAML document (UTF-8, with or without a byte order mark, at most 4 MiB).

    Args:
        data: the bytes.
        file: its name in problems.
        forgiving: read on behind a key that stands twice; the first is kept, the document's `problems` tell of it.

    Raises:
        ConfigurationError: with one problem, at its line and column.
    """
    if len(data) > FILE_LIMIT:
        raise _unreadable(file, f"the file is larger than {FILE_LIMIT >> 20} MiB")
    try:
        repeated: list[Repeated] | None = [] if forgiving else None
        root = compose(data.decode("utf-8-sig"), repeated)
        return _with_repeated(Document(file, root), repeated) if repeated else Document(file, root)
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
    found, flawed = check(model, value, strict=strict)
    if found is None:
        raise wrong([problem_at(flaw.path, flaw.message, locate, key=flaw.key) for flaw in flawed])
    return found


def check(model: type[Model], value: Any, *, strict: bool = True) -> tuple[Model | None, list[Flaw]]:
    """The model, or None and what the types refuse: for a caller that has more to look for."""
    try:
        return model.model_validate(value, strict=strict), []
    except ValidationError as error:
        return None, flaws(model, error)


def problem_at(path: ValuePath, text: str, locate: Locate, *, key: bool = False) -> Problem:
    """A sentence about a value (or its key), with the place where that was written."""
    place = locate(path, key)
    return Problem(place.file, place.line, place.column, dotted(path), text)


def wrong(problems: list[Problem]) -> ConfigurationError:
    """The error that carries these problems, in the order of the files' lines."""
    ordered = tuple(sorted(dict.fromkeys(problems), key=lambda problem: (problem.file, problem.line, problem.column)))
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
        found = flaws(model, error)
        raise wrong([problem_at(flaw.path, flaw.message, lambda *_: Place(file)) for flaw in found]) from error


def _with_repeated(document: Document, repeated: list[Repeated]) -> Document:
    """Where the repeated keys are: nodes know what lies below them, but not where they stand."""
    wanted = {id(each.mapping) for each in repeated}
    paths: dict[int, ValuePath] = {}
    todo: list[tuple[Node, ValuePath]] = [(document.root, ())]
    while todo and len(paths) < len(wanted):
        node, path = todo.pop()
        if id(node) in wanted:
            paths.setdefault(id(node), path)
        todo += [(child, (*path, part)) for part, child in node.children.items() if child.height]
    if id(document.root) in wanted:
        paths[id(document.root)] = ()
    found = [((*paths.get(id(each.mapping), ()), each.key), each) for each in repeated]
    problems = [Problem(document.file, *each.mark, dotted(path), each.message) for path, each in found]
    return Document(document.file, document.root, tuple(path for path, _ in found), tuple(problems))


def _unreadable(file: str, text: str, line: int = 0, column: int = 0) -> ConfigurationError:
    problem = Problem(file, line, column, "", text)
    return ConfigurationError(f"cannot read {file}", problems=(problem,))
