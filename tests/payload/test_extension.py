"""Building an extension: torch's own builder with a compiler that is there, broken, absent, or of another CUDA."""

from __future__ import annotations

import pytest

from cuda_matrix.payload import checks_extension

CHECKS = ("extension.build", "first-kernel")
# Compiling against torch takes a minute: the builder is replaced where the compiler is not what is tested.
BUILDER = """
import torch.utils.cpp_extension
def mutate(torch):
    class Built:
        @staticmethod
        def doubled(numbers):
            return RESULT
    def load_inline(name, cpp_sources, cuda_sources, functions, build_directory, with_cuda, extra_cflags):
        assert with_cuda is (cuda_sources is not None)
        assert ("__global__" in (cuda_sources or "")) is with_cuda
        BUILD
        return Built
    torch.utils.cpp_extension.load_inline = load_inline
"""
TOOLS = ("c++", "ninja")


@pytest.fixture
def build(deployed, real_torch):
    """A function that runs the check with stand-in tools on PATH."""

    def run(result="2 * numbers", lines="pass", tools=TOOLS, pretend=False):
        for tool in tools:
            deployed.executable(tool, "#!/bin/sh\nexit 0\n")
        deployed.use(real_torch)
        deployed.mutate(BUILDER.replace("RESULT", result).replace("BUILD", lines))
        if pretend:
            deployed.pretend_cuda()
        path = {"PATH": str(deployed.bin), "CUDA_HOME": "/nonexistent"}
        run = deployed.run(checks=CHECKS, benchmarks=(), profile="standard", limit_s=110.0, env=path)
        assert run.end("first-kernel")["status"] == "pass"
        return run.end("extension.build")

    return run


def test_an_extension_that_computes_right_passes(build):
    end = build()
    assert (end["status"], end["numbers"]["kind"], end["numbers"]["wrong_elements"]) == ("pass", "C++", 0)


def test_with_nvcc_a_kernel_runs_on_the_card(build):
    end = build(tools=(*TOOLS, "nvcc"), pretend=True)
    assert (end["status"], end["numbers"]["kind"], end["device"]) == ("pass", "CUDA", "cuda:0")


def test_with_nvcc_and_no_card_it_is_said_that_nothing_ran(build):
    end = build(tools=(*TOOLS, "nvcc"))
    assert end["status"] == "pass"
    assert "not run, since that needs a GPU" in end["summary"]


MISMATCH = (
    "raise RuntimeError('The detected CUDA version (11.8) mismatches the version that was used to compile PyTorch')"
)


@pytest.mark.parametrize(
    ("changes", "cause", "evidence"),
    [
        ({"result": "2 * numbers + (numbers == 7)"}, "numerics-wrong", "1 of its results are wrong"),
        ({"lines": MISMATCH}, "nvcc-mismatch", "mismatches the version"),
        ({"lines": "raise ImportError('x.so: undefined symbol: _Z3foov')"}, None, "undefined symbol: _Z3foov"),
    ],
)
def test_what_does_not_work_together_fails(build, changes, cause, evidence):
    end = build(**changes)
    assert (end["status"], end.get("cause")) == ("fail", cause)
    assert evidence in end["evidence"]


@pytest.mark.parametrize(
    ("tools", "reason"), [((), "no C++ compiler"), (("c++",), "no ninja"), (("nvcc", "ninja"), "no C++ compiler")]
)
def test_an_image_that_was_not_made_for_building_is_skipped(build, tools, reason):
    end = build(tools=tools)
    assert end["status"] == "skip"
    assert reason in end["summary"]


def test_the_compilers_own_line_is_the_evidence(deployed, real_torch):
    """Torch's own builder, ninja, and a compiler that refuses."""
    broken = "#!/bin/sh\ncase $1 in --version|-v) echo 'g++ 12.2.0'; exit 0;; esac\n"
    broken += "echo 'main.cpp:1:10: fatal error: cuda_runtime_api.h: No such file or directory' >&2\nexit 1\n"
    deployed.executable("c++", broken)
    deployed.use(real_torch)
    run = deployed.run(checks=CHECKS, benchmarks=(), profile="standard", limit_s=110.0)
    end = run.end("extension.build")
    if end["status"] == "skip":
        pytest.skip(end["summary"])
    assert end["status"] == "fail"
    assert end["evidence"] == "main.cpp:1:10: fatal error: cuda_runtime_api.h: No such file or directory"
    assert run.end("first-kernel")["status"] == "pass"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Error building extension 'x': [1/2]\nFAILED: a.o\na.cpp:3:1: error: no\nmore", "a.cpp:3:1: error: no"),
        (
            "nvcc fatal   : Unsupported gpu architecture 'compute_89'",
            "nvcc fatal   : Unsupported gpu architecture 'compute_89'",
        ),
        ("/usr/bin/ld: cannot find -lcudart: No such file", "/usr/bin/ld: cannot find -lcudart: No such file"),
        ("all is well", ""),
    ],
)
def test_the_line_that_matters(text, line):
    assert checks_extension.compiler_line(text) == line
