"""Owns where results lie: `plan.json` and one JSON file per cell in a directory, written whole or not at all.

A published ledger (`results.jsonl`) is read too, so that a committed report's folder is a folder of results.

Must not know what is in a result beyond its cell, attempt and version, nor how it looks. Files that are read may
come from another machine: size, type and schema are checked, links are not followed, and a bad file is data.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from cuda_matrix import ledger
from cuda_matrix.errors import ConfigurationError, Problem
from cuda_matrix.gate import newest
from cuda_matrix.model import CELL_PATTERN
from cuda_matrix.plan import Plan
from cuda_matrix.plan_union import contradiction, unite
from cuda_matrix.result import CellResult
from cuda_matrix.result_documents import (
    PLAN_LIMIT_BYTES,
    RESULT_LIMIT_BYTES,
    UnreadableError,
    json_object,
    parse_plan,
    parse_result,
)

PLAN_FILE = "plan.json"
PREVIOUS = "previous"
FILE_LIMIT_BYTES = RESULT_LIMIT_BYTES
FILES_LIMIT = 200_000

_NAME_LIMIT = 200  # characters; file systems allow 255 bytes, and `previous/` adds the attempt
_LEDGER_SUFFIX = ".jsonl"
_NO_RESULTS = {"report_version", "schemaVersion"}  # our own report.json and badge.json may lie beside the results
_ATTEMPT = re.compile(r"\.(\d{1,9})\.json")


@dataclass(frozen=True)
class Collected:
    """What was found: the united plan, the newest result of each cell (sorted by cell id), and what was unreadable."""

    plan: Plan | None
    results: tuple[CellResult, ...]
    problems: tuple[Problem, ...]

    @property
    def plan_problems(self) -> tuple[Problem, ...]:
        """Plans that could not be read or united."""
        return tuple(one for one in self.problems if _base_name(one.file) == PLAN_FILE or ledger.is_plan_problem(one))


def file_name(cell: str) -> str:
    """`<cell>.json`; a cell id too long for a file name is cut and told apart by its hash."""
    return f"{_stem(cell)}.json"


def write_plan(directory: Path, plan: Plan) -> Path:
    """Write `plan.json`; an earlier one is replaced."""
    return _write(directory / PLAN_FILE, plan)


def write_result(directory: Path, result: CellResult) -> Path:
    """Write the file of this cell; an earlier one is replaced (`set_aside` keeps it)."""
    return _write(directory / file_name(result.cell), result)


def read_plan(path: Path) -> Plan:
    """Read one plan.

    Raises:
        ConfigurationError: it cannot be read, or is not a plan of this version.
    """
    try:
        return parse_plan(_read_bytes(path))
    except UnreadableError as error:
        msg = f"{path} {error}"
        raise ConfigurationError(msg, hint="`cuda-matrix plan --format json` writes one") from error


def set_aside(directory: Path, cells: Iterable[str]) -> dict[str, int]:
    """Move earlier results of `cells` to `previous/`, so that a run that is killed never shows a stale pass.

    Returns cell id → number of its next attempt.
    """
    return {cell: _set_aside_one(directory, cell) for cell in cells}


def read_results(paths: Iterable[Path]) -> Collected:
    """Read files, and directories with everything below them. Never raises for what a file holds.

    A cell with an unreadable file has no result, even where another attempt can be read: that one may be stale.
    """
    reader = _Reader()
    for path in paths:
        reader.read_tree(path)
    unread = {_base_name(problem.file) for problem in reader.problems}
    results = newest(result for result in reader.results if _name_of(result) not in unread)
    return Collected(reader.plan, tuple(results[cell] for cell in sorted(results)), tuple(reader.problems))


def _base_name(file: str) -> str:
    return file.rpartition("/")[2]


def _name_of(result: CellResult) -> str:
    return file_name(result.cell) if CELL_PATTERN.fullmatch(result.cell) else ""


def _stem(cell: str) -> str:
    if not CELL_PATTERN.fullmatch(cell):
        msg = f"{cell!r} is not a cell id"
        raise ValueError(msg)
    if len(cell) <= _NAME_LIMIT:
        return cell
    return f"{cell[: _NAME_LIMIT - 17]}-{hashlib.sha256(cell.encode()).hexdigest()[:16]}"


def _write(path: Path, document: BaseModel) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".writing-", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(document.model_dump_json(indent=1) + "\n")
        temporary.chmod(0o644)  # mkstemp's 0600 would hide the result from the user who uploads it
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def _set_aside_one(directory: Path, cell: str) -> int:
    current = directory / file_name(cell)
    previous = directory / PREVIOUS
    kept = [_attempt(path.name, _stem(cell)) for path in previous.glob("*.json")] if previous.is_dir() else []
    last = max(kept, default=0)
    if not current.is_file() and not current.is_symlink():
        return last + 1
    attempt = max(_attempt_inside(current), last + 1)
    previous.mkdir(exist_ok=True)
    current.replace(previous / f"{_stem(cell)}.{attempt}.json")
    return attempt + 1


def _attempt(name: str, stem: str) -> int:
    match = _ATTEMPT.fullmatch(name[len(stem) :]) if name.startswith(stem) else None
    return int(match[1]) if match else 0


def _attempt_inside(path: Path) -> int:
    try:
        return parse_result(_read_bytes(path)).attempt
    except UnreadableError:
        return 1


def _read_bytes(path: Path) -> bytes:
    # O_NOFOLLOW and O_NONBLOCK: the type is checked on what was opened, so a swapped link or FIFO does no harm.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(path, flags)
    except OSError as error:
        raise UnreadableError(_os_reason(path, error)) from error
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            msg = "is not a regular file"
            raise UnreadableError(msg)
        limit = _limit_bytes(path.name)
        data = file.read(limit + 1)
    if len(data) > limit:
        msg = f"is larger than {limit >> 20} MiB"
        raise UnreadableError(msg)
    return data


def _limit_bytes(name: str) -> int:
    if name.endswith(_LEDGER_SUFFIX):
        return ledger.LEDGER_LIMIT_BYTES
    return PLAN_LIMIT_BYTES if name == PLAN_FILE else FILE_LIMIT_BYTES


def _os_reason(path: Path, error: OSError) -> str:
    if path.is_symlink():
        return "is a symbolic link, and those are not followed"
    return f"cannot be opened: {error.strerror}"


class _Reader:
    """Collects over several trees; every problem names its file relative to the argument that led to it."""

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.results: list[CellResult] = []
        self.problems: list[Problem] = []
        self._files = 0

    def read_tree(self, root: Path) -> None:
        if not root.exists():
            self._problem(root.name, "does not exist")
        elif not root.is_dir():
            self._read_file(root, root.name)
        else:
            unread: list[tuple[Path, str]] = []
            for path in _json_files(root, unread):
                self._read_file(path, path.relative_to(root).as_posix())
            for folder, why in unread:  # there may be a plan in it: what it demands is unknown
                self._problem(f"{folder.relative_to(root).as_posix()}/{PLAN_FILE}", why)

    def _read_file(self, path: Path, name: str) -> None:
        self._files += 1
        if self._files > FILES_LIMIT:
            if self._files == FILES_LIMIT + 1:
                self._problem(name, f"this and later files were not read: there are more than {FILES_LIMIT}")
            return
        try:
            self._take(_read_bytes(path), name)
        except UnreadableError as error:
            self._problem(name, str(error))

    def _take(self, data: bytes, name: str) -> None:
        if name.endswith(_LEDGER_SUFFIX):
            self._take_ledger(data, name)
        elif _base_name(name) == PLAN_FILE:
            self._unite(parse_plan(data))
        elif not _NO_RESULTS & json_object(data).keys():
            self.results.append(parse_result(data))

    def _take_ledger(self, data: bytes, name: str) -> None:
        found = ledger.decode(data, name)
        self.problems += found.problems
        self.results += found.results
        if found.plan is None:
            return
        try:
            self._unite(found.plan)
        except UnreadableError as error:
            self.problems.append(Problem(file=name, line=1, column=1, path="", message=str(error)))

    def _unite(self, plan: Plan) -> None:
        if self.plan is None:
            self.plan = plan
            return
        if plan == self.plan:
            return
        clash = contradiction(self.plan, plan)
        if clash:
            raise UnreadableError(clash)
        self.plan = unite(self.plan, plan)

    def _problem(self, file: str, message: str) -> None:
        file = os.fsencode(file).decode("utf-8", "replace")  # a file name is bytes, and not always text
        self.problems.append(Problem(file=file, line=0, column=0, path="", message=message))


def _json_files(root: Path, unread: list[tuple[Path, str]]) -> Iterator[Path]:
    """Every result, plan and ledger below; folders that are not entered, and why, are added to `unread`."""

    def refused(error: OSError) -> None:
        unread.append((Path(error.filename), f"its folder cannot be opened: {error.strerror}"))

    for directory, below, names in os.walk(root, followlinks=False, onerror=refused):
        here = Path(directory)  # a `previous` with a plan is no folder of set_aside, but a run's own
        aside = {name for name in below if name == PREVIOUS and not (here / name / PLAN_FILE).exists()}
        below[:] = sorted(name for name in below if name not in aside and not name.startswith("."))
        links = [Path(directory) / name for name in below if (Path(directory) / name).is_symlink()]
        unread += [(link, "its folder is a symbolic link, and those are not followed") for link in links]
        for name in sorted(names):
            if (name.endswith(".json") or name == ledger.LEDGER_FILE) and not name.startswith("."):
                yield Path(directory) / name
