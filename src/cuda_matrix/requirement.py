"""Owns what an image asks of a driver before it is started: NVIDIA_REQUIRE_*, read as NVIDIA's container stack does.

Must not know where the variables come from (image_facts) or what a refusal means for the cell (predict).

Two readers exist. `nvidia-container-cli`, behind `--gpus` and the nvidia runtime in legacy mode
(https://github.com/NVIDIA/libnvidia-container/blob/main/src/cli/dsl.c), and the toolkit's own, in csv mode
(https://github.com/NVIDIA/nvidia-container-toolkit/tree/v1.20.0/internal/requirements). Both: space = OR, comma = AND.
They part where a property is unknown (the first refuses the container, the second ignores the condition) and where
something malformed stands behind a group that already holds; there the answer is "not known".
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import NamedTuple

PREFIX = "NVIDIA_REQUIRE_"
_IGNORED_PREFIX = "NVIDIA_REQUIRE_JETPACK"
_CUDA_VARIABLE = "NVIDIA_REQUIRE_CUDA"
_LEGACY_VARIABLE = "CUDA_VERSION"

Version = tuple[int, ...]

_CONDITION = re.compile(r"([^<>=!]+)([<>=!]+)(.+)", re.DOTALL)
_COMPARE: dict[str, Callable[[Version, Version], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_RISING = frozenset({">", ">="})  # once true for a driver, true for every newer one
_FALLING = frozenset({"<", "<="})
_VERSIONS = frozenset({"cuda", "driver", "arch"})
_BY_DRIVER = frozenset({"cuda", "driver"})
_PROPERTIES = _VERSIONS | {"brand"}


class Machine(NamedTuple):
    """What the conditions are held against. None or empty means "not known".

    `cuda` is the newest CUDA that the driver reports: the least and the most that it can be (the same where it is known
    exactly; no most where the driver is newer than every table). `brands` are all that NVML may say of this card.
    """

    cuda: tuple[str | None, str | None] = (None, None)
    driver: str | None = None
    arch: str | None = None
    brands: tuple[str, ...] = ()


class Admission(NamedTuple):
    """Whether the container stack starts the image.

    `admitted` is None where that is not known. `lasting`: no newer driver can lose it. `unsatisfied` is the condition
    that the message names (the first of the variable that refuses); `reason` says what is malformed or not known.
    """

    admitted: bool | None
    lasting: bool = True
    unsatisfied: str = ""
    opened_by: str = ""
    reason: str = ""


class _Condition(NamedTuple):
    text: str
    name: str = ""
    sign: str = ""
    value: str = ""
    malformed: bool = False


_Group = tuple[_Condition, ...]


def evaluate(require: Mapping[str, str], machine: Machine) -> Admission:
    """Hold every NVIDIA_REQUIRE_* variable (ANDed) against the machine.

    A mapping that has CUDA_VERSION but no NVIDIA_REQUIRE_CUDA is a legacy image: it asks for cuda>=major.minor.
    """
    doubt: Admission | None = None
    opened, lasting = [], True
    for text in _variables(require):
        admission = _of_variable(text, machine)
        if admission.admitted is False:
            return admission
        if admission.admitted is None:
            doubt = doubt or admission
        lasting = lasting and admission.lasting
        opened += [admission.opened_by] if admission.opened_by else []
    return doubt or Admission(True, lasting, opened_by="; ".join(opened))


def go_bool(text: str) -> bool:
    """How the toolkit reads NVIDIA_DISABLE_REQUIRE: Go's strconv.ParseBool, where anything else is false."""
    return text in {"1", "t", "T", "TRUE", "true", "True"}


def says_something(require: Mapping[str, str]) -> bool:
    """False for no requirement and for NGC's constant `cuda>=9.0`, which says nothing of the image's need."""
    texts = [text.strip() for text in _variables(require)]
    return any(text and text != "cuda>=9.0" for text in texts)


def _variables(require: Mapping[str, str]) -> list[str]:
    texts = [
        text
        for name, text in sorted(require.items())
        if name.startswith(PREFIX) and not name.startswith(_IGNORED_PREFIX)
    ]
    legacy = re.match(r"(?:cuda>=)?([0-9]{1,9})\.([0-9]{1,9})", require.get(_LEGACY_VARIABLE, ""))
    if legacy and not require.get(_CUDA_VARIABLE):
        texts.append(f"cuda>={legacy[1]}.{legacy[2]}")
    return texts


def _of_variable(text: str, machine: Machine) -> Admission:
    groups = _groups(text)
    if not groups:
        return Admission(True)
    answers = [_of_brand(groups, machine, brand) for brand in machine.brands or (None,)]
    words = {answer.admitted for answer in answers}
    first = text.split(maxsplit=1)[0]
    if words == {True}:
        lasting = all(answer.lasting for answer in answers)
        opened = next((a.opened_by for a in answers if not a.lasting), answers[0].opened_by)
        return Admission(True, lasting, opened_by=opened)
    if words == {False}:
        return Admission(False, unsatisfied=first, reason=answers[0].reason)
    reason = next((answer.reason for answer in answers if answer.admitted is None), "")
    return Admission(None, unsatisfied=first, reason=reason or f"brand of the card ({' or '.join(machine.brands)})")


def _groups(text: str) -> tuple[_Group, ...]:
    parsed = (tuple(_condition(part) for part in group.split(",") if part.strip()) for group in text.split(" "))
    return tuple(group for group in parsed if group)


def _condition(text: str) -> _Condition:
    match = _CONDITION.fullmatch(text)
    if not match:
        return _Condition(text, malformed=True)
    name, sign, value = match[1].lower(), match[2], match[3]
    malformed = sign not in _COMPARE
    if name in _VERSIONS:
        malformed = malformed or not re.fullmatch(r"[0-9]{1,9}(\.+[0-9]{1,9})*\.*", value)
    if name == "brand":
        malformed = malformed or sign not in {"=", "!="}
    return _Condition(text, name, sign, value, malformed)


def _of_brand(groups: tuple[_Group, ...], machine: Machine, brand: str | None) -> Admission:
    """The two readers' common answer for one brand; None where they differ or where a fact is missing."""
    strict, lenient = _strict(groups, machine, brand), _lenient(groups, machine, brand)
    if strict.admitted == lenient.admitted:
        return strict
    return Admission(None, reason=strict.reason or lenient.reason)


def _strict(groups: tuple[_Group, ...], machine: Machine, brand: str | None) -> Admission:
    """nvidia-container-cli: in order, up to the first group that holds; what it cannot read ends the start."""
    held: list[_Group] = []
    doubt = ""
    for group in groups:
        answer: bool | None = True
        for condition in group:
            if condition.malformed or condition.name not in _PROPERTIES:
                if held or doubt:
                    break
                return Admission(False, reason=f"invalid expression: {condition.text}")
            here = _holds(condition, machine, brand)
            if here is None:
                doubt = doubt or _unknown(condition)
            answer = False if here is False else None if here is None else answer
            if answer is False:
                break
        else:
            held += [group] if answer else []
    return _chosen(held, doubt)


def _lenient(groups: tuple[_Group, ...], machine: Machine, brand: str | None) -> Admission:
    """The toolkit's reader in csv mode: all is read first; a condition on a property that it has not is left out."""
    wrong = [each.text for group in groups for each in group if each.malformed and each.name in {"", *_PROPERTIES}]
    if wrong:
        return Admission(False, reason=f"invalid constraint: {wrong[0]}")
    known = [kept for group in groups if (kept := tuple(c for c in group if c.name in _PROPERTIES))]
    if not known:
        return Admission(True)
    answers = [[_holds(condition, machine, brand) for condition in group] for group in known]
    held = [group for group, answer in zip(known, answers, strict=True) if all(answer)]
    open_ = [
        condition
        for group, answer in zip(known, answers, strict=True)
        if False not in answer
        for condition, here in zip(group, answer, strict=True)
        if here is None
    ]
    return _chosen(held, _unknown(open_[0]) if open_ else "")


def _chosen(held: list[_Group], doubt: str) -> Admission:
    if not held:
        return Admission(None if doubt else False, reason=doubt)
    lasting = [group for group in held if all(_lasts(condition) for condition in group)]
    return Admission(True, bool(lasting), opened_by=",".join(each.text for each in (lasting or held)[0]))


def _unknown(condition: _Condition) -> str:
    words = {"cuda": "CUDA version of the driver", "driver": "driver", "arch": "compute capability of the card"}
    return words.get(condition.name, "brand of the card")


def _lasts(condition: _Condition) -> bool:
    return condition.name not in _BY_DRIVER or condition.sign in _RISING


def _holds(condition: _Condition, machine: Machine, brand: str | None) -> bool | None:
    if condition.name == "brand":
        if brand is None:
            return None
        return (brand.lower() == condition.value.lower()) == (condition.sign == "=")
    wanted = _key(condition.value)
    if condition.name == "cuda":
        return _within(condition.sign, machine.cuda, wanted)
    value = machine.driver if condition.name == "driver" else machine.arch
    return None if value is None else _compare(condition.sign, _key(value), wanted)


def _within(sign: str, bounds: tuple[str | None, str | None], wanted: Version) -> bool | None:
    """Whether the condition holds, or fails, for every version between the bounds."""
    least, most = (_key(bound) if bound is not None else None for bound in bounds)
    if least is not None and least == most:
        return _compare(sign, least, wanted)
    if least is not None:
        if sign in _RISING and _compare(sign, least, wanted):
            return True
        if sign in _FALLING and not _compare(sign, least, wanted):
            return False
    if most is not None:
        if sign in _RISING and not _compare(sign, most, wanted):
            return False
        if sign in _FALLING and _compare(sign, most, wanted):
            return True
    return None


def _compare(sign: str, ours: Version, wanted: Version) -> bool:
    pairs = list(zip_longest(ours, wanted, fillvalue=0))
    return _COMPARE[sign](tuple(one for one, _ in pairs), tuple(other for _, other in pairs))


def _key(version: str) -> Version:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:8])
