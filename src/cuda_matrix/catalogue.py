"""Owns the shape of the catalogue of causes: what a cause is, and by which signs it is recognised.

Must not know how evidence is weighed (diagnose) or where the catalogue is read from (reference).
"""

from __future__ import annotations

import re
import sys
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from cuda_matrix.model import Frozen
from cuda_matrix.result import Side

if TYPE_CHECKING:
    from collections.abc import Iterable

# The engine's own reader of regexes; it moved with Python 3.11.
_syntax: Any = import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")

Phase = Literal["pull", "start", "import", "build", "run"]

# Facts that a cause's `context` and `known_fix` may name (particulars fills them in), beside a text's own figures.
CONTEXT_FACTS = frozenset(
    {
        "image_cuda",
        "image_cuda_major",
        "driver_floor",
        "driver",
        "driver_cuda",
        "torch",
        "arch_list",
        "device_name",
        "device_capability",
        "card_sm",
        "card_toolkits",
        "asked_toolkits",
    }
)

Priority = Annotated[int, Field(ge=0, le=110)]
Confidence = Annotated[float, Field(gt=0, lt=1)]


class Signature(Frozen):
    """Words that mean a cause: a case-insensitive regex for one line, and maybe more that must hold.

    `also` must match some line of the text, `told` the text or what else is known of the case (Evidence.context).
    Named groups of `pattern` are the text's own figures, for the cause's `found`.
    """

    pattern: str
    also: str | None = None
    told: str | None = None
    priority: Priority
    confidence: Confidence
    case: str | None = Field(default=None, description="The mechanism that these words mean: a key of Cause.cases.")


class ExitSign(Frozen):
    """What the end of the process alone may say. Every field that is set must hold."""

    code: int | None = None
    signal: int | None = None
    oom_killed: bool | None = None
    timed_out: bool | None = None
    priority: Priority
    confidence: Confidence


class Case(Frozen):
    """One mechanism of a cause, where what to say and to do differs. What is empty is the cause's own."""

    title: str = ""
    explanation: str = ""
    found: str = ""
    fix: tuple[str, ...] = ()
    known_fix: tuple[str, ...] = ()
    source: str = ""
    instead: tuple[str, ...] = ()


class Cause(Frozen):
    """One row of data/causes.yml, whose header explains every field."""

    code: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    title: str
    side: Side
    phase: Annotated[tuple[Phase, ...], Field(min_length=1)]
    symptom: bool = False
    explanation: str
    context: str = ""
    found: str = ""
    fix: Annotated[tuple[str, ...], Field(min_length=1)]
    sources: Annotated[tuple[str, ...], Field(min_length=1)]
    signatures: tuple[Signature, ...] = ()
    exits: tuple[ExitSign, ...] = ()
    known_fix: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()
    cases: dict[str, Case] = Field(default={})

    @model_validator(mode="after")
    def _cases_are_known(self) -> Cause:
        missing = sorted({sign.case for sign in self.signatures if sign.case} - self.cases.keys())
        if missing:
            msg = f"{self.code}: no case {', '.join(missing)}"
            raise ValueError(msg)
        return self

    def case(self, name: str | None) -> Case:
        """What to say and do for one mechanism; None, or a name that is none of its cases: for the cause in general."""
        own = Case(
            title=self.title,
            explanation=self.explanation,
            found=self.found,
            fix=self.fix,
            known_fix=self.known_fix,
            source=self.sources[0],
            instead=self.instead,
        )
        special = self.cases.get(name or "")
        if special is None:
            return own
        said = {field: value for field in Case.model_fields if (value := getattr(special, field))}
        # Steps and figures of the cause in general are not those of the mechanism, once it has its own.
        replaced = {"known_fix": (), "found": ""} if special.fix or special.explanation else {}
        return own.model_copy(update=replaced | said)


class Catalogue(Frozen):
    """Every cause by its code. `unknown` and `none` are always among them."""

    causes: dict[str, Cause]

    @model_validator(mode="after")
    def _others_are_known(self) -> Catalogue:
        named = {code for cause in self.causes.values() for code in cause.instead}
        named |= {code for cause in self.causes.values() for case in cause.cases.values() for code in case.instead}
        missing = sorted(named - self.causes.keys())
        if missing:
            msg = f"instead: no cause {', '.join(missing)}"
            raise ValueError(msg)
        return self


def anchors(catalogue: Catalogue) -> frozenset[str]:
    """Lower-case words of which every line that a signature can match holds at least one.

    So a reader of a huge log can drop every line without any of them and loses no sign.
    """
    signatures = [signature for cause in catalogue.causes.values() for signature in cause.signatures]
    patterns = [p for s in signatures for p in (s.pattern, s.also, s.told) if p is not None]
    return frozenset(word for pattern in patterns for word in anchors_of(pattern))


@cache
def anchors_of(pattern: str) -> frozenset[str]:
    """Lower-case literals of which every match of the regex holds one; of all such sets, that of the longest words.

    Empty where nothing literal must be there. The engine's own parse decides, so that the two cannot differ.
    """
    return _required(_syntax.parse(pattern, re.IGNORECASE | re.ASCII))


def _required(nodes: Iterable[tuple[Any, Any]]) -> frozenset[str]:
    found: list[frozenset[str]] = []
    run = ""
    for op, value in nodes:
        if op is _syntax.LITERAL:
            run += chr(value).lower()
            continue
        if op is _syntax.AT:  # a place between two characters, such as \b: the word goes on
            continue
        branches = _branches(op, value)
        # The word goes on into every branch: `sm_(70|80)` needs sm_70 or sm_80, not only sm_.
        found += [frozenset({run}), frozenset(run + _beginning(branch) for branch in branches)]
        run = ""
        needs = [_required(branch) for branch in branches]
        found.append(frozenset().union(*needs) if all(needs) else frozenset())
    found.append(frozenset({run}))
    return max((words for words in found if "" not in words), key=_shortest, default=frozenset())


def _shortest(words: frozenset[str]) -> int:
    return min((len(word) for word in words), default=0)


def _branches(op: Any, value: Any) -> list[Any]:
    """The alternatives of one node, each a sequence of nodes; none where it may match nothing or any character."""
    if op is _syntax.SUBPATTERN:
        nodes = list(value[-1])
        return _branches(*nodes[0]) if len(nodes) == 1 and nodes[0][0] is _syntax.BRANCH else [nodes]
    if op is _syntax.MAX_REPEAT or op is _syntax.MIN_REPEAT:
        return [value[2]] if value[0] > 0 else []
    if op is _syntax.BRANCH:
        return list(value[1])
    if op is _syntax.IN and all(kind is _syntax.LITERAL for kind, _ in value):
        return [[member] for member in value]
    return []


def _beginning(nodes: Iterable[tuple[Any, Any]]) -> str:
    """The literal with which every match begins, perhaps empty."""
    run = ""
    for op, value in nodes:
        if op is _syntax.LITERAL:
            run += chr(value).lower()
        elif op is not _syntax.AT:
            break
    return run
