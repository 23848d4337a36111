"""Owns what is known of NVIDIA cards, and when two names mean the same card.

Must not know where the table is read from (reference) or what a difference means for a cell (verdict).
"""

from __future__ import annotations

import difflib
import re
from functools import lru_cache
from typing import Literal

from pydantic import Field

from cuda_matrix.config import Version
from cuda_matrix.model import Frozen

# Words that never tell one card from another: brands, series and housings.
_NOISE = frozenset(
    {
        *("nvidia", "corporation", "tesla", "geforce", "quadro", "rtx", "gtx", "gpu", "graphics", "generation"),
        *("hbm2", "hbm2e", "hbm3", "hbm3e", "edition", "server", "workstation", "active"),
    }
)
_GLUED_SUFFIX = re.compile(r"\b(\d{4})(ti|super|d)\b")
_MEMORY = re.compile(r"\d+gb")
_FORM = re.compile(r"(pcie|sxm|nvl)\d*")
# How the accelerators of other makers call themselves: none of them runs CUDA, whatever row their name resembles.
_OTHER_MAKER = re.compile(
    r"\b(amd|radeon|instinct|mi\d{2,3}[a-z]?|(rx|vega)\s?\d{2,4}|intel|arc|gaudi\d?|ascend|tpu)\b", re.IGNORECASE
)


class Peaks(Frozen):
    """Dense TFLOP/s at nominal boost; None where the card lacks the unit or nobody publishes the figure."""

    fp32: float
    tf32: float | None
    fp16: float | None
    bf16: float | None
    fp8: float | None
    int8: float | None = Field(description="TOP/s.")


class Card(Frozen):
    """One row of data/gpus.yml, whose header explains every field."""

    id: str
    name: str
    match: str
    exclude: str | None = None
    architecture: str
    cc: Version
    sm: int
    memory_gb: tuple[float, ...]
    bandwidth_gbs: float
    l2_mb: float | None
    boost_mhz: float | None
    tensor_peak_mhz: float | None
    fp16_flop_per_sm_clk: int | None
    peak_tflops: Peaks
    tdp_w: float | None
    kind: Literal["consumer", "workstation", "datacenter"]
    ecc: bool
    pcie_gen: int
    nvlink_gbs: float | None
    machine: Literal["aarch64"] | None = None
    uncertain: tuple[str, ...] = ()
    sources: tuple[str, ...] = Field(min_length=1)


def find_gpu(name: str, table: tuple[Card, ...]) -> tuple[Card, ...]:
    """The rows that `name` can mean: an id (`rtx3090`), a short name (`A800`) or what nvidia-smi prints.

    Several rows where the name leaves memory or housing open; none where no row is of this card.
    """
    by_id = tuple(card for card in table if card.id == name)
    if by_id:
        return by_id
    alike = tuple(card for card in table if _alike(name, card.name))
    exact = tuple(card for card in alike if _matches(card, name))
    return exact or alike


def close_names(name: str, table: tuple[Card, ...], most: int = 3) -> tuple[str, ...]:
    """Names of rows that may be meant by a name of none: a slip of the pen, and never another model of the same look.

    `RTX 3900` and `RTX 309O` may be RTX 3090; `GTX 1070` is not GTX 1080, and `P4000` is not `A4000`.
    """
    names = {spelling.lower(): card.name for card in table for spelling in (card.id, card.name)}
    close = difflib.get_close_matches(name.lower(), names, n=5 * most, cutoff=0.6)
    asked = _numbers(name)
    found = dict.fromkeys(names[each] for each in close if not asked or asked == _numbers(names[each]))
    return tuple(found)[:most]


def is_other_maker(name: str) -> bool:
    """Whether a name is that of an accelerator which is not NVIDIA's."""
    return _OTHER_MAKER.search(name) is not None


def same_card(configured: str, reported: str, table: tuple[Card, ...]) -> bool:
    """True where the machine's own name for its card is covered by the configured one.

    `RTX 3090` is not `RTX 3090 Ti` and not a laptop's; `A800` is every A800, `A800 80GB` only those with 80 GB.
    """
    names = [card.name for card in table if card.id == configured] or [configured]
    return any(_alike(name, reported) for name in names)


def _numbers(name: str) -> tuple[str, ...]:
    """The words of a model that tell a generation (`3090`, `a100`), each with its characters in order of size."""
    words = (word for word in _model(_words(name)) if any(letter.isdigit() for letter in word))
    return tuple("".join(sorted(word.replace("o", "0").replace("l", "1"))) for word in words)


def _matches(card: Card, name: str) -> bool:
    if not re.search(card.match, name, re.IGNORECASE):
        return False
    return card.exclude is None or not re.search(card.exclude, name, re.IGNORECASE)


def _alike(one: str, other: str) -> bool:
    """Same chip and model; memory size and housing must only agree where both names give them."""
    left, right = _words(one), _words(other)
    if _model(left) != _model(right):
        return False
    for facet in (_MEMORY, _FORM):
        ours, theirs = _facet(left, facet), _facet(right, facet)
        if ours and theirs and ours != theirs:
            return False
    return True


@lru_cache(maxsize=1_024)  # every question about a card compares its name with all names of the table
def _words(name: str) -> frozenset[str]:
    split = _GLUED_SUFFIX.sub(r"\1 \2", re.sub(r"\b(rtx|gtx)(?=\d)", r"\1 ", name.lower()))
    return frozenset(re.findall(r"[a-z0-9]+", split))


@lru_cache(maxsize=1_024)
def _model(words: frozenset[str]) -> frozenset[str]:
    return frozenset(w for w in words - _NOISE if not _MEMORY.fullmatch(w) and not _FORM.fullmatch(w))


def _facet(words: frozenset[str], facet: re.Pattern[str]) -> frozenset[str]:
    return frozenset(re.sub(r"(?<=[a-z])\d+$", "", word) for word in words if facet.fullmatch(word))
