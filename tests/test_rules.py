"""The sentences that a prediction cites."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cuda_matrix.reference import load_reference

RULES = load_reference().rules


def test_the_rules_that_the_predictor_names_are_there() -> None:
    assert {
        *("backward", "minor-version", "minor-version-limits", "forward-compat", "forward-compat-order"),
        *(
            "forward-compat-arch",
            "require-who",
            "require-vars",
            "require-syntax",
            "require-cuda-value",
            "require-brand",
        ),
        *(
            "require-compat-only",
            "require-disable",
            "require-legacy",
            "require-message",
            "sass",
            "ptx",
            "arch-specific",
        ),
        *("no-ptx-in-pypi-wheels", "toolkit-dropped-card", "toolkit-before-card", "driver-dropped-card"),
        *("cpu-only-torch", "platform", "glibc", "memory", "unknown-image", "unknown-card", "unknown-driver"),
        *("torch-build-never-published", "no-gpu-runner"),
    } <= set(RULES)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_rule_can_be_read_by_a_person(rule: Any) -> None:
    assert rule.text.endswith(".")
    assert rule.text[0].isupper()
    assert "\n" not in rule.text
    assert len(rule.text) < 700
    assert not rule.title.endswith(".")
    assert rule.source == rule.sources[0]
    assert rule.decides is (rule.certainty != "uncertain")


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_rule_can_be_looked_up(rule: Any) -> None:
    """The world's facts have an address; what is this project's own decision says so."""
    ours = any(text.startswith("this project") for text in rule.sources)
    assert ours or any(re.search(r"https://\S+", text) for text in rule.sources)


def test_the_figures_in_the_text_are_those_of_the_tables() -> None:
    drivers, text = load_reference().drivers, RULES["minor-version"].text
    for floor in drivers.floors:
        assert f"{floor.cuda_major}: {floor.driver}" in text
    for row in load_reference().architectures.rows:
        if row.last_branch:
            assert re.search(rf"R{row.last_branch} for [^;.]*{row.name}", RULES["driver-dropped-card"].text), row.name
