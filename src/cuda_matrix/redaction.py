"""Owns what is taken out of a text before it is shown to strangers: secrets, names, addresses, identities of cards.

Must not know where the text comes from. It errs on the side of taking out too much; what the text says of versions,
cards and errors stays.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, NamedTuple

REMOVED = "[removed]"
_NAME_LIMIT = 3  # characters; a shorter user name would be found inside every second word
# Names that tell nobody anything, and would be found all over a report.
_COMMON = frozenset(
    "admin build cuda debian dev docker driver gpu host image linux localhost none nvidia pytorch "  # noqa: SIM905 - short
    "root runner server test torch ubuntu user".split()
)

_TOKEN = re.compile(
    r"gh[a-z]_[A-Za-z0-9]{10,}|github_pat_\w{10,}|glpat-[\w-]{10,}|nvapi-[\w-]{10,}|dckr_pat_[\w-]{10,}|hf_[A-Za-z0-9]{10,}"
    r"|xox[a-z]-[\w-]{10,}|(?:AKIA|ASIA)[A-Z0-9]{16}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
)
_IN_URL = re.compile(r"(?<=://)[^/\s'\"]{1,300}(?=@)")  # to the last @: a password may hold one
_SIGNED = re.compile(
    r"([?&](?:sig|[\w-]{0,40}signature)=)[^\s&'\"]{1,2000}", re.IGNORECASE
)  # who has the link may read
_HEADER = re.compile(r"\b(Bearer|Basic)\s+[\w.+/=~-]{6,}", re.IGNORECASE)
# `NAME=value`, `"name": "value"` and `--name value` where the name speaks of a secret
_NAMED = re.compile(
    r"((?:password|passwd|passphrase|_pass\b|secret|token|api[_-]?key|access[_-]?key|credential|\bauth\b)[\w-]{0,40}"
    r"[\"']?\s{0,3}[=:]\s{0,3}|--(?:password|token|secret)[ =])"
    r"(\"[^\"\n]{0,2000}\"|'[^'\n]{0,2000}'|[^\s,;&\"']{1,2000})",
    re.IGNORECASE,
)
# The body may hold single hyphens (`DEK-Info`), never two: so no text is gone through twice.
_KEY = re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:[^-]|-(?!-)){0,20000}(?:-----END [A-Z ]{0,40}KEY-----)?")
_UUID = re.compile(r"\b(?:GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE)
_SERIAL = re.compile(r"(serial(?:[ _-]?(?:number|no))?\.?\s{0,20}[:=]\s{0,3})([A-Za-z0-9-]{5,40})", re.IGNORECASE)
_HOME = re.compile(r"(?<![\w.])/(?:home|Users)/[^/\s:'\"]{1,100}|(?<![\w./])/root(?=[/\s:'\"]|$)")
_MAC = re.compile(r"(?<![\w:-])[0-9a-f]{2}(?:[:-][0-9a-f]{2}){5}(?![\w:-])", re.IGNORECASE)
_IPV4 = re.compile(
    r"(?<![\w.])(?!127\.0\.0\.1|0\.0\.0\.0)(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\w.])"
)
_IPV6 = re.compile(
    r"(?<![\w:.])(?:(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}|(?:[0-9a-f]{1,4}:){1,6}(?::[0-9a-f]{1,4}){1,6})(?![\w:])",
    re.IGNORECASE,
)
_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,5}")


class Identity(NamedTuple):
    """Who and where this is: what must not be read in a report. Empty: not known."""

    user: str = ""
    home: str = ""
    host: str = ""


def redact(text: str, identity: Identity = Identity()) -> str:  # noqa: B008 - a value, never changed
    """The text without what strangers should not read. Linear in the text's length for any input."""
    text = _TOKEN.sub(REMOVED, _KEY.sub(REMOVED, text))
    text = _SIGNED.sub(rf"\1{REMOVED}", _IN_URL.sub(REMOVED, text))
    text = _NAMED.sub(rf"\1{REMOVED}", _HEADER.sub(rf"\1 {REMOVED}", text))
    text = _UUID.sub(lambda match: f"{match[0][:3]}-#{hashed(match[0])}", text)
    text = _SERIAL.sub(lambda match: f"{match[1]}#{hashed(match[2])}", text)
    if len(identity.home) > 1:
        text = re.sub(rf"{re.escape(identity.home.rstrip('/'))}(?![\w.-])", "~", text)
    text = _MAIL.sub("[mail]", _HOME.sub("~", text))
    text = _IPV6.sub("[address]", _IPV4.sub("[address]", _MAC.sub("[address]", text)))
    for name, word in (
        (identity.host, "[host]"),
        (identity.host.split(".", maxsplit=1)[0], "[host]"),
        (identity.user, "[user]"),
    ):
        if len(name) >= _NAME_LIMIT and name.lower() not in _COMMON:
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", word, text, flags=re.IGNORECASE)
    return text


def redact_all(value: Any, identity: Identity) -> Any:
    """The same for every text inside lists and objects, keys included."""
    if isinstance(value, str):
        return redact(value, identity)
    if isinstance(value, dict):
        return {redact(str(key), identity): redact_all(each, identity) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [redact_all(each, identity) for each in value]
    return value


def hashed(identity: str) -> str:
    """As the payload writes a card's UUID into its facts, so that reports and results can be compared."""
    return hashlib.sha256(identity.encode()).hexdigest()[:16]
