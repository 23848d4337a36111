"""Owns what is known of an image without asking anybody: by its tag's grammar, or because a user types it.

Must not know registries (adapters) or what a fact means for a card (predict). A tag is its author's word: whatever the
image's own configuration says stands over it (image_facts.ImageFacts.over).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cuda_matrix import image_reference, kernels
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.explain import nearest
from cuda_matrix.image_facts import NOT_CONFIRMED, TAG, ImageFacts
from cuda_matrix.machine_names import platform_name
from cuda_matrix.model import size_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from cuda_matrix.image_reference import Parts
    from cuda_matrix.image_schemes import SchemeTable, TagReading

NONE = "none"  # a torch or CUDA that the image is known not to have
GIVEN = "given"  # where a fact comes from that a user typed
_TEXT_LIMIT = 100_000  # characters of facts that a user gives
_VERSION = re.compile(r"\d{1,4}(?:\.\d{1,5}){0,3}(?:(?:a|b|rc|\.dev|\.post)\d{0,8})?", re.ASCII)
_RELEASE_LINE = re.compile(r"v?\d{1,4}(?:\.\d{1,4})?")
_MOVING_END = re.compile(r"[-_.](?:latest|nightly|lts|stable)$")
_KEY = re.compile(r"\s*([A-Za-z][\w -]{0,60}?)\s*=")
_PLATFORM = re.compile(r"[a-z]+/[a-z][a-z0-9_]+(/\w+)?", re.ASCII)
_WHEEL = re.compile(r"\+cu(\d{2,3})$", re.ASCII)


def facts_of_ref(ref: str, schemes: SchemeTable) -> ImageFacts:
    """What the reference alone says; `ref` alone where it is none, or where no grammar knows it."""
    if image_reference.problem_of(ref):
        return ImageFacts(ref=ref)
    parts = image_reference.parts_of(ref)
    values: dict[str, Any] = {"mutable_tag": moves(parts)}
    if parts.digest:
        values["digest"] = parts.digest
    origins = dict.fromkeys(values, "reference")
    reading = schemes.read(parts.name, parts.tag or "latest")
    if reading is not None:
        if "channel" in reading.says and not parts.digest:
            values["mutable_tag"] = True
        said = {name: value for name, value in _said(reading, schemes).items() if value}
        origins |= dict.fromkeys(
            said, f"{TAG} ({reading.scheme.id}){'' if _vouched(reading, schemes) else NOT_CONFIRMED}"
        )
        values |= said
    return ImageFacts(
        ref=ref, **values, origins={name: origins[name] for name, value in values.items() if value is not None}
    )


def moves(parts: Parts) -> bool | None:
    """Whether another image may be pushed under this name as a matter of course; None where the tag does not tell.

    A tag that names no number (`edge`), only the line of a release (`2`, `v2.9`), or ends in a channel (latest, lts)
    moves. A full version may be pushed again, but is not meant to.
    """
    if parts.digest:
        return False
    tag = parts.tag or "latest"
    if names_no_release(tag) or _RELEASE_LINE.fullmatch(tag):
        return True
    return False if re.search(r"\d\.\d", tag) else None


def names_no_release(tag: str) -> bool:
    """Whether a tag is made to be pushed again: `edge`, `Nightly`, `cuda12-latest`."""
    return not any(character.isdigit() for character in tag) or _MOVING_END.search(tag) is not None


def _vouched(reading: TagReading, schemes: SchemeTable) -> bool:
    """Whether somebody vouches for what the tag means: its grammar, and the row of NVIDIA's month."""
    month = schemes.ngc_image(reading.says.get("release", ""))
    return reading.scheme.decides and (month is None or month.decides)


def _said(reading: TagReading, schemes: SchemeTable) -> dict[str, Any]:
    says = reading.says
    found: dict[str, Any] = {
        "torch": says.get("torch"),
        "cuda": says.get("cuda"),
        "cudnn": says.get("cudnn"),
        "flavour": says.get("flavour"),
        "os": says.get("os"),
    }
    if "release" in says:
        found |= _month(says["release"], schemes)
        found["require"] = {"NVIDIA_REQUIRE_CUDA": reading.scheme.require} if reading.scheme.require else {}
        if "igpu" in says:
            found |= {"flavour": "igpu", "platforms": ("linux/arm64",)}
    elif not {"torch", "channel"} & set(re.compile(reading.scheme.tag).groupindex):
        # A scheme whose tags never speak of torch is of images without it (nvidia/cuda).
        found["torch"] = NONE
    if not found["os"] and says.get("torch"):
        found["os"] = reading.scheme.os_of(says["torch"])
    if found["cuda"] and "igpu" not in says:
        found["compat"] = reading.scheme.compat_of(found["cuda"], says.get("torch"), says.get("flavour"))
    return found


def _month(release: str, schemes: SchemeTable) -> dict[str, Any]:
    """What NVIDIA's table says of one month; a month that is not listed says nothing."""
    row = schemes.ngc_image(release)
    if row is None:
        return {}
    cuda = ".".join(row.cuda.split(".")[:3]) if row.cuda else None
    torch = row.torch.partition("+")[0] if row.torch else None
    return {"torch": torch, "cuda": cuda, "compat_driver": row.cuda_driver}


def facts_given(text: str) -> ImageFacts | None:
    """Facts that a user types: `torch=2.2.0,cuda=12.1,arch=sm_80 sm_90`, or a JSON object; None: it is a reference.

    Raises:
        ConfigurationError: a key is not known, or a value is not of its kind.
    """
    text = text.strip()
    if len(text) > _TEXT_LIMIT:
        msg = f"the facts of an image have at most {_TEXT_LIMIT} characters"
        raise ConfigurationError(msg)
    if re.search("[\ud800-\udfff]", text):
        msg = "the facts of an image are text in UTF-8"
        raise ConfigurationError(msg)
    if text.startswith("{"):
        return _facts(_object(text))
    if _KEY.match(text):
        return _facts(_pairs(text))
    return None


def _object(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text, object_pairs_hook=_once)
    except (json.JSONDecodeError, RecursionError) as error:
        msg = f"the facts are no JSON object: {error}"
        raise ConfigurationError(msg, hint='for example {"torch": "2.2.0", "cuda": "12.1"}') from error
    if re.search("[\ud800-\udfff]", json.dumps(document, ensure_ascii=False)):
        msg = r"half a character (\ud800 to \udfff) is in the facts: they are no text"
        raise ConfigurationError(msg)
    return dict(document)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two facts of one name, nobody can say which is meant.

    Raises:
        ConfigurationError: a name is there twice.
    """
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        msg = f"{twice[:60]} is given twice"
        raise ConfigurationError(msg)
    return dict(pairs)


def _pairs(text: str) -> dict[str, Any]:
    """A piece without a key belongs to the value before it: NVIDIA_REQUIRE_CUDA has commas of its own."""
    found: dict[str, Any] = {}
    name = ""
    for piece in text.split(","):
        match = _KEY.match(piece)
        if match:
            name = match[1]
            if name in found:
                msg = f"{name} is given twice"
                raise ConfigurationError(msg)
            found[name] = piece[match.end() :].strip()
        elif piece.strip():
            found[name] = f"{found[name]},{piece.strip()}"
    return found


# What people call a fact → its field. Names that NVIDIA's images use for it count, too.
_NAMES = {
    "image": "ref",
    "pytorch": "torch",
    "pytorch_version": "torch",
    "torch_version": "torch",
    "cuda_version": "cuda",
    "cudnn_version": "cudnn",
    "python_version": "python",
    "arch": "arch_list",
    "archs": "arch_list",
    "architectures": "arch_list",
    "sm": "arch_list",
    "torch_cuda_arch_list": "arch_list",
    "platform": "platforms",
    "machine": "platforms",
    "require_cuda": "require",
    "nvidia_require_cuda": "require",
    "nvidia_disable_require": "disable_require",
    "compat_version": "compat",
    "flavor": "flavour",
    "size": "size_bytes",
    "memory": "gpu_memory_bytes",
    "gpu_memory": "gpu_memory_bytes",
    "mutable": "mutable_tag",
}
_VERSIONS = ("torch", "cuda", "cudnn", "python", "glibc", "compat", "compat_driver")
_FIELDS = frozenset(ImageFacts.model_fields) - {"origins"}
_YES_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _facts(given: dict[str, Any]) -> ImageFacts:
    values: dict[str, Any] = {}
    wheels: str | None = None
    for name, value in given.items():
        key = name.strip().lower().replace("-", "_").replace(" ", "_")
        field = _NAMES.get(key, key)
        if field not in _FIELDS:
            known = sorted(_FIELDS | set(_NAMES))
            msg = f"{name!r} is no fact of an image{nearest(key, known)}"
            raise ConfigurationError(msg, hint=f"facts are {', '.join(sorted(_FIELDS))}")
        if field in values:
            msg = f"{field} is given twice"
            raise ConfigurationError(msg)
        values[field] = _value(name, field, value)
        if field == "torch":
            wheels = _wheels_cuda(str(value))
    values.setdefault("cuda", wheels)
    values = {name: value for name, value in values.items() if value is not None}
    try:
        return ImageFacts(**values, origins=dict.fromkeys(values.keys() - {"ref"}, GIVEN))
    except ValidationError as error:
        first = error.errors()[0]
        msg = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise ConfigurationError(msg) from error


def _wheels_cuda(torch: str) -> str | None:
    """What the word behind the plus of a wheel's version says: 2.5.1+cu124 → 12.4, 2.5.1+cpu → none."""
    if torch.strip().endswith("+cpu"):
        return NONE
    build = _WHEEL.search(torch.strip())
    return f"{build[1][:-1]}.{build[1][-1]}" if build else None


def _value(name: str, field: str, value: Any) -> Any:
    """The value in its field's own form."""
    if value is None:
        return None
    try:
        return _READERS[field](value) if field in _READERS else value
    except TypeError as error:
        msg = f"{name}: {str(value)[:80]!r} is not of its kind: write text, or a list of words"
        raise ConfigurationError(msg) from error
    except ValueError as error:
        msg = f"{name}: {error}"
        raise ConfigurationError(msg) from error


def _version(value: Any) -> str:
    if not isinstance(value, str):
        msg = f"{str(value)[:80]} is no text: write a version in quotes, or 2.10 becomes 2.1"
        raise ValueError(msg)
    text = value.strip().removeprefix("v").partition("+")[0]
    if text.lower() == NONE:
        return NONE
    if not _VERSION.fullmatch(text):
        msg = f"{value[:80]!r} is no version: write for example 2.5.1, or none"
        raise ValueError(msg)
    return text


def _arch_list(value: Any) -> tuple[str, ...]:
    """`sm_80`, `8.0`, `9.0+PTX` → sm_80, sm_80, sm_90 and compute_90."""
    found: list[str] = []
    for word in _words(value):
        codes = kernels.codes([word])
        if not codes:
            msg = f"{word[:80]!r} is no architecture: write for example sm_90, 9.0 or compute_90"
            raise ValueError(msg)
        found += [code.name for code in codes]
    return tuple(dict.fromkeys(found))


def _platforms(value: Any) -> tuple[str, ...]:
    found = tuple(word if "/" in word else f"linux/{platform_name(word)}" for word in _words(value))
    wrong = next((word for word in found if not _PLATFORM.fullmatch(word)), None)
    if wrong is not None:
        msg = f"{wrong.removeprefix('linux/')[:80]!r} is no platform: write for example linux/arm64, or aarch64"
        raise ValueError(msg)
    return found


def _require(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"NVIDIA_REQUIRE_CUDA": str(value)}


def _entrypoint(value: Any) -> tuple[str, ...]:
    return tuple(value.split()) if isinstance(value, str) else tuple(value)


def _yes_no(value: Any) -> bool:
    if str(value).lower() not in _YES_NO:
        msg = f"{value!r} is neither true nor false"
        raise ValueError(msg)
    return _YES_NO[str(value).lower()]


def _words(value: Any) -> list[str]:
    words = re.split(r"[\s,;]+", value.strip()) if isinstance(value, str) else [str(word) for word in value]
    return [word for word in words if word]


_READERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_VERSIONS, _version),
    "arch_list": _arch_list,
    "platforms": _platforms,
    "require": _require,
    "entrypoint": _entrypoint,
    "disable_require": _yes_no,
    "mutable_tag": _yes_no,
    "size_bytes": size_bytes,
}
