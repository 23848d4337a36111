"""Owns what an image reference may look like; must not ask any registry whether it exists.

Rules: https://github.com/distribution/reference/blob/main/reference.go (grammar at its head).
"""

from __future__ import annotations

import re
from typing import NamedTuple

_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])"
_DOMAIN = re.compile(rf"{_HOST}(?::[0-9]+)?")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")
_NAME_LIMIT = 255  # characters of the repository with its registry


def digest_of(ref: str) -> str | None:
    """The digest that a reference is pinned to, or None."""
    _, _, digest = ref.partition("@")
    return digest if _DIGEST.fullmatch(digest) else None


class Parts(NamedTuple):
    """A reference taken apart, and what it leaves out: `pytorch/pytorch` is of docker.io, `ubuntu` library/ubuntu."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    @property
    def name(self) -> str:
        """registry/repository."""
        return f"{self.registry}/{self.repository}"


def parts_of(ref: str) -> Parts:
    """The parts of a reference that `problem_of` has nothing against. A tag beside a digest decides nothing."""
    rest, _, _ = ref.partition("@")
    name, _, tag = _name_and_tag(rest)
    first, slash, path = name.partition("/")
    if slash and _is_registry(first):
        registry = "docker.io" if first == "index.docker.io" else first
    else:
        registry, path = "docker.io", name
    if registry == "docker.io" and "/" not in path:
        path = f"library/{path}"
    return Parts(registry, path, tag or None, digest_of(ref))


def _name_and_tag(rest: str) -> tuple[str, str, str]:
    name, colon, tag = rest.rpartition(":")
    return (name, colon, tag) if colon and "/" not in tag else (rest, "", "")


def _is_registry(first: str) -> bool:
    return first == "localhost" or "." in first or ":" in first


def problem_of(ref: str) -> str:
    """Why `ref` cannot be an image reference; empty where it can."""
    if any(character.isspace() for character in ref):
        return f"{ref!r} is not an image reference: it holds white space"
    if "://" in ref:
        return f"{ref!r} is not an image reference: leave {ref.partition('://')[0]}:// away"
    rest, at, digest = ref.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        return f"{digest!r} is not a digest: write sha256: and 64 digits of 0-9a-f"
    name, colon, tag = _name_and_tag(rest)
    if colon and not _TAG.fullmatch(tag):
        return f"{tag!r} is not a tag: letters, digits, '_', '.' and '-', at most 128, the first no '.' or '-'"
    return _name_problem(name)


def _name_problem(name: str) -> str:
    first, slash, path = name.partition("/")
    if slash and _is_registry(first):
        if not _DOMAIN.fullmatch(first):
            return f"{first!r} is not a registry: write host or host:port"
    else:
        path = name
    if len(name) > _NAME_LIMIT:
        return f"the repository name is longer than {_NAME_LIMIT} characters"
    if path != path.lower():
        return f"the repository {path!r} must be in lower case: {path.lower()!r}"
    if _IMAGE_ID.fullmatch(path):
        return "64 hexadecimal digits are an image id, not a repository"
    if not all(_COMPONENT.fullmatch(part) for part in path.split("/")):
        return f"{path!r} is not a repository: lower-case words joined by '/', '.', '_' or '-'"
    return ""
