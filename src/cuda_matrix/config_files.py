"""Owns the way from a folder of YAML files (or one file) to a checked configuration that knows its places.

Must not know what a cell is worth or how it runs; what the types cannot see is found by matrix.expand.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuda_matrix import documents, matrix
from cuda_matrix.config import Config
from cuda_matrix.documents import Document, Locate, Place
from cuda_matrix.errors import ConfigurationError, Problem
from cuda_matrix.explain import ValuePath, describe, dotted, unknown_key
from cuda_matrix.image_axes import Finding

DIRECTORY = "matrix"
SINGLE_FILE = "cuda-matrix.yml"

_LISTS = ("images", "exclude", "include")
_WAY_OUT = "`cuda-matrix init` writes a commented starter configuration"


@dataclass(frozen=True)
class LoadedConfig:
    """A valid configuration, multiplied out. `locate(path, key)` says where the user wrote a value (or its key)."""

    config: Config
    expansion: matrix.Expansion
    files: tuple[str, ...]
    locate: Locate


def load(config: str | Path | None = None, root: Path = Path()) -> LoadedConfig:
    """Find, read, merge and check. `config` is a file or a directory; without it, `root` is searched.

    Raises:
        ConfigurationError: with every problem of every file, in the order of their lines.
    """
    paths = find(config, root)
    found, problems = _read_all(paths)
    source = Path(config or (paths[0] if len(paths) == 1 else paths[0].parent)).as_posix()
    merged = _Merged(found, source)
    result = documents.problems_of(Config, merged.value, merged.locate)
    told = {each.path for each in merged.problems}
    late = [each for each in result if each.path not in told] if isinstance(result, list) else []
    is_whole = len(found) == len(paths)  # else what seems to be missing may stand in a file that could not be read
    problems += [each for each in (*merged.problems, *late) if each.line or is_whole]
    if problems or isinstance(result, list):
        raise documents.wrong(problems)
    expansion = matrix.expand(result)
    if expansion.problems:
        raise documents.wrong([_problem(finding, merged.locate) for finding in expansion.problems])
    return LoadedConfig(result, expansion, tuple(document.file for document in found), merged.locate)


def find(config: str | Path | None, root: Path) -> list[Path]:
    """The files to read, in the order of their names.

    Raises:
        ConfigurationError: there is none, or it is not clear which are meant.
    """
    if config is not None:
        path = Path(config)
        if path.is_dir():
            return _yaml_files(path)
        if not path.exists():
            msg = f"there is no {path}"
            raise ConfigurationError(msg, hint=_WAY_OUT)
        return [path]
    directory, single = root / DIRECTORY, root / SINGLE_FILE
    if directory.is_dir() and single.exists():
        msg = f"both {directory}/ and {single} are here"
        raise ConfigurationError(msg, hint="keep one of them, or say which with --config")
    if directory.is_dir():
        return _yaml_files(directory)
    if single.exists():
        return [single]
    msg = f"there is no configuration here: neither {directory}/*.yml nor {single}"
    raise ConfigurationError(msg, hint=_WAY_OUT)


def read(path: Path) -> Document:
    """Read one file of a configuration.

    Raises:
        ConfigurationError: it cannot be read, or is not YAML.
    """
    name = path.as_posix()
    try:
        with path.open("rb") as stream:
            data = stream.read(documents.FILE_LIMIT + 1)
    except OSError as error:
        problem = Problem(name, 0, 0, "", f"cannot be read: {error.strerror}")
        msg = f"cannot read {name}"
        raise ConfigurationError(msg, problems=(problem,)) from error
    return documents.parse(data, name)


def _read_all(paths: list[Path]) -> tuple[list[Document], list[Problem]]:
    found: list[Document] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            found.append(read(path))
        except ConfigurationError as error:  # noqa: PERF203 - one unreadable file must not hide the others' problems
            problems += error.problems
    return found, problems


def _yaml_files(directory: Path) -> list[Path]:
    found = sorted(
        path
        for path in directory.iterdir()
        if path.suffix in {".yml", ".yaml"} and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        msg = f"{directory} holds no *.yml or *.yaml file"
        raise ConfigurationError(msg, hint=_WAY_OUT)
    return found


def _problem(finding: Finding, locate: Locate) -> Problem:
    place = locate(finding.path, finding.key)
    also = f" (see {locate(finding.other, finding.key)})" if finding.other is not None else ""
    return Problem(place.file, place.line, place.column, dotted(finding.path), f"{finding.message}{also}")


class _Merged:
    """Several documents as one value: lists are joined, mappings united; nothing is overridden."""

    def __init__(self, found: list[Document], source: str) -> None:
        self.value: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self._source = source
        self._origins: dict[ValuePath, tuple[Document, ValuePath]] = {}
        for document in found:
            if not isinstance(document.value, dict):
                text = f"expected a mapping (key: value) such as `version: 1`, found {describe(document.value)}"
                self._report(document, (), text)
                continue
            for key, value in document.value.items():
                self._add(document, key, value)
        if "version" not in self.value:
            self.value["version"] = 1  # one problem in our words, not a second in pydantic's
            self.problems.append(Problem(source, 0, 0, "version", "no file says `version: 1`"))

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
                self.value.setdefault(key, () if key in _LISTS else {})

    def _version(self, document: Document, value: Any) -> None:
        if isinstance(value, bool) or value != 1:
            text = f"this cuda-matrix reads version 1 of the format (write `version: 1`), found {describe(value)}"
            self._report(document, ("version",), text)
        self._origins.setdefault(("version",), (document, ("version",)))
        self.value["version"] = 1

    def _join(self, document: Document, key: str, value: tuple[Any, ...]) -> None:
        before = self.value.get(key, ())
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
        place = document.locate(path, key)
        self.problems.append(Problem(place.file, place.line, place.column, dotted(path), text))
