"""Owns the closed set of symbols and words that stand for verdicts in every format.

Must not know single cells. Never a symbol alone: each goes with a word or a number.
"""

from __future__ import annotations

from typing import NamedTuple

from cuda_matrix.model import Verdict


class Word(NamedTuple):
    """How a verdict is shown: symbol, the word where nothing more exact is known, and the legend's line."""

    symbol: str
    word: str
    meaning: str


WORDS = {
    Verdict.PASS: Word("✅", "good", "good"),
    Verdict.WARN: Word("⚠️", "remark", "works, with a remark"),
    Verdict.FAIL: Word("❌", "fails", "the image fails"),
    Verdict.HOST_FAILED: Word("🛠️", "machine failed", "the machine failed: nothing is known of the image"),
    Verdict.INCONCLUSIVE: Word("❔", "inconclusive", "inconclusive: neither good nor bad was shown"),
    Verdict.NOT_RUN: Word("⬜", "not run", "not run (counts as failed)"),
    Verdict.SKIPPED: Word("⏸️", "skipped", "skipped, with its reason"),
    Verdict.EXPECTED_FAIL: Word("🟣", "fails as expected", "fails as expected"),
    Verdict.UNEXPECTED_PASS: Word("🎁", "passes unexpectedly", "passes although its failure is expected"),
}

SIMULATED = "simulated"
CPU = "cpu"
SIMULATED_MEANING = "made by the simulated engine, no figure was measured"
CPU_MEANING = "measured on the CPU, not on a card"
EMPTY_MEANING = "not in this matrix"
