"""Owns `python -m cuda_matrix` and the `cuda-matrix` script; must not know any verb."""

from __future__ import annotations

import sys

from cuda_matrix.cli import run


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
