"""The payload's source: Python 3.7 grammar, standard library only, relative imports, small parts."""

from __future__ import annotations

import ast
import sys
from importlib.resources import files

import pytest

PAYLOAD = files("cuda_matrix").joinpath("payload")
SOURCES = {entry.name: entry.read_text("utf-8") for entry in PAYLOAD.iterdir() if entry.name.endswith(".py")}


@pytest.fixture(params=sorted(SOURCES))
def source(request):
    return request.param, SOURCES[request.param]


def test_parses_as_python_3_7(source):
    ast.parse(source[1], feature_version=(3, 7))


# They try other packages, each where it is, and only inside the function that tries it.
TRYING = ("checks_packages.py", "stack_trials.py")


def test_imports_only_the_standard_library_and_itself(source):
    name, text = source
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules = [node.module]
        else:
            continue
        for module in modules:
            top = module.partition(".")[0]
            allowed = (
                top in sys.stdlib_module_names
                or top == "torch"
                or (name in TRYING and node not in tree.body)
                or (name == "entry.py" and top == "cuda_matrix_payload")
            )
            assert allowed, f"{name} imports {module}"


def test_torch_is_never_imported_at_the_top(source):
    for node in ast.parse(source[1]).body:
        assert not (isinstance(node, ast.Import) and node.names[0].name == "torch")


def test_parts_are_small(source):
    name, text = source
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{name}: {node.name}"


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.7", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13"])
def test_every_python_runs_it_or_says_that_it_is_too_old(deployed, pyenv, version):
    interpreter = pyenv(version)
    command = [interpreter, "-B", "-u", str(deployed.root / "__main__.py")]
    deployed.torch("raise ImportError('libcudart.so.12: cannot open shared object file')")
    run = deployed.run(command=command, gpu_required=True)
    if version in {"2.7", "3.6"}:
        assert (run.code, run.events) == (97, [])
        return
    assert run.code == 0
    assert run.kinds()[-1] == "done"
    assert sorted(run.planned()) == sorted(run.ends())
    assert run.statuses()["torch.import"] == "fail"
    assert run.statuses()["resnet50.train"] == "skip"
    assert run.stderr == b""
