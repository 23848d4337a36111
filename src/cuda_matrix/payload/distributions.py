"""Owns what the metadata of installed Python distributions say: their versions, and the files that they brought.

Reads directories and text files, imports nothing of the image. One way for every Python: importlib.metadata is newer
than 3.7. Must not know what is right for an image.
"""

from __future__ import annotations

import os
import re
import sys

from .cgroup import read_text

_HEAD = 65536  # bytes of METADATA that are read: the headers stand first
_RECORD_LIMIT = 32 << 20  # bytes of a RECORD


class Distribution:
    """One installed distribution: its name and version as its metadata give them, and where it lies."""

    def __init__(self, name: str, version: str, path: str):
        self.name = name
        self.version = version
        self.path = path  # of its .dist-info or .egg-info

    @property
    def site(self) -> str:
        """The directory that its RECORD counts from."""
        return os.path.dirname(self.path)

    def files(self, part: str):
        """Every recorded file with `part` in its path: (path on disk, sha256 in hex or "", bytes or None)."""
        text = read_text(os.path.join(self.path, "RECORD"), _RECORD_LIMIT)
        for line in text.splitlines():
            if part not in line:
                continue
            name, _, rest = _unquoted(line)
            digest, _, size = rest.partition(",")
            path = os.path.normpath(os.path.join(self.site, name))
            yield path, _hex(digest), int(size) if size.strip().isdigit() else None


def normalised(name: str) -> str:
    """`Jupyter_Lab` and `jupyter-lab` are one name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(search_path=None) -> dict:
    """Every distribution that this Python finds: normalised name → Distribution; the first on the path wins."""
    found = {}
    for directory in sys.path if search_path is None else search_path:
        try:
            entries = sorted(os.listdir(directory or "."))
        except OSError:
            continue
        for entry in entries:
            if not entry.endswith((".dist-info", ".egg-info")):
                continue
            distribution = _distribution(os.path.join(directory or ".", entry))
            if distribution is not None:
                found.setdefault(normalised(distribution.name), distribution)
    return found


def _distribution(path):
    """Name and version: from the directory's own name where it has both, else from the metadata's headers."""
    stem = os.path.basename(path).rsplit(".", 1)[0]
    name, dash, version = stem.partition("-")
    if path.endswith(".egg-info"):
        version = version.partition("-py")[0]
    if dash and name and version:
        return Distribution(name, version, path)
    file = next(
        (
            each
            for each in (os.path.join(path, "METADATA"), os.path.join(path, "PKG-INFO"), path)
            if os.path.isfile(each)
        ),
        "",
    )
    headers = dict(re.findall(r"^(Name|Version):[ \t]*(\S+)", read_text(file, _HEAD), re.MULTILINE)) if file else {}
    if "Name" in headers and "Version" in headers:
        return Distribution(headers["Name"], headers["Version"], path)
    return None


def top_level(distribution) -> list:
    """The modules that a distribution can be imported by, as its metadata or its files say."""
    listed = read_text(os.path.join(distribution.path, "top_level.txt"), _HEAD).split()
    if listed:
        return [name for name in listed if name.isidentifier() and not name.startswith("_")]
    names = []
    for line in read_text(os.path.join(distribution.path, "RECORD"), _RECORD_LIMIT).splitlines():
        match = re.match(r"([A-Za-z]\w*)(?:/__init__)?\.(?:py|[\w.-]*so),", line)
        if match and match.group(1) not in names:
            names.append(match.group(1))
    return names


def importable(module: str) -> bool:
    """Whether a module is there to be imported; nothing is imported for it."""
    import importlib.util

    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def _unquoted(line):
    """A RECORD line's path, and the rest; a path with a comma is quoted."""
    if line.startswith('"'):
        name, quote, rest = line[1:].partition('",')
        return name.replace('""', '"'), quote, rest
    return line.partition(",")


def _hex(digest):
    """`sha256=<urlsafe base64>` as hex; "" for any other algorithm."""
    import base64
    import binascii

    algorithm, _, value = digest.partition("=")
    if algorithm != "sha256":
        return ""
    try:
        return binascii.hexlify(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))).decode("ascii")
    except (ValueError, binascii.Error):
        return ""
