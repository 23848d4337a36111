"""Modules that are compiled while torch is imported: used where all went well, and missed by nobody where not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from builders import item_row
from cuda_matrix.payload import compiled

CHECKS = """
from .context import passed

def seen(context):
    return passed("seen", numbers={"loader": type(__spec__.loader).__name__})

def raises(context):
    raise RuntimeError("on purpose")  # this line
"""
TORCH = """
import os, sys, time, types
__version__ = "2.2.0+stub"
version = types.SimpleNamespace(cuda="12.1")
DO
"""
# The supervisor compiles while its worker is silent.
UNTIL_ALL_IS_COMPILED = "time.sleep(5)"
TWO_CPUS = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one CPU: nothing can be done beside")


def run(deployed, what: str, **request):
    deployed.torch(TORCH.replace("DO", what))
    rows = [item_row("torch.import", "checks_torch:imported", 10)]
    rows += [item_row(name, f"checks_stub:{name}", needs=["torch.import"]) for name in ("seen", "raises")]
    deployed.items(*rows, checks=CHECKS)
    result = deployed.run(**request)
    assert result.kinds()[-1] == "done"
    assert result.statuses() == {"torch.import": "pass", "seen": "pass", "raises": "fail"}
    assert 'raise RuntimeError("on purpose")  # this line' in result.end("raises")["log"]
    return result.end("seen")["numbers"]["loader"]


@TWO_CPUS
def test_what_was_compiled_beside_the_import_is_what_runs(deployed):
    assert run(deployed, UNTIL_ALL_IS_COMPILED) == "_Loader"


@pytest.mark.parametrize(
    "what",
    [
        "",
        "sys.meta_path = tuple(sys.meta_path)",
        "\ntry:\n    while True: os.wait()\nexcept ChildProcessError: pass",
        "\ntry: os.waitpid(-1, os.WNOHANG)\nexcept ChildProcessError: pass\nelse: raise RuntimeError('whose child?')",
    ],
    ids=["no time to compile", "no list of finders", "waits for all its children", "has no child"],
)
def test_whatever_the_image_does_nothing_is_missed(deployed, what):
    run(deployed, what)


def test_on_one_cpu_python_compiles_as_ever(deployed):
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [min(every)])
    try:
        assert run(deployed, UNTIL_ALL_IS_COMPILED) == "SourceFileLoader"
    finally:
        os.sched_setaffinity(0, every)


@pytest.mark.parametrize(
    "customisation",
    [
        "import os\ndef refused(_): raise PermissionError('seccomp')\nos.sched_getaffinity = refused\n",
        "import os\ndel os.sched_getaffinity\n",
        "import sys\nsys.modules['zlib'] = None\n",
        "import sys\nsys.modules['mmap'] = None\n",
    ],
    ids=["may not ask for its CPUs", "cannot ask for them", "no zlib", "no mmap"],
)
def test_an_image_that_lacks_what_this_needs_loses_nothing(deployed, customisation):
    (deployed.site / "sitecustomize.py").write_text(customisation)
    run(deployed, "")


@TWO_CPUS
def test_one_module_that_does_not_compile_is_missing_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    (tmp_path / "broken.py").write_text("def (:")
    ahead = compiled.Ahead()
    sound = str(Path(compiled.__file__).with_name("timing.py"))
    ahead._waiting = [
        ("cuda_matrix_payload.broken", str(tmp_path / "broken.py")),
        ("cuda_matrix_payload.timing", sound),
    ]
    assert [ahead.compile_next(), ahead.compile_next()] == [True, False]
    ahead.take()
    assert sys.meta_path[0].find_spec("cuda_matrix_payload.timing").origin == sound
    assert sys.meta_path[0].find_spec("cuda_matrix_payload.broken") is None


@TWO_CPUS
@pytest.mark.parametrize(("damaged", "found"), [(False, 1), (True, 0)])
def test_a_part_of_the_code_is_never_read(monkeypatch, damaged, found):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = len(sys.meta_path)
    ahead = compiled.Ahead()
    ahead._waiting = [("cuda_matrix_payload.timing", str(Path(compiled.__file__).with_name("timing.py")))]
    assert not ahead.compile_next()
    if damaged:
        ahead._memory[1000] ^= 255
    ahead.take()
    assert len(sys.meta_path) - before == found


@TWO_CPUS
def test_what_was_not_handed_over_is_not_taken(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = len(sys.meta_path)
    compiled.Ahead().take()
    assert len(sys.meta_path) == before
