"""Owns what is known of one failure beyond its cause: the figures of its text, the driver, the card and its generation.

Must not know how a cause was found (diagnose), nor read any table itself: the tables come in as arguments.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

from cuda_matrix.architectures import ArchitectureTable
from cuda_matrix.cards import Card, find_gpu
from cuda_matrix.drivers import DriverTable, cuda_of_number
from cuda_matrix.result import Facts
from cuda_matrix.tables import Reference

# By which keys people name the card in what they tell beside a log.
_CARD_WORDS = ("gpu", "card", "device", "gpu_name")
_ARCHITECTURE = re.compile(r"(?:compute|sm)_(\d{1,2})(\d)[af]?", re.IGNORECASE)


class Tables(NamedTuple):
    """What is known of drivers, cards and generations. Without the last two, nothing is said of a card."""

    drivers: DriverTable
    cards: tuple[Card, ...] = ()
    architectures: ArchitectureTable | None = None

    @classmethod
    def of(cls, reference: Reference) -> Tables:
        """All that there is to know."""
        return cls(reference.drivers, reference.cards, reference.architectures)


def particulars(figures: Mapping[str, str], facts: Facts, context: Mapping[str, str], tables: Tables) -> dict[str, str]:
    """Every fact that is known, by the names of catalogue.CONTEXT_FACTS, and the text's own figures."""
    number = figures.get("found")
    drivers = tables.drivers
    driver_cuda = cuda_of_number(int(number)) if number else drivers.cuda_of(facts.driver) if facts.driver else None
    image_cuda = facts.torch_cuda if facts.torch_cuda != "none" else None
    name, capability = _card(facts, context, tables.cards)
    known = {
        "image_cuda": image_cuda,
        "image_cuda_major": image_cuda.split(".", maxsplit=1)[0] if image_cuda else None,
        "driver_floor": drivers.floor_of(image_cuda) if image_cuda else None,
        "driver": facts.driver,
        "driver_cuda": driver_cuda,
        "torch": facts.torch,
        "arch_list": " ".join(facts.arch_list) or None,
        "device_name": name,
        "device_capability": capability,
        "card_sm": f"sm_{capability.replace('.', '')}" if capability else None,
        "card_toolkits": _toolkits(capability, tables.architectures),
        "asked_toolkits": _toolkits(_asked(figures.get("architecture", "")), tables.architectures),
    }
    return {fact: value for fact, value in known.items() if value} | dict(figures)


def filled(templates: Iterable[str], known: Mapping[str, str]) -> tuple[str, ...]:
    """Those of the templates of which every fact is known, with the facts put in."""
    found = []
    for template in templates:
        with suppress(KeyError):
            found.append(template.format_map(known))
    return tuple(found)


def _card(facts: Facts, context: Mapping[str, str], cards: tuple[Card, ...]) -> tuple[str | None, str | None]:
    """Name and compute capability, as measured; else the card that somebody named, if the table knows it."""
    told = next((value.strip() for key, value in context.items() if key.lower() in _CARD_WORDS), "")
    name = facts.device_name or next((gpu.name for gpu in facts.gpus), None) or told or None
    capability = facts.device_capability or next((gpu.compute_capability for gpu in facts.gpus), None)
    rows = find_gpu(name, cards) if name else ()
    if not facts.device_name and not facts.gpus and not rows:
        return None, capability  # words that name no card that is known
    capabilities = {row.cc for row in rows}
    return name, capability or (capabilities.pop() if len(capabilities) == 1 else None)


def _asked(architecture: str) -> str | None:
    """`compute_120` → `12.0`."""
    match = _ARCHITECTURE.fullmatch(architecture)
    return f"{match[1]}.{match[2]}" if match else None


def _toolkits(capability: str | None, architectures: ArchitectureTable | None) -> str | None:
    """The toolkits whose compiler makes code for a capability, in words; None where nobody told."""
    row = architectures.capability(capability) if architectures is not None and capability else None
    if row is None or row.first_toolkit is None:
        return None
    if row.removed_in is None:
        return f"CUDA {row.first_toolkit} or newer"
    return f"CUDA {row.first_toolkit} or newer, but older than {row.removed_in}"
