"""Owns the verb `diagnose`: any log in, the most likely cause out."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cuda_matrix.diagnose import Evidence
    from cuda_matrix.excerpt import Excerpt
    from cuda_matrix.result import Diagnosis
    from cuda_matrix.tables import Reference

STDIN = "-"
_LOG = "log"  # where evidence comes from that has a line number
_PIECE_BYTES = 1 << 20
# Of what may never end (a pipe, a device). A file is read to its end, whatever its size.
_STREAM_LIMIT_BYTES = 4 << 30
_LABEL = 13  # characters


@click.command(short_help="Name the cause of a failure from its log, and the fix.")
@click.argument("log", required=False, metavar="[LOG|-]", type=click.Path(allow_dash=True, path_type=str))
@click.option(
    "--context",
    type=click.Path(allow_dash=True, path_type=str),
    metavar="FILE.json",
    help="What else is known: a result file of a cell, `docker inspect`, or exit_code, driver, gpu, … as JSON.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(log: str | None, context: str | None, as_json: bool) -> None:
    """Name the cause of a failure from its log: evidence, explanation, fix, source.

    LOG is a file of any size (also .gz), or - for standard input, the default, which is read to its end, or up to
    4 GiB: `docker logs` without -f. Pastes are welcome: colours, time stamps and the prefixes of docker compose,
    kubectl, GitHub Actions and the journal are understood. FILE.json may be - as well (`docker inspect NAME |`).
    Exit 0 whatever the cause, also where it is unknown.
    """
    from cuda_matrix.diagnose import NONE, Evidence, Fragment, diagnose
    from cuda_matrix.particulars import Tables
    from cuda_matrix.reference import load_reference

    if log == STDIN == context:
        msg = "LOG and --context cannot both be standard input: name a file for one of them"
        raise click.UsageError(msg)
    if _is_nobody_there() and (STDIN in {log, context} or (log is None and context is None)):
        msg = "there is no log: name a file, or pipe one in, for example `docker logs NAME 2>&1 | cuda-matrix diagnose`"
        raise click.UsageError(msg)
    reference = load_reference()
    evidence = _context(context) if context is not None else Evidence()
    alone = log is None and context is not None and (context == STDIN or _is_idle())
    excerpt = None if alone else _read(log or STDIN, reference)
    if excerpt is not None and excerpt.lines:
        fragments = (Fragment(where=_LOG, text=excerpt.text), *evidence.fragments)
        evidence = evidence.model_copy(update={"fragments": fragments})
    found = diagnose(evidence, reference.catalogue, reference.drivers, Tables.of(reference))
    says_something = evidence.fragments or evidence.exit != Evidence().exit
    if found.cause == NONE and not says_something:
        found = _nothing(reference)
    _print(found, excerpt, as_json=as_json)


def _context(file: str) -> Evidence:
    from cuda_matrix.context_file import CONTEXT_LIMIT, read_context

    with sys.stdin.buffer if file == STDIN else Path(file).open("rb") as stream:
        data = stream.read(CONTEXT_LIMIT + 1)
    return read_context(data, "standard input" if file == STDIN else file)


def _nothing(reference: Reference) -> Diagnosis:
    """No word and no exit code is no sign that all went well."""
    from cuda_matrix.diagnose import UNKNOWN
    from cuda_matrix.result import Diagnosis

    cause = reference.catalogue.causes[UNKNOWN]
    return Diagnosis(
        cause=UNKNOWN,
        title=cause.title,
        side=cause.side,
        confidence=0.0,
        explanation="There is neither a log that says anything nor an exit code, so nothing can be said of the cause.",
        fix=cause.fix,
        source=cause.sources[0],
    )


def _is_nobody_there() -> bool:
    """Whether standard input is closed, or a keyboard."""
    return sys.stdin is None or sys.stdin.isatty()


def _is_idle() -> bool:
    """Whether nobody pipes anything in: then the context alone is what there is."""
    if _is_nobody_there():
        return True
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode))


def _read(log: str, reference: Reference) -> Excerpt:
    from cuda_matrix.excerpt import excerpt
    from cuda_matrix.log_bytes import LogBytes
    from cuda_matrix.signs import Signs

    with sys.stdin.buffer if log == STDIN else Path(log).open("rb", buffering=0) as stream:
        source = LogBytes(_pieces(stream), None if _is_file(stream) else _STREAM_LIMIT_BYTES)
        found = excerpt(source, Signs(reference.catalogue))
    for remark in source.remarks:
        click.echo(f"note: {remark}", err=True)
    if not found.lines:
        click.echo(f"note: the log {'says nothing' if found.size_bytes else 'is empty'}", err=True)
    elif not found.is_text:
        click.echo("note: this is hardly a text, so little can be said of it", err=True)
    return found


def _is_file(stream: IO[bytes]) -> bool:
    """Whether it surely ends."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False


def _pieces(stream: IO[bytes]) -> Iterator[bytes]:
    while piece := stream.read(_PIECE_BYTES):
        yield piece


def _print(diagnosis: Diagnosis, excerpt: Excerpt | None, *, as_json: bool) -> None:
    line = excerpt.number_of(diagnosis.evidence) if excerpt is not None and diagnosis.where == _LOG else None
    if as_json:
        click.echo(json.dumps(_document(diagnosis, line), ensure_ascii=True, indent=2))
        return
    from cuda_matrix.report.escape import console_text

    for label, text in _lines(diagnosis, line):
        click.echo(f"{label:<{_LABEL}}{console_text(text)}")


def _document(diagnosis: Diagnosis, line: int | None) -> dict[str, object]:
    first = ("cause", "confidence", "evidence", "fix", "source", "alternatives")
    further = ("title", "side", "explanation", "where")
    values = diagnosis.model_dump(mode="json")
    return {**{name: values[name] for name in (*first, *further)}, "line": line}


def _lines(diagnosis: Diagnosis, line: int | None) -> Iterator[tuple[str, str]]:
    """(label, text) of every line for a terminal."""
    yield "cause", f"{diagnosis.cause}: {diagnosis.title}"
    if diagnosis.cause == "none":
        return
    if diagnosis.confidence:
        yield "confidence", f"{_in_words(diagnosis.confidence)} ({diagnosis.confidence:.2f})"
    if diagnosis.evidence:
        place = f"line {line}" if line is not None else diagnosis.where
        yield "evidence", f"{place}: {diagnosis.evidence}" if place else diagnosis.evidence
    yield "meaning", diagnosis.explanation
    for number, step in enumerate(diagnosis.fix, 1):
        label = "collect" if diagnosis.cause == "unknown" else "fix"
        yield label if number == 1 else "", f"{number}. {step}"
    if diagnosis.source:
        yield "source", diagnosis.source
    if diagnosis.alternatives:
        yield "less likely", ", ".join(diagnosis.alternatives)


def _in_words(confidence: float) -> str:
    from cuda_matrix.result import LIKELY, SURE

    return "sure" if confidence >= SURE else "likely" if confidence >= LIKELY else "a guess"
