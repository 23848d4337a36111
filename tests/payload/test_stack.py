"""The packages beside torch: real and stand-in packages that are broken in the ways images break them."""

from __future__ import annotations

import pytest

from cuda_matrix.payload import checks_stack

CHECKS = ("torch.import", "image.expect", "libs.stack")
TORCH = """
import types
__version__ = "2.2.0"
version = types.SimpleNamespace(cuda=None)
def device(name): return name
"""
GOOD_FRAME = """
class DataFrame:
    def __init__(self, columns): pass
    def groupby(self, key): return {"value": self}
    def sum(self): return self
    def to_dict(self): return {"a": 4, "b": 2}
"""


def package(deployed, name, source, version="1.0"):
    """Install a package as pip would."""
    (deployed.site / name).mkdir()
    (deployed.site / name / "__init__.py").write_text(source)
    info = deployed.site / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "RECORD").write_text(f"{name}/__init__.py,,\n")


@pytest.fixture
def stand_in(deployed):
    """A deployed payload with a stand-in torch, blind to what this machine's own Python has."""
    deployed.torch(TORCH)
    deployed.variables["PYTHONNOUSERSITE"] = "1"
    return deployed


def end_of(deployed, **request):
    run = deployed.run(checks=CHECKS, benchmarks=(), **request)
    statuses = run.statuses()
    assert statuses["torch.import"] == "pass"
    return statuses, run.end("libs.stack")


def test_a_package_that_works_is_used_once(stand_in):
    package(stand_in, "pandas", GOOD_FRAME)
    statuses, end = end_of(stand_in)
    assert statuses["libs.stack"] == "pass"
    assert end["numbers"]["pandas"] == "1.0"
    assert end["numbers"]["pandas_s"] >= 0
    assert "pandas 1.0" in end["summary"]


@pytest.mark.parametrize(
    ("source", "cause", "evidence"),
    [
        (GOOD_FRAME.replace("4", "5"), None, "pandas 1.0: RuntimeError: pandas groups to {'a': 5, 'b': 2}"),
        ("import os; os.kill(os.getpid(), 11)", None, "pandas 1.0: Segmentation fault (signal 11)"),
        (
            "raise ImportError('libfoo.so.1: cannot open shared object file')",
            None,
            "pandas 1.0: ImportError: libfoo.so.1",
        ),
        ("raise ImportError('numpy.core.multiarray failed to import: _ARRAY_API not found')", "numpy-abi", "pandas"),
        ("raise ImportError('x.so: undefined symbol: _ZN3c106detail9torchFail')", "torch-abi-mismatch", "pandas"),
    ],
)
def test_a_broken_package_is_charged_and_the_others_are_still_used(stand_in, source, cause, evidence):
    package(stand_in, "pandas", source)
    package(stand_in, "einops_like", "")
    statuses, end = end_of(stand_in, expect={"einops_like": "1.0"})
    assert statuses == {"torch.import": "pass", "image.expect": "pass", "libs.stack": "fail"}
    assert end.get("cause") == cause
    assert end["evidence"].startswith(evidence)
    assert "einops-like_s" in end["numbers"]


def test_what_is_absent_is_noted_and_what_is_expected_and_absent_fails(stand_in):
    _, end = end_of(stand_in)
    assert end["numbers"]["transformers"] == "absent"
    statuses, end = end_of(stand_in, expect={"transformers": "4.40"})
    assert (statuses["libs.stack"], end["cause"]) == ("fail", "expectation-mismatch")
    assert end["evidence"] == "transformers"
    statuses, end = end_of(stand_in, expect={"transformers": "none"})
    assert statuses["image.expect"] == "pass"
    assert "transformers" not in end.get("evidence", "")


def test_nothing_beside_torch_is_no_pass():
    assert checks_stack.judge([], {})["status"] == "skip"


def test_a_package_that_was_not_reached_is_a_remark():
    row = {"name": "a", "version": "1", "seconds": 0, "error": "", "said": "", "expected": False, "present": True}
    assert checks_stack.judge([{**row, "tried": False}], {})["status"] == "warn"


def test_real_packages_with_a_real_torch(deployed, real_torch):
    deployed.use(real_torch)
    statuses, end = end_of(deployed, limit_s=100.0)
    assert statuses["libs.stack"] == "pass"
    assert end["numbers"]["numpy"].startswith("1.")
    assert end["numbers"]["numpy_s"] < 30


@pytest.mark.parametrize(
    ("change", "evidence"),
    [
        ("def from_numpy(array): raise RuntimeError('Numpy is not available')", "Numpy is not available"),
        ("def from_numpy(array): return torch.tensor(array)", "does not share the array's memory"),
    ],
)
def test_a_torch_that_cannot_share_arrays(deployed, real_torch, change, evidence):
    deployed.use(real_torch)
    deployed.mutate(f"def mutate(torch):\n    {change}\n    torch.from_numpy = from_numpy\n")
    statuses, end = end_of(deployed, limit_s=100.0)
    assert statuses["libs.stack"] == "fail"
    assert evidence in end["evidence"]
    assert end.get("cause") == ("numpy-abi" if "Numpy is" in evidence else None)
