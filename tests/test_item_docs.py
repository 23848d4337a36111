"""docs/checks.md and docs/benchmarks.md say what the payload's table says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from cuda_matrix.reference import load_items

ROOT = Path(__file__).resolve().parent.parent
TOOL = runpy.run_path(str(ROOT / "tools" / "item_docs.py"))


@pytest.mark.parametrize("name", TOOL["PAGES"])
def test_the_page_is_generated_from_the_table(name: str) -> None:
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert written == TOOL["page"](load_items(), TOOL["PAGES"][name]), "run: make docs"


def test_every_item_says_how_it_is_verified_and_what_a_fail_means() -> None:
    for item in load_items().items:
        assert len(item.method) > 20, item.id
        assert len(item.fail_means) > 20, item.id
        places = [part for part in re.findall(r"[\w./-]+\.md", item.source) if (ROOT / part).exists()]
        known = re.search(r"https?://|arXiv:|et al\.|NVIDIA|mamf-finder|PyTorch|STREAM", item.source) or places
        assert known, f"{item.id}: nobody can open {item.source!r}"
        assert "gpu.md" not in item.source
