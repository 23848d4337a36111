"""Owns the way from a folder of YAML files (or one file) to a checked configuration that knows its places.

Must not know what a cell is worth or how it runs; what the types cannot see is found by matrix.expand and review,
in the same go: what the types refuse is mended first (salvage), and doubted where it matters.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from cuda_matrix import documents, matrix, review, salvage
from cuda_matrix.config import Config
from cuda_matrix.documents import Document, Locate
from cuda_matrix.doubts import Doubts
from cuda_matrix.errors import ConfigurationError, Problem
from cuda_matrix.image_axes import Finding
from cuda_matrix.merging import SECTIONS, Merged, sections_named
from cuda_matrix.plan import Place
from cuda_matrix.reference import load_cards, load_catalogue, load_items

DIRECTORY = "matrix"
SINGLE_FILE = "cuda-matrix.yml"

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
    read_all = _read_all(paths)
    source = Path(config or (paths[0] if len(paths) == 1 else paths[0].parent)).as_posix()
    merged = Merged(read_all.found, source, unread=read_all.sections)
    found, flaws = documents.check(Config, merged.value)
    problems = [*read_all.problems, *merged.problems]
    told = {each.path for each in merged.problems}
    for flaw in flaws:
        problem = documents.problem_at(flaw.path, flaw.message, merged.locate, key=flaw.key)
        if problem.path not in told | read_all.sections:
            problems.append(problem)
    doubts = Doubts(sections=frozenset(merged.doubtful))
    if found is None or merged.repeated:
        found, doubts = salvage.mend(
            merged.value,
            flaws,
            lambda value: documents.check(Config, value),
            sections=merged.doubtful,
            repeated=merged.repeated,
        )
    if found is None:
        raise documents.wrong(problems)
    expansion = matrix.expand(found, doubts)
    late = [*expansion.problems, *_mistakes(found, doubts)]
    problems += [_problem(finding, merged.locate) for finding in late]
    if problems:
        raise documents.wrong(problems)
    expansion = _placed(expansion, merged.locate, _repository(Path.cwd()))
    return LoadedConfig(found, expansion, tuple(document.file for document in read_all.found), merged.locate)


def warnings(loaded: LoadedConfig, today: date) -> list[Problem]:
    """What is allowed and probably not meant, in the order of the files' lines."""
    remarks = [
        *review.remarks(loaded.config, load_cards(), today),
        *review.left_out(loaded.config, load_items()),
    ]
    found = [_problem(each, loaded.locate) for each in remarks]
    return sorted(found, key=lambda problem: (problem.file, problem.line, problem.column))


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


def _placed(expansion: matrix.Expansion, locate: Locate, repository: Path) -> matrix.Expansion:
    """Every image knows where it is configured, if that is a file of this repository."""
    images = {
        key: row.model_copy(
            update={"place": _place(locate(("images", expansion.entries[key], "id"), False), repository)}
        )
        for key, row in expansion.images.items()
    }
    return replace(expansion, images=images)


def _place(found: documents.Place, repository: Path) -> Place | None:
    # Not resolved: git knows a file by the name that it was found under, links and all.
    path = Path(os.path.abspath(found.file))  # noqa: PTH100 - resolve() would follow links
    if not found.line or not path.is_relative_to(repository):
        return None
    try:
        return Place(file=path.relative_to(repository).as_posix(), line=found.line)
    except ValidationError:  # a name that no reader could be shown
        return None


def _repository(here: Path) -> Path:
    """The top of the checkout around this folder, else the folder itself."""
    return next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), here)


class _Read(NamedTuple):
    """The documents; what is wrong with files; the sections that files which could not be read may hold."""

    found: list[Document]
    problems: list[Problem]
    sections: set[str]


def _read_all(paths: list[Path]) -> _Read:
    """Read every file: one that cannot be read must not hide the problems of the others."""
    result = _Read([], [], set())
    for path in paths:
        name = path.as_posix()
        try:
            with path.open("rb") as stream:
                data = stream.read(documents.FILE_LIMIT + 1)
        except OSError as error:
            result.problems.append(Problem(name, 0, 0, "", f"cannot be read: {error.strerror}"))
            result.sections.update(SECTIONS)
            continue
        try:
            document = documents.parse(data, name, forgiving=True)
        except ConfigurationError as error:
            result.problems.extend(error.problems)
            result.sections.update(sections_named(data))
        else:
            result.found.append(document)
            result.problems.extend(document.problems)
    return result


def _mistakes(config: Config, doubts: Doubts) -> list[Finding]:
    """What only the tables show; they are read only where the configuration names something of theirs."""
    found: list[Finding] = []
    if any(entry.cause is not None for entry in config.policy.expect_fail):
        found += review.unknown_causes(config, load_catalogue().causes)
    if {*config.payload.checks, *config.payload.benchmarks} != {"*"}:
        found += review.unmatched_items(config, load_items())
    return [finding for finding in found if not doubts.hides(finding.path)]


def _yaml_files(directory: Path) -> list[Path]:
    found = sorted(
        path
        for path in directory.iterdir()
        if path.suffix in {".yml", ".yaml"}
        and not path.name.startswith(".")
        and (path.is_file() or path.is_symlink())  # a dangling link is an error, not an absent file
    )
    if not found:
        msg = f"{directory} holds no *.yml or *.yaml file"
        raise ConfigurationError(msg, hint=_WAY_OUT)
    return found


def _problem(finding: Finding, locate: Locate) -> Problem:
    also = f" (see {locate(finding.other, finding.key)})" if finding.other is not None else ""
    return documents.problem_at(finding.path, f"{finding.message}{also}", locate, key=finding.key)
