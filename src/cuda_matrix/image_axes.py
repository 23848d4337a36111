"""Owns the expansion of one image entry: axes multiplied out, placeholders filled, exceptions left out.

Must not know runners, cells or other images (matrix).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from typing import NamedTuple

from cuda_matrix.config import ENV_NAME, Image
from cuda_matrix.explain import ValuePath, nearest
from cuda_matrix.image_reference import digest_of, problem_of
from cuda_matrix.model import ID_PATTERN
from cuda_matrix.plan import PlannedImage

COMBINATION_LIMIT = 10_000  # axis combinations of one entry, before its exceptions

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_AXIS = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


class Finding(NamedTuple):
    """Something wrong at a path of the configuration.

    `key` is True where the key is meant, not its value; `other` is a second place that belongs to it.
    """

    path: ValuePath
    message: str
    key: bool = False
    other: ValuePath | None = None


def expand_image(image: Image, path: ValuePath) -> tuple[list[PlannedImage], list[Finding]]:
    """Every image that one entry stands for, once per variant, in the order of its axes; and what is wrong.

    No image is given where something is wrong that could change their number or ids.
    """
    wrong = [*_axis_findings(image, path), *_placeholder_findings(image, path)]
    combinations = prod(len(values) for values in image.axes.values())
    if combinations > COMBINATION_LIMIT:
        text = f"the axes make {combinations:,} combinations; at most {COMBINATION_LIMIT:,} are read"
        wrong.append(Finding((*path, "axes"), text))
    planned: list[PlannedImage] = []
    if not wrong:
        for values in _combinations(image):
            planned.extend(_planned(image, values))
        wrong = _expanded_findings(image, planned, path)
    return planned, [*wrong, *_exceptions_findings(image, path), *_env_findings(image, path)]


def id_glob(image: Image) -> str:
    """A glob for every id that an entry may stand for, whatever its axes are."""
    return _PLACEHOLDER.sub("*", image.id)


def _combinations(image: Image) -> Iterator[dict[str, str]]:
    exceptions = [{name: value for name, value in rule.items() if name != "reason"} for rule in image.exclude]
    for chosen in product(*image.axes.values()):
        values = dict(zip(image.axes, chosen, strict=True))
        if not any(rule.items() <= values.items() for rule in exceptions):
            yield values


def _planned(image: Image, values: Mapping[str, str]) -> Iterator[PlannedImage]:
    ref = _fill(image.ref, values)
    expect: dict[str, str] = {name: _fill(text, values) for name, text in image.expect.items()}
    for variant in image.variants or (None,):
        yield PlannedImage(
            id=_fill(image.id, values),
            variant=variant,
            ref=ref,
            digest=digest_of(ref),
            env=dict(image.variants[variant].env) if variant else {},
            expect=expect,
            paths=image.paths,
            release=tuple(_fill(text, values) for text in image.release),
        )


def _fill(text: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: values[found[1]], text)


def _axis_findings(image: Image, path: ValuePath) -> Iterator[Finding]:
    for name, values in image.axes.items():
        if name == "reason" or not _AXIS.fullmatch(name):
            text = f"{name!r} cannot name an axis: a letter, then letters, digits, '_' or '-' (and not 'reason')"
            yield Finding((*path, "axes", name), text, key=True)
        for index, value in enumerate(values):
            if value in values[:index]:
                yield Finding((*path, "axes", name, index), f"{value!r} stands twice in this axis")


def _exceptions_findings(image: Image, path: ValuePath) -> Iterator[Finding]:
    for index, rule in enumerate(image.exclude):
        yield from _exception_findings(image, rule, (*path, "exclude", index))


def _exception_findings(image: Image, rule: Mapping[str, str], path: ValuePath) -> Iterator[Finding]:
    if len(rule.get("reason", "").strip()) < 3:
        yield Finding(path, "say why in `reason`")
    if not rule.keys() - {"reason"}:
        yield Finding(path, "names no axis, so it would exclude every combination")
    for name, value in rule.items():
        if name == "reason":
            continue
        if name not in image.axes:
            yield Finding((*path, name), f"{name!r} is no axis of this image{nearest(name, image.axes)}", key=True)
        elif value not in image.axes[name]:
            known = ", ".join(image.axes[name])
            yield Finding(
                (*path, name), f"axis {name!r} has no value {value!r}, so this matches nothing; it has {known}"
            )


def _placeholder_findings(image: Image, path: ValuePath) -> Iterator[Finding]:
    texts: list[tuple[ValuePath, str]] = [((*path, "id"), image.id), ((*path, "ref"), image.ref)]
    texts += [((*path, "expect", name), text) for name, text in image.expect.items()]
    texts += [((*path, "release", index), text) for index, text in enumerate(image.release)]
    for where, text in texts:
        if re.search(r"[{}]", _PLACEHOLDER.sub("", text)):
            yield Finding(where, f"a brace of {text!r} has no partner: a placeholder is written {{axis}}")
        for name in _PLACEHOLDER.findall(text):
            if name not in image.axes:
                hint = nearest(name, image.axes) or ("" if image.axes else " (it has no axes)")
                yield Finding(where, f"the placeholder {{{name}}} names no axis of this image{hint}")


def _env_findings(image: Image, path: ValuePath) -> Iterator[Finding]:
    for variant, options in image.variants.items():
        for name in options.env:
            if not ENV_NAME.fullmatch(name):
                text = f"{name!r} cannot name an environment variable: letters, digits and '_', the first no digit"
                yield Finding((*path, "variants", variant, "env", name), text, key=True)


def _expanded_findings(image: Image, planned: list[PlannedImage], path: ValuePath) -> list[Finding]:
    """What is wrong with ids and references only after the placeholders were filled."""
    if not planned:
        return [Finding((*path, "exclude"), "nothing is left of this image: every combination is excluded")]
    ids = list(dict.fromkeys(row.id for row in planned))
    if len(ids) * max(len(image.variants), 1) < len(planned):
        used = set(_PLACEHOLDER.findall(image.id))
        missing = [name for name, values in image.axes.items() if name not in used and len(values) > 1]
        way_out = (
            f"put {', '.join(f'{{{name}}}' for name in missing)} into it" if missing else "separate its placeholders"
        )
        return [Finding((*path, "id"), f"several combinations would share one id: {way_out}")]
    findings = []
    bad = next((name for name in ids if not ID_PATTERN.fullmatch(name)), None)
    if bad is not None:
        rule = "letters, digits, '.', '_' and '-', at most 100, the first a letter or digit"
        findings.append(Finding((*path, "id"), f"{bad[:120]!r} cannot be an id: {rule}"))
    wrong = next(filter(None, map(problem_of, dict.fromkeys(row.ref for row in planned))), "")
    if wrong:
        findings.append(Finding((*path, "ref"), wrong))
    return findings
