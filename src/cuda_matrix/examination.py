"""Owns what is seen of a host and said of it: raw findings, steps, and the answers they give the diagnosis tree.

Must not know how anything is looked at (adapters), nor what a finding means (host_rules, engine_rules).
None is "not seen", never "not there".
"""

from __future__ import annotations

import csv
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from cuda_matrix.image_facts import ImageFacts
from cuda_matrix.model import Frozen
from cuda_matrix.tree import NO, YES, Known

# none: it was looked for, there is none, and nobody asked for one. not-seen: it could not be looked for.
StepStatus = Literal["ok", "warn", "problem", "none", "not-seen"]
WORDS_LIMIT = 300  # characters of what a program said
SMI_FIELDS = ("index", "name", "driver_version", "compute_cap")  # what nvidia-smi is asked for; the last may be refused
_CARDS_LIMIT = 64
_NAME_LIMIT, _FIELD_LIMIT = 100, 20  # characters
_NOT_KNOWN = ("", "[N/A]", "N/A", "[Not Supported]")


class ProgramAnswer(Frozen):
    """What a program answered. `path` None: there is no such program. `why`: what kept it from answering."""

    name: str
    path: str | None = None
    code: int | None = None
    out: str = ""
    err: str = ""
    why: str = ""

    @property
    def good(self) -> bool:
        """True where it ended by itself, and well."""
        return self.code == 0 and not self.why

    @property
    def trouble(self) -> str:
        """Why there is no good answer, in its own words where it has some; empty where there is one."""
        if self.good:
            return ""
        if self.path is None:
            return f"there is no {self.name} on this machine's PATH"
        if self.why:
            return f"{self.name}: {self.why}"
        said = next((line.strip() for line in (*self.err.splitlines(), *self.out.splitlines()) if line.strip()), "")
        return f"{self.name} (exit code {self.code}): {said[:WORDS_LIMIT] or 'it says nothing'}"


class SeenCard(NamedTuple):
    """One card as nvidia-smi names it; the capability is None with a tool that cannot say it."""

    name: str
    driver: str | None
    capability: str | None


def named_cards(smi: ProgramAnswer) -> tuple[SeenCard, ...]:
    """The cards in nvidia-smi's answer, in its order; empty where it named none, or gave no good answer."""
    if not smi.good:
        return ()
    rows = [[cell.strip() for cell in row] for row in csv.reader(smi.out.splitlines())]
    full = len(SMI_FIELDS)
    cards = [row for row in rows if len(row) in {full - 1, full} and row[0].isdigit()]
    return tuple(
        SeenCard(row[1][:_NAME_LIMIT], _field(row[2]), _field(row[3]) if len(row) == full else None)
        for row in cards[:_CARDS_LIMIT]
    )


def _field(text: str) -> str | None:
    return None if text in _NOT_KNOWN else text[:_FIELD_LIMIT]


class PciDevice(Frozen):
    """One device of NVIDIA's on the PCI bus; `kind` by its class."""

    address: str
    device: str
    kind: Literal["card", "switch", "other"]


class DeviceNode(Frozen):
    """One device file; whether this account may read and write it."""

    path: str
    mode: str
    usable: bool


class HostSeen(Frozen):
    """Card and driver, as the host shows them."""

    devices: tuple[PciDevice, ...] | None = None
    devices_why: str = ""
    wsl: bool = False
    loaded: str | None = Field(default=None, description="Version of the kernel's driver; None: none is loaded.")
    installed: str | None = Field(default=None, description="Version of the module on disk.")
    modules: tuple[str, ...] | None = None
    secure_boot: bool | None = None
    smi: ProgramAnswer = ProgramAnswer(name="nvidia-smi")
    libraries: dict[str, tuple[str, ...]] = Field(default={}, description="Versions on disk by name.")
    nodes: tuple[DeviceNode, ...] | None = None
    xids: tuple[str, ...] = ()
    log_is_whole: bool = Field(default=True, description="The kernel's log goes back to the start of this boot.")
    xids_why: str = ""
    processes: frozenset[str] | None = None

    @property
    def cards(self) -> tuple[PciDevice, ...]:
        """The cards among the devices."""
        return tuple(device for device in self.devices or () if device.kind == "card")

    @property
    def named(self) -> tuple[SeenCard, ...]:
        """The cards that nvidia-smi names; empty where it did not answer."""
        return named_cards(self.smi)

    @property
    def no_card(self) -> bool:
        """True where the bus was read and has none; WSL shows its cards elsewhere."""
        return self.devices is not None and not self.cards and not self.wsl and self.loaded is None


class CdiSpec(Frozen):
    """One CDI specification, and the driver versions that its paths name."""

    path: str
    versions: tuple[str, ...]
    refused: bool = Field(default=False, description="It is there, and this account may not read it.")


class Account(Frozen):
    """Who asks."""

    in_group_file: bool = Field(description="/etc/group lists it in `docker`.")
    in_session: bool = Field(description="This very process is in `docker`.")


class EngineSeen(Frozen):
    """Container toolkit and engine, as the host shows them."""

    tools: dict[str, ProgramAnswer] = Field(default={}, description="Of the container toolkit, by name.")
    program: str | None = Field(default=None, description="Where `docker` is, links followed.")
    version: ProgramAnswer = ProgramAnswer(name="docker")
    answer: ProgramAnswer = ProgramAnswer(name="docker")
    info: dict[str, Any] | None = Field(default=None, description="`docker info` as data; None: no daemon answered.")
    elsewhere: str = Field(default="", description="Why the daemon's machine is not this one; empty where it is.")
    socket: bool = Field(default=False, description="/var/run/docker.sock is there.")
    account: Account = Account(in_group_file=False, in_session=False)
    daemon_json: dict[str, Any] | None = None
    daemon_json_why: str = ""
    cdi: tuple[CdiSpec, ...] | None = None
    char_links: bool | None = None
    free_bytes: int | None = None
    free_why: str = ""
    shm_bytes: int | None = None


class HeldImage(Frozen):
    """What Docker says of one image. Without `facts` it holds none or, where `why` says so, could not be asked."""

    facts: ImageFacts | None = None
    unpacked_bytes: int | None = None
    pinned: str | None = Field(default=None, description="The reference that means exactly this image.")
    why: str = ""


class HostStep(Frozen):
    """One thing that was looked at. `node`: the question of the diagnosis tree that it helps to answer."""

    id: Annotated[str, Field(pattern=r"^[a-z]+(-[a-z]+)*$")]
    title: str
    status: StepStatus
    seen: str = ""
    why: str = Field(default="", description="Why it could not be seen.")
    do: str = ""
    cause: str | None = Field(default=None, description="Code of the catalogue.")
    node: str | None = None


def known_of(steps: tuple[HostStep, ...]) -> dict[str, Known]:
    """What the steps answer: `no` where one is wrong or not there, `yes` only where all of a question were seen."""
    found: dict[str, Known] = {}
    for node in dict.fromkeys(step.node for step in steps if step.node):
        of_node = [step for step in steps if step.node == node]
        wrong = next((step for step in of_node if step.status in {"problem", "none"}), None)
        if wrong is not None:
            found[node] = Known(answer=NO, evidence=wrong.seen)
        elif all(step.status != "not-seen" for step in of_node):
            found[node] = Known(answer=YES, evidence=of_node[0].seen)
    return found
