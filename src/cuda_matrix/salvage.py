"""Owns the mending of a configuration that the types refuse, so that the rest of it can be checked in the same go.

Pure. Says in `Doubts` what is not as its author wrote it; must not know files, places or the rules of the matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cuda_matrix.config import Config, Exclude
from cuda_matrix.doubts import Doubts
from cuda_matrix.explain import Flaw, ValuePath, near

_ATTEMPTS = 3  # the first keeps numbers as text; later ones drop what that did not mend
_ANY = "*"  # a glob that names everything: it can stand where a wrong one stood
_WORD = "unknown"
_IMAGE = {"id": _ANY, "ref": _WORD}
_RUNNER = {"labels": (_WORD,)}
_SHAPE = {"id", "axes", "exclude", "variants"}  # fields that decide an image's ids
_STAND_INS: Mapping[str, Mapping[str, Any]] = {
    "images": _IMAGE,
    "runners": _RUNNER,
    "exclude": {"reason": _WORD},
    "include": {"image": _WORD, "runner": _WORD},
    "expect_fail": {"cell": _ANY, "until": "9999-12-31", "reason": _WORD},
}

Check = Callable[[Any], tuple[Config | None, list[Flaw]]]


def mend(
    value: Mapping[str, Any],
    flaws: Sequence[Flaw],
    check: Check,
    *,
    sections: Collection[str] = (),
    repeated: Collection[ValuePath] = (),
) -> tuple[Config | None, Doubts]:
    """The best configuration that can be had of a value, and what is doubtful about it; None where there is none.

    Args:
        value: the merged configuration.
        flaws: what the types refuse of it.
        check: validates a value once more.
        sections: may hold more entries than were read.
        repeated: paths of keys that stand twice, of which the first was kept.
    """
    work = _Work(dict(value), set(sections))
    work.flawed |= {flaw.path for flaw in flaws}
    for path in repeated:
        work.repeated(path)
    found: Config | None = None
    for attempt in range(_ATTEMPTS):
        for flaw in flaws:
            work.mend(flaw, as_text=attempt == 0)
        work.fill()
        found, flaws = check(work.value)
        if found is not None:
            break
    return found, work.doubts()


@dataclass
class _Work:
    """A configuration while it is mended."""

    value: dict[str, Any]
    sections: set[str]
    images: set[int] = field(default_factory=set)
    runners: list[str] = field(default_factory=list)
    rules: set[int] = field(default_factory=set)
    entries: set[ValuePath] = field(default_factory=set)
    flawed: set[ValuePath] = field(default_factory=set)

    def doubts(self) -> Doubts:
        """What was found."""
        return Doubts(
            images=frozenset(self.images),
            runners=tuple(self.runners),
            rules=frozenset(self.rules),
            entries=frozenset(self.entries),
            flawed=frozenset(self.flawed),
            sections=frozenset(self.sections),
        )

    def mend(self, flaw: Flaw, *, as_text: bool) -> None:
        """Take one flaw out."""
        path = flaw.path
        found = _at(self.value, path)
        text = getattr(found, "text", None)  # of an unquoted number
        if as_text and text is not None and not flaw.key and flaw.kind in {"string_type", "value_error"}:
            self.value = _with(self.value, path, text)
            return
        if not _is_variant(path) or (flaw.key and len(path) == 4):
            self._doubt(path, found)
        if flaw.kind == "missing":
            return
        section = str(path[0])
        if len(path) == 1:
            self.value.pop(section, None)
        elif section == "runners" and len(path) == 2 and flaw.key:
            self.value = _without(self.value, path)
            self.runners.append(str(path[1]))
        elif (section in _STAND_INS and len(path) == 2) or (_is_variant(path) and len(path) == 4 and not flaw.key):
            self.value = _with(self.value, path, {})
        elif section == "images" and len(path) > 3 and path[2] in _SHAPE and not _is_variant(path):
            self.value = _without(self.value, path[:3])  # a part of an axis would be another axis
        elif path[:2] == ("policy", "expect_fail") and len(path) == 3:
            self.value = _with(self.value, path, {})
        else:
            self.value = _without(self.value, path)

    def repeated(self, path: ValuePath) -> None:
        """A key stands twice: what its second value says is not known."""
        if len(path) == 1:
            self.sections.add(str(path[0]))
        elif path[0] != "runners":
            self._doubt(path, {})

    def _doubt(self, path: ValuePath, found: Any) -> None:
        """Note what can no longer be known without the value `found` at `path`."""
        section = path[0]
        if len(path) == 1:
            self.sections.add(str(section))
            return
        index, name = path[1], path[2] if len(path) > 2 else None
        if not isinstance(index, int):
            return
        is_unknown_mapping = name not in _INERT and isinstance(found, dict)  # `axis:` for `axes:`
        if section == "images" and (name is None or name in _SHAPE or is_unknown_mapping):
            self.images.add(index)
        elif section == "exclude" and near(str(name), Exclude.model_fields) != "reason":
            self.rules.add(index)
            if name in {None, "image", "variant"}:
                self.entries.add(("exclude", index))
        elif section == "include":
            self.entries.add(("include", index))

    def fill(self) -> None:
        """Put stand-ins where something that must be there is not."""
        for section in ("images", "exclude", "include"):
            entries = self.value.get(section, ())
            self.value[section] = tuple({**_STAND_INS[section], **entry} for entry in entries)
        if not self.value["images"]:
            self.value["images"], self.images = (_IMAGE,), {0}
        runners = self.value.get("runners", {})
        self.value["runners"] = {name: {**_RUNNER, **runner} for name, runner in runners.items()}
        if not runners:
            self.value["runners"] = {_WORD: _RUNNER}
            self.sections.add("runners")
        policy = self.value.get("policy", {})
        if policy.get("expect_fail"):
            known = tuple({**_STAND_INS["expect_fail"], **entry} for entry in policy["expect_fail"])
            self.value["policy"] = {**policy, "expect_fail": known}


_INERT = {"ref", "expect", "paths", "release"}


def _is_variant(path: ValuePath) -> bool:
    """Whether this is one variant of an image or a part of it: its name stays known."""
    return len(path) > 3 and path[0] == "images" and path[2] == "variants"


def _at(value: Any, path: ValuePath) -> Any:
    for part in path:
        is_there = part in value if isinstance(value, dict) else isinstance(value, tuple) and isinstance(part, int)
        if not is_there:
            return None
        value = value[part]
    return value


def _with(value: Any, path: ValuePath, new: Any) -> Any:
    """A copy with another value at a path; unchanged where there is no such path."""
    if not path:
        return new
    part, rest = path[0], path[1:]
    if isinstance(value, dict):
        return {key: _with(each, rest, new) if key == part else each for key, each in value.items()}
    if isinstance(value, tuple):
        return tuple(_with(each, rest, new) if index == part else each for index, each in enumerate(value))
    return value


def _without(value: Any, path: ValuePath) -> Any:
    """A copy without what stands at a path. Entries of a list keep their places: a wrong one becomes a glob for all."""
    parent = _at(value, path[:-1])
    if isinstance(parent, dict):
        return _with(value, path[:-1], {key: each for key, each in parent.items() if key != path[-1]})
    return _with(value, path, _ANY)
