"""Owns the attestation of a promotion: what was tested, as which digest, with which outcome. Same input, same bytes.

Must not know who signs it. Formats: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md and
https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md. What `actions/attest` signs is not the
statement but its two halves: `predicate-path` takes the predicate alone, `subject-checksums` the subjects as sha256sum
writes them (https://github.com/actions/attest); it makes the statement of them itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from cuda_matrix.gate import GateVerdict, Judgement, utc
from cuda_matrix.image_reference import parts_of
from cuda_matrix.model import Verdict
from cuda_matrix.plan import Plan, SkippedCell
from cuda_matrix.promote import Promotion

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://in-toto.io/attestation/test-result/v0.1"
PREDICATE_LIMIT_BYTES = 16_000_000  # of actions/attest, which says 16MB
SUBJECTS_LIMIT = 1024  # of actions/attest

_PASSED = frozenset({Verdict.PASS, Verdict.UNEXPECTED_PASS})
_FAILED = frozenset({Verdict.FAIL, Verdict.EXPECTED_FAIL})


class Origin(NamedTuple):
    """Where the promotion ran, as far as that is known."""

    run_url: str = ""
    source: str = ""  # git+https://…, of the repository
    commit: str = ""
    tool_version: str = ""


class Attestation(NamedTuple):
    """The texts of the three files."""

    predicate: str
    subjects: str
    statement: str


def attest(promotions: Sequence[Promotion], plan: Plan, verdict: GateVerdict, origin: Origin) -> Attestation:
    """Attest what was promoted; at least one promotion.

    Names of tests are cell ids. A subject's name is its repository without a tag: the digest says which image.
    """
    names = {cell for each in promotions for cell in each.cells}
    cells = sorted((verdict.cells[name] for name in names), key=lambda judged: judged.cell)
    subjects = _subjects(promotions)
    skipped = {cell.id: cell for cell in plan.skipped}
    predicate = {
        "result": "PASSED" if all(_is_plain(judged) for judged in cells) else "WARNED",
        "configuration": _configuration(plan, origin),
        **({"url": origin.run_url} if origin.run_url else {}),
        "passedTests": _names(cells, _PASSED),
        "warnedTests": _names(cells, {Verdict.WARN}),
        "failedTests": _names(cells, _FAILED),
        "cudaMatrix": {
            "version": 1,
            **({"toolVersion": origin.tool_version} if origin.tool_version else {}),
            "released": [
                {"image": each.image, "testedRef": each.ref, "digest": each.digest, "tags": list(each.targets)}
                for each in promotions
            ],
            "cells": [_cell(judged, skipped.get(judged.cell)) for judged in cells],
        },
    }
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in subjects],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }
    lines = "".join(f"{digest}  {name}\n" for name, digest in subjects)
    return Attestation(_json(predicate), lines, _json(statement))


def _json(document: dict[str, Any]) -> str:
    """ASCII alone: whatever a container called its card or driver, no reader is fooled."""
    return json.dumps(document, indent=1, ensure_ascii=True) + "\n"


def _is_plain(judged: Judgement) -> bool:
    """Whether there is nothing to tell: it passed in this very run, or the configuration excludes it."""
    return judged.verdict in _PASSED or judged.skip_kind == "excluded"


def _names(cells: Iterable[Judgement], verdicts: Iterable[Verdict]) -> list[str]:
    return [judged.cell for judged in cells if judged.verdict in verdicts]


def _subjects(promotions: Sequence[Promotion]) -> list[tuple[str, str]]:
    """(repository, hexadecimal digest), each once, sorted."""
    found = {(parts_of(target).name, each.digest.partition(":")[2]) for each in promotions for target in each.targets}
    return sorted(found)


def _configuration(plan: Plan, origin: Origin) -> list[dict[str, Any]]:
    """The plan by its hash, and the commit that it was made from."""
    text = json.dumps(plan.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    found: list[dict[str, Any]] = [
        {"name": "cuda-matrix plan", "digest": {"sha256": digest}, "mediaType": "application/json"}
    ]
    if origin.source and origin.commit:
        found.append({"name": "source", "uri": origin.source, "digest": {"gitCommit": origin.commit}})
    return found


def _cell(judged: Judgement, skipped: SkippedCell | None) -> dict[str, Any]:
    row: dict[str, Any] = {"cell": judged.cell, "verdict": judged.verdict.value, "required": judged.required}
    if judged.skip_kind:
        row["skipped"] = judged.skip_kind
        if skipped is not None and skipped.digest and skipped.tested_at:
            row |= {"digest": skipped.digest, "startedAt": _moment(skipped.tested_at)}
    if judged.cause:
        row["cause"] = judged.cause
    result = judged.result
    if result is not None:
        row |= {
            "digest": result.image.digest,
            "gpus": [gpu.name for gpu in result.facts.gpus],
            "driver": result.facts.driver,
            "profile": result.profile,
            "payload": result.payload_sha256,
            "runId": result.run_id,
            "startedAt": _moment(result.started_at),
        }
    return row


def _moment(moment: datetime) -> str:
    return f"{utc(moment):%Y-%m-%dT%H:%M:%SZ}"
