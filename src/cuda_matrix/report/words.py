"""Owns the closed set of symbols, words and headings that every format shares.

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
LOCAL = "local"
SIMULATED_MEANING = "made by the simulated engine, no figure was measured"
CPU_MEANING = "measured on the CPU, not on a card"
LOCAL_MEANING = "run on the machine itself, without image and container"
INSTEAD, INSTEAD_MEANING = "→", "another image of this matrix that works there"
FASTEST_MEANING = "the fastest image on that card, its p5–p95 range clear of every other's."
CONTESTED = "No image is marked as the fastest: their p5–p95 ranges overlap."
DRIFTS = "no: drift"
DRIFT_MEANING = "drift: the last round's median against the first's; more than 5 % is not stable."
PERFORMANCE = ("GPU", "CUDA runtime", "PyTorch", "images/s", "p5–p95", "memory (GB)", "stable", "how", "image")
EMPTY_MEANING = "not in this matrix"
