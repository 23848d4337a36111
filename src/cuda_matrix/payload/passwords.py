"""Owns what is known about passwords that everybody knows: the list, accounts that use one, Jupyter without any.

Never returns, prints or logs a secret: only where it is. Must not know what is a failure.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import sys

# What images on public registries use again and again, and the account's own name.
KNOWN = (
    "", "password", "passwd", "pass", "root", "toor", "admin", "123456", "12345678", "1234", "changeme", "jupyter",
    "nvidia", "docker", "ubuntu", "pytorch", "test",
)  # fmt: skip
SHADOW = "/etc/shadow"
VARIABLES = (
    "PASSWORD", "ROOT_PASSWORD", "ROOT_PASS", "SSH_PASSWORD", "USER_PASSWORD", "VNC_PASSWORD", "VNC_PW",
    "JUPYTER_PASSWORD", "JUPYTER_TOKEN", "NOTEBOOK_TOKEN", "NOTEBOOK_PASSWORD",
)  # fmt: skip
_JUPYTER_FILES = ("jupyter_server_config", "jupyter_notebook_config", "jupyter_lab_config", "jupyter_config")
_SETTING = (
    r"^\s*c\.(?:ServerApp|NotebookApp|IdentityProvider|PasswordIdentityProvider|LabApp)\.{}\s*=\s*(.+?)\s*(?:#.*)?$"
)


class Accounts:
    """Accounts of /etc/shadow: `weak` have no password or a known one; `reason` says why none could be looked at."""

    def __init__(self, weak=(), tried: int = 0, reason: str = ""):
        self.weak = list(weak)
        self.tried = tried
        self.reason = reason


def accounts(shadow: str = SHADOW) -> Accounts:
    """Compare every account that can log in with the known passwords."""
    try:
        with open(shadow, encoding="utf-8", errors="replace") as stream:
            lines = stream.read().splitlines()
    except OSError as error:
        return Accounts(reason=f"{shadow} cannot be read: {error.strerror}")
    entries = [line.split(":")[:2] for line in lines if line.count(":") > 1]
    weak = [name for name, digest in entries if digest == ""]
    hashed = [(name, digest) for name, digest in entries if digest.startswith("$") or len(digest) == 13]
    if not hashed:
        return Accounts(weak, len(entries))
    crypt = _crypt()
    if crypt is None:
        return Accounts(weak, len(entries) - len(hashed), "this Python and this system have no crypt function")
    for name, digest in hashed:
        if any(crypt(word, digest) == digest for word in (name, *KNOWN)):
            weak.append(name)
    return Accounts(weak, len(entries))


def _crypt():
    """`crypt` of the C library: Python's own module for it is gone since 3.13."""
    import ctypes

    for name in ("libcrypt.so.1", "libcrypt.so.2", None):
        try:
            function = ctypes.CDLL(name).crypt
        except (OSError, AttributeError):
            continue
        function.restype = ctypes.c_char_p
        function.argtypes = (ctypes.c_char_p, ctypes.c_char_p)

        def crypt(word, salt, function=function):
            return (function(word.encode(), salt.encode()) or b"").decode("ascii", "replace")

        return crypt
    return None


def variables(environment) -> list:
    """Names of variables that hold a known password."""
    return [name for name in VARIABLES if environment.get(name) and environment[name].lower() in KNOWN]


def jupyter_files(environment, root: str = "") -> list:
    """Jupyter's configuration files, in the places where it looks. `root` stands in for / in tests."""
    places = [os.path.join(environment.get("HOME") or "/root", ".jupyter"), environment.get("JUPYTER_CONFIG_DIR") or ""]
    places += ["/root/.jupyter", "/etc/jupyter", "/usr/local/etc/jupyter", "/opt/conda/etc/jupyter"]
    places += [os.path.join(sys.prefix, "etc", "jupyter"), *glob.glob(root + "/home/*/.jupyter")]
    found = []
    for place in places:
        for name in _JUPYTER_FILES:
            for suffix in (".py", ".json"):
                path = (place if place.startswith(root) else root + place) + "/" + name + suffix
                if place and os.path.isfile(path) and path not in found:
                    found.append(path)
    return found


def jupyter_open(path: str) -> str:
    """Why a Jupyter with this file lets anybody in, or ""."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            text = stream.read(1 << 20)
    except OSError:
        return ""
    settings = _json_settings(text) if path.endswith(".json") else _python_settings(text)
    password, token = settings.get("password"), settings.get("token")
    if password and _is_known_hash(password):
        return "its password is one that everybody knows"
    if token is not None and token.lower() in KNOWN and not password:
        return "its token is empty and it has no password" if token == "" else "its token is one that everybody knows"
    return ""


def _python_settings(text):
    """Literal settings of a Python configuration; what is computed is not known here."""
    found = {}
    for key, pattern in (("token", "token"), ("password", "(?:hashed_)?password")):
        for value in re.findall(_SETTING.format(pattern), text, re.MULTILINE):
            literal = re.match(r"""[uUbBrR]?(['"])(.*)\1$""", value)
            found[key] = literal.group(2) if literal else "computed when Jupyter starts"
    return found


def _json_settings(text):
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    found = {}
    for section in document.values() if isinstance(document, dict) else ():
        for key, value in section.items() if isinstance(section, dict) else ():
            if key in ("token", "password", "hashed_password") and isinstance(value, str):
                found["token" if key == "token" else "password"] = value
    return found


def _is_known_hash(stored):
    """Jupyter's `algorithm:salt:hexdigest`; argon2 cannot be compared without its library."""
    parts = stored.split(":")
    if len(parts) != 3 or parts[0] not in ("sha1", "sha256", "sha512"):
        return False
    return any(hashlib.new(parts[0], (word + parts[1]).encode("utf-8")).hexdigest() == parts[2] for word in KNOWN)
