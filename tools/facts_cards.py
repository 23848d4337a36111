"""gpus.yml against NVIDIA's list of compute capabilities."""

from __future__ import annotations

import re

from facts_html import table_rows
from facts_report import Outcome
from facts_web import UnreachableError, Web

from cuda_matrix.cards import Card, find_gpu

LISTS = ("https://developer.nvidia.com/cuda-gpus", "https://developer.nvidia.com/cuda/gpus/legacy")


def check(web: Web, cards: tuple[Card, ...]) -> Outcome:
    """Every card of the lists that is a row of ours: the same compute capability?"""
    outcome = Outcome("gpus")
    found: set[str] = set()
    reached = False
    for url in LISTS:
        try:
            page = web.get(url)
        except UnreachableError as error:
            outcome.unreachable[url] = str(error)
            continue
        listed = _listed(table_rows(page.text)) if page else []
        if not listed:
            outcome.differences.append(f"{url}: its table is not found (moved, or written otherwise)")
            continue
        reached = True
        for name, capability in listed:
            found |= _compare(name, capability, cards, outcome)
    missing = [card.name for card in cards if card.id not in found]
    if reached and missing:
        outcome.notes.append(f"not in NVIDIA's lists, so not compared: {', '.join(missing)}")
    return outcome


def _compare(name: str, capability: str, cards: tuple[Card, ...], outcome: Outcome) -> set[str]:
    """The ids of our rows of that name. Housing and memory do not matter: a chip has one capability."""
    rows = find_gpu(name, cards)
    outcome.compared += len(rows)
    outcome.differences += [
        f"{card.id}: compute capability {card.cc}; NVIDIA's list says {capability} ({name})"
        for card in rows
        if card.cc != capability
    ]
    return {card.id for card in rows}


def _listed(rows: list[list[str]]) -> list[tuple[str, str]]:
    """(name, capability) of every card; the first cell of a row is the capability, the others are lists of names."""
    return [
        (name, cells[0])
        for cells in rows
        if cells and re.fullmatch(r"\d{1,2}\.\d", cells[0])
        for cell in cells[1:]
        for name in cell.split("\n")
        if name
    ]
