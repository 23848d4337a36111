"""Owns how versions are written: NVIDIA's numbers as text, the numbers in a text, this Python's own.

Must not know which version is right.
"""

from __future__ import annotations

import re
import sys


def python() -> str:
    """This Python's, for example 3.11.7."""
    return ".".join(str(part) for part in sys.version_info[:3])


def cuda(number):
    """12010 is 12.1; None for no number."""
    return f"{number // 1000}.{number % 1000 // 10}" if number else None


def library(number):
    """8902 is 8.9.2, and 90100 is 9.1.0: cuDNN up to 8, and since 9 (cudnn_version.h); NCCL up to 2.8, and since 2.9.

    None for no number.
    """
    if not number:
        return None
    thousands = 10000 if number >= 10000 else 1000
    return f"{number // thousands}.{number % thousands // 100}.{number % 100}"


def numbers(text) -> tuple:
    """The numbers in a version, for comparison: (2, 6, 0, 124) of `2.6.0+cu124`."""
    return tuple(int(part) for part in re.findall(r"\d+", str(text)))
