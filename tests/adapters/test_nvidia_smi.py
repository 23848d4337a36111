"""A real process on PATH stands in for NVIDIA's tool."""

from __future__ import annotations

from pathlib import Path

import pytest

from cuda_matrix.adapters import nvidia_smi
from cuda_matrix.examination import SeenCard, named_cards
from host_machine import Machine


def cards(folder: Path, script: str, limit_s: float = 5.0) -> tuple[SeenCard, ...]:
    machine = Machine(folder)
    machine.program("nvidia-smi", script)
    return named_cards(nvidia_smi.ask(machine.programs(limit_s)))


def test_cards_in_their_order(tmp_path: Path) -> None:
    rows = "0, NVIDIA GeForce RTX 3090, 550.54.15, 8.6\n1, NVIDIA A800 80GB PCIe, 550.54.15, 8.0"
    assert cards(tmp_path, f'echo "{rows}"') == (
        SeenCard("NVIDIA GeForce RTX 3090", "550.54.15", "8.6"),
        SeenCard("NVIDIA A800 80GB PCIe", "550.54.15", "8.0"),
    )


def test_a_tool_that_does_not_know_the_capability(tmp_path: Path) -> None:
    script = """case "$*" in *compute_cap*) echo 'Field "compute_cap" is not a valid field to query.'; exit 2;; esac
echo "0, Tesla P100-PCIE-16GB, 470.129.06" """
    assert cards(tmp_path, script) == (SeenCard("Tesla P100-PCIE-16GB", "470.129.06", None),)


@pytest.mark.parametrize(
    "script",
    [
        "echo 'No devices were found'; exit 6",
        "echo 'No devices were found'",
        "echo 'a sentence, with commas, of four, parts'",
        "echo '0, NVIDIA A10, 550.54.15, 8.6'; exit 9",
        "exec false",
        "",
    ],
)
def test_a_tool_that_names_no_card(tmp_path: Path, script: str) -> None:
    assert cards(tmp_path, script) == ()


def test_no_tool(tmp_path: Path) -> None:
    assert named_cards(nvidia_smi.ask(Machine(tmp_path).programs(5.0))) == ()


def test_a_tool_that_hangs(tmp_path: Path) -> None:
    assert cards(tmp_path, "exec sleep 30", limit_s=0.2) == ()


def test_unknown_fields(tmp_path: Path) -> None:
    assert cards(tmp_path, 'echo "0, GPU, [N/A], [N/A]"') == (SeenCard("GPU", None, None),)
