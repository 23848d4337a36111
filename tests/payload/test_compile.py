"""torch.compile and the ways of saving a model: another result, a missing compiler, other weights."""

from __future__ import annotations

from textwrap import indent

import pytest

from cuda_matrix.payload import checks_compile, checks_export, complaints

COMPILED = {"torch.import": "pass", "first-kernel": "pass", "compile.inductor": "pass"}
EXPORTED = {"torch.import": "pass", "first-kernel": "pass", "export.roundtrip": "pass"}
THRESHOLDS = {"frobenius": 1e-5}


@pytest.fixture
def broken(deployed, real_torch):
    """A function that runs one check after some lines have broken torch."""

    def run(item, lines="", env=None, **request):
        deployed.use(real_torch)
        if lines:
            deployed.mutate("def mutate(torch):\n" + indent(lines.strip() + "\n", "    "))
        settings = {"profile": "standard", "limit_s": 110.0, **request}
        return deployed.run(checks=(item,), benchmarks=(), env=env, **settings)

    return run


def test_compiled_code_equals_eager(broken):
    run = broken("compile.inductor")
    assert run.statuses() == COMPILED
    numbers = run.end("compile.inductor")["numbers"]
    assert numbers["generated_sources"] >= 1
    assert numbers["machine_code_files"] >= 1


OTHER_RESULT = """
def compile(function):
    import copy
    if isinstance(function, torch.nn.Module):
        return function
    return lambda *inputs: [result * 1.001 for result in function(*inputs)]
torch.compile = compile
"""
NOTHING_COMPILED = "torch.compile = lambda function: function"


@pytest.mark.parametrize(
    ("lines", "words"),
    [(OTHER_RESULT, "F = 0.001"), (NOTHING_COMPILED, "0 graphs, 0 generated sources, 0 compiled files")],
    ids=["other-result", "nothing-compiled"],
)
def test_a_compiler_that_does_not_compile_rightly(broken, lines, words):
    run = broken("compile.inductor", lines)
    assert run.statuses() == {**COMPILED, "compile.inductor": "fail"}
    assert words in run.end("compile.inductor")["evidence"]


def test_a_missing_compiler_is_named(broken):
    end = broken("compile.inductor", env={"CXX": "/nowhere/g++"}).end("compile.inductor")
    assert (end["status"], end["cause"]) == ("fail", "compiler-missing")
    assert "a C++ compiler (g++) is missing" in end["summary"]
    assert "/nowhere/g++" in end["evidence"]


def test_a_compiler_without_python_s_header_is_named_by_its_own_words(broken, deployed):
    deployed.executable("no-header", "#!/bin/sh\necho 'main.c:1:10: fatal error: Python.h: No such file' >&2\nexit 1\n")
    lines = f"""
def compile(function):
    import subprocess
    def run(*inputs):
        subprocess.check_call(["{deployed.bin}/no-header"])
    return run
torch.compile = compile
"""
    end = broken("compile.inductor", lines).end("compile.inductor")
    assert end["status"] == "fail"
    assert "Python.h" in end["summary"]
    assert "fatal error: Python.h" in end["evidence"]
    assert "cause" not in end


def test_a_switch_that_turns_it_off_is_said(broken):
    end = broken("compile.inductor", env={"TORCHDYNAMO_DISABLE": "1"}).end("compile.inductor")
    assert end["status"] == "skip"
    assert "TORCHDYNAMO_DISABLE=1" in end["summary"]


@pytest.mark.parametrize(
    ("error", "words", "status", "cause"),
    [
        (
            RuntimeError("Failed to find C compiler. Please specify via CC environment variable."),
            "",
            "fail",
            "compiler-missing",
        ),
        (RuntimeError("boom"), "/usr/bin/ld: cannot find -lcuda: No such file", "fail", "triton-libcuda-link"),
        (RuntimeError("boom"), "fatal error: Python.h: No such file or directory", "fail", None),
        (AssertionError("libcuda.so cannot found!"), "", "fail", "triton-libcuda-link"),
        (RuntimeError("PTXASError: Value 'sm_120' is not defined"), "", "fail", "triton-ptxas-too-old"),
        (RuntimeError("Dynamo is not supported on Python 3.12+"), "", "skip", None),
        (RuntimeError("Python 3.11+ not yet supported for torch.compile"), "", "skip", None),
        (
            RuntimeError("Found Tesla P100 which is too old to be supported by the triton GPU compiler"),
            "",
            "skip",
            None,
        ),
        (ValueError("something new"), "", "fail", None),
    ],
)
def test_what_an_exception_of_the_compiler_means(error, words, status, cause):
    outer = RuntimeError("backend='inductor' raised:")
    outer.__cause__ = error
    result = checks_compile.judge_error(outer, words, "cuda:0", THRESHOLDS)
    assert (result["status"], result.get("cause")) == (status, cause)
    assert (words or str(error)) in result["evidence"]


def outcome(device="cuda:0", **values):
    made = checks_compile.Outcome(device)
    for name, value in {
        "errors": {"mlp": 1e-7},
        "graphs": 2,
        "sources": 5,
        "machine_code": 3,
        "kernels": 4,
        **values,
    }.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("made", "status"),
    [
        (outcome(), "pass"),
        (outcome(kernels=None), "warn"),
        (outcome(kernels=0), "fail"),
        (outcome(machine_code=0), "fail"),
        (outcome(graphs=0), "fail"),
        (outcome(errors={"mlp": 1e-3}), "fail"),
        (outcome(errors={"mlp": float("inf")}), "fail"),
        (outcome("cpu", kernels=None), "pass"),
        (outcome("cpu", sources=0), "fail"),
    ],
)
def test_proof_that_compiled_code_ran(made, status):
    assert checks_compile.judge(made, THRESHOLDS)["status"] == status


def test_an_exception_is_told_with_all_that_stands_behind_it():
    outer = RuntimeError("outer")
    outer.__cause__ = ValueError("inner")
    assert complaints.exception_chain(outer) == ["ValueError: inner", "RuntimeError: outer"]


def test_what_is_loaded_is_what_was_saved(broken):
    run = broken("export.roundtrip")
    assert run.statuses() == EXPORTED
    numbers = run.end("export.roundtrip")["numbers"]
    assert numbers["state_dict"] == 0
    assert numbers["jit"] <= 1e-6


OTHER_WEIGHTS = """
true = torch.load
def load(*rest, **keys):
    state = true(*rest, **keys)
    state["5.weight"] = state["5.weight"] + 1e-3
    return state
torch.load = load
"""
NOT_LOADED = "torch.nn.Module.load_state_dict = lambda self, state, *rest, **keys: None"
OTHER_TRACE = """
true = torch.jit.load
torch.jit.load = lambda *rest, **keys: (lambda inputs, program=true(*rest, **keys): program(inputs) * 1.001)
"""
DEAF = "torch.nn.Linear.forward = lambda self, inputs: inputs[:, :5] * 0"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (OTHER_WEIGHTS, "state_dict: the tensor 5.weight is not the one that was saved"),
        (NOT_LOADED, "state_dict: the outputs differ"),
        (OTHER_TRACE, "jit: the outputs differ by F = 0.001"),
        (DEAF, "outputs do not depend on the weights"),
        ("torch.jit.trace = None", "jit: TypeError"),
    ],
    ids=["other-weights", "not-loaded", "other-trace", "deaf", "raises"],
)
def test_a_model_that_comes_back_as_another(broken, lines, words):
    run = broken("export.roundtrip", lines, profile="smoke")
    assert run.statuses() == {**EXPORTED, "export.roundtrip": "fail"}
    assert words in run.end("export.roundtrip")["evidence"]


def test_what_is_absent_is_said():
    findings = {"state_dict": checks_export.Finding(0.0), "onnx": checks_export.Finding(absent="no package onnx")}
    result = checks_export.judge(findings, "cpu", {"state_dict": 0, "frobenius": 1e-6})
    assert result["status"] == "pass"
    assert result["summary"].endswith("not tried: onnx (no package onnx)")
    assert result["numbers"]["onnx"] == "no package onnx"
