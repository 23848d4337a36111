from __future__ import annotations

import pytest

from cuda_matrix.machine_names import kernel_name, platform_name


@pytest.mark.parametrize(
    ("name", "kernel", "platform"),
    [
        ("x86_64", "x86_64", "amd64"),
        ("amd64", "x86_64", "amd64"),
        ("x64", "x86_64", "amd64"),
        ("aarch64", "aarch64", "arm64"),
        ("arm64", "aarch64", "arm64"),
        ("riscv64", "riscv64", "riscv64"),
    ],
)
def test_names(name: str, kernel: str, platform: str) -> None:
    assert (kernel_name(name), platform_name(name)) == (kernel, platform)
