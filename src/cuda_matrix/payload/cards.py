"""Owns which row of the cards table (cards.json beside the request) a device is.

Must not know what a row is used for.
"""

from __future__ import annotations

import json
import re


def load(path: str) -> list:
    """The rows: id, match, exclude, cc, sm, memory, bandwidth, clocks and peaks of each card."""
    with open(path, "rb") as stream:
        return json.loads(stream.read().decode("utf-8"))


def find(rows, name: str, capability: str):
    """The one row that matches the device's name and compute capability; None where none or several do.

    A wrong row would make a wrong share of the peak: in doubt there is none.
    """
    found = [
        row
        for row in rows
        if row["cc"] == capability
        and re.search(row["match"], name, re.IGNORECASE)
        and not (row.get("exclude") and re.search(row["exclude"], name, re.IGNORECASE))
    ]
    return found[0] if len(found) == 1 else None
