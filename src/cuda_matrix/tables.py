"""Owns the bundle of facts that pure modules get as an argument.

Must not know where they are read from (reference).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cuda_matrix.architectures import ArchitectureTable
from cuda_matrix.cards import Card
from cuda_matrix.catalogue import Catalogue
from cuda_matrix.drivers import DriverTable
from cuda_matrix.facts import Table
from cuda_matrix.image_schemes import SchemeTable
from cuda_matrix.model import Frozen
from cuda_matrix.payload_items import ItemTable
from cuda_matrix.releases import ReleaseTable
from cuda_matrix.rules import Rule
from cuda_matrix.systems import SystemTable
from cuda_matrix.xids import Xid

# What a message's text may name: the driver's CUDA as CUDA's own number, the card, the build, the image.
MESSAGE_FACTS = frozenset({"found", "device_name", "capability", "arch_list", "image", "image_cuda"})


class Message(Frozen):
    """What real software prints when one thing goes wrong, for the simulated engine."""

    cause: str
    stage: Literal["pull", "create", "start", "run"]
    text: Annotated[str, Field(description="As printed; may hold the placeholders of MESSAGE_FACTS.")]
    source: str


class Reference(Table):
    """All tables of data/*.yml that state facts."""

    cards: tuple[Card, ...]
    drivers: DriverTable
    catalogue: Catalogue
    messages: dict[str, Message]
    items: ItemTable
    xids: tuple[Xid, ...]
    releases: ReleaseTable
    schemes: SchemeTable
    systems: SystemTable
    rules: dict[str, Rule]
    architectures: ArchitectureTable
