"""Owns how the page draws the symbols of words.py: inline SVG, for a plain server has no font with emoji.

Must not know single cells. Each verdict has a shape of its own, so that none is told by its colour alone.
"""

from __future__ import annotations

from markupsafe import Markup

from cuda_matrix.model import Verdict
from cuda_matrix.report.words import WORDS

_TICK, _CROSS = "M5 8.5l2.2 2.2L11 5.8", "M5.5 5.5l5 5M10.5 5.5l-5 5"
_DISC, _SQUARE = "M8 1.5a6.5 6.5 0 1 0 .01 0z", "M2 2h12v12H2z"

# Path data in a square of 16 units; stroked, not filled.
_PATHS = {
    Verdict.PASS: "M2.5 8.5l3.8 3.8L13.5 4",
    Verdict.WARN: "M8 2l6.5 12h-13zM8 6.5v3.5M8 12v.2",
    Verdict.FAIL: "M3.5 3.5l9 9M12.5 3.5l-9 9",
    Verdict.HOST_FAILED: f"{_SQUARE}{_CROSS}",
    Verdict.INCONCLUSIVE: "M5 5.2a3 3 0 1 1 4.6 2.6Q8 8.8 8 10.5M8 13.3v.2",
    Verdict.NOT_RUN: _SQUARE,
    Verdict.SKIPPED: "M5.5 3v10M10.5 3v10",
    Verdict.EXPECTED_FAIL: f"{_DISC}{_CROSS}",
    Verdict.UNEXPECTED_PASS: f"{_DISC}{_TICK}",
}
_VERDICTS = {word.symbol: verdict for verdict, word in WORDS.items()}
_SVG = '<svg class="symbol s-{}" viewBox="0 0 16 16" {}><path d="{}"/></svg>'


def drawn(symbol: str, *, said: bool = False) -> str:
    """The drawing of a verdict's symbol; any other text is as it is. `said`: the words beside it say the same."""
    verdict = _VERDICTS.get(symbol)
    if verdict is None:
        return symbol
    spoken = Markup('aria-hidden="true"') if said else Markup('role="img" aria-label="{}"').format(WORDS[verdict].word)
    return Markup(_SVG).format(verdict.value, spoken, _PATHS[verdict])  # noqa: S704 - our own text, values escaped
