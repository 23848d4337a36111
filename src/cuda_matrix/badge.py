"""Owns the badge: `badge.json`, read by shields.io's endpoint badge (https://shields.io/badges/endpoint-badge).

Must not know where the file lies. shields.io refuses unknown keys and an empty message.
"""

from __future__ import annotations

import json

from cuda_matrix.gate import GOOD, GateVerdict, simulated_note
from cuda_matrix.model import Verdict

LABEL = "GPU matrix"
_NO_ANSWER = frozenset({Verdict.NOT_RUN, Verdict.HOST_FAILED, Verdict.INCONCLUSIVE, Verdict.SKIPPED})


def render_badge(gate: GateVerdict) -> str:
    """`5 of 6 work`, its colour by the decision. Cells that the configuration excludes do not count."""
    asked = [judged for judged in gate.cells.values() if judged.skip_kind != "excluded"]
    good = sum(judged.verdict in GOOD or judged.skip_kind == "unchanged" for judged in asked)
    is_answered = any(judged.verdict not in _NO_ANSWER or judged.skip_kind == "unchanged" for judged in asked)
    message = f"{good:,} of {len(asked):,} work" if is_answered else "no results"
    is_simulated = bool(simulated_note(gate.cells.values()))
    if is_simulated:
        message += " (simulated)"
    document = {
        "schemaVersion": 1,
        "label": LABEL,
        "message": message,
        "color": "lightgrey" if is_simulated or not is_answered else _colour(gate),
        "isError": not gate.released,  # nobody can then give it another colour in the address
    }
    return json.dumps(document, indent=1) + "\n"


def _colour(gate: GateVerdict) -> str:
    if gate.released:
        return "brightgreen"
    return "red" if gate.counts[Verdict.FAIL] else "orange"
