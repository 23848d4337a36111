"""Image facts x card x driver → a prediction: NVIDIA's and PyTorch's tables at their boundaries, and each rule."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuda_matrix.drivers import Toolkit
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.facts import version_key
from cuda_matrix.findings import CONFIDENCE
from cuda_matrix.host_facts import HostFacts
from cuda_matrix.image_facts import ImageFacts
from cuda_matrix.image_tags import facts_of_ref
from cuda_matrix.predict import host_facts, predict
from cuda_matrix.prediction import Prediction
from cuda_matrix.reference import load_reference
from cuda_matrix.releases import TorchBuild

REFERENCE = load_reference()
DRIVERS = REFERENCE.drivers
ANY_TIME = "7.5"  # Turing: the capability that every toolkit from 10.0 to 13.4 and every listed driver knows
LAST_DRIVERS = {"470": "470.256.02", "580": "580.95.05"}  # of the branches that were the last for some card
NEWEST = "615.71.09"
BUILDS = [
    build
    for release in REFERENCE.releases.releases
    for variant in release.variants
    if (build := REFERENCE.releases.build(release.torch, variant.cuda))
]
GIB = 1 << 30


@cache
def machine(gpu: str | None, driver: str | None, access: str = "hook", machine: str = "x86_64") -> HostFacts:
    return host_facts(gpu, driver, REFERENCE, machine=machine, access=access)  # type: ignore[arg-type]


def said(image: ImageFacts, gpu: str | None, driver: str | None, **keys: str) -> Prediction:
    return predict(image, machine(gpu, driver, **keys), REFERENCE)


def below(driver: str) -> str:
    """The driver one step older: 525.60.13 → 525.60.12."""
    parts = [int(part) for part in driver.split(".")]
    place = max(index for index, part in enumerate(parts) if part)
    parts[place] -= 1
    return ".".join(str(part) for part in [*parts[: place + 1], *[999] * (len(parts) - place - 1)])


def patch_levels(row: Toolkit) -> list[str]:
    return re.findall(r"\d+\.\d+\.\d+", row.release) or [row.cuda]


# ---- bar 1: the tables at their boundaries


@pytest.mark.parametrize("row", DRIVERS.toolkits, ids=lambda row: row.release.replace(" ", "-"))
def test_every_toolkits_packaged_driver_is_a_boundary(row: Toolkit) -> None:
    for cuda in patch_levels(row):
        image = ImageFacts(cuda=cuda)
        at, under = said(image, ANY_TIME, row.driver), said(image, ANY_TIME, below(row.driver))
        assert (at.verdict, at.cause) == ("pass", None)
        assert at.rule == "backward" or len({each.driver for each in DRIVERS.toolkits if each.cuda == row.cuda}) > 1
        if under.verdict == "fail":
            assert under.cause == "driver-too-old"
            assert under.needs_driver is not None
        else:
            assert (under.verdict, under.rule) == ("pass", "minor-version")


@pytest.mark.parametrize("cuda", sorted({row.cuda for row in DRIVERS.toolkits}, key=version_key))
def test_a_toolkit_without_its_patch_level(cuda: str) -> None:
    drivers = sorted((row.driver for row in DRIVERS.toolkits if row.cuda == cuda), key=version_key)
    image = ImageFacts(cuda=cuda)
    assert said(image, ANY_TIME, drivers[-1]).rule == "backward"
    assert said(image, ANY_TIME, drivers[0]).verdict == "pass"
    under = said(image, ANY_TIME, below(drivers[0]))
    assert (under.verdict, under.rule) in {("pass", "minor-version"), ("fail", "minor-version"), ("fail", "backward")}


@pytest.mark.parametrize("row", DRIVERS.floors, ids=lambda row: row.cuda_major)
def test_the_floor_of_every_major_is_a_boundary(row) -> None:
    for minor in range(9):
        image = ImageFacts(cuda=f"{row.cuda_major}.{minor}")
        assert said(image, ANY_TIME, row.driver).verdict == "pass"
        under = said(image, ANY_TIME, below(row.driver))
        if minor:  # CUDA 11.0 came with drivers older than the floor of its major
            assert (under.verdict, under.cause, under.needs_driver) == ("fail", "driver-too-old", row.driver)


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: f"{build.torch}-{build.variant}")
def test_every_published_torch_at_its_boundary(build: TorchBuild) -> None:
    image = ImageFacts(torch=build.torch, cuda=build.cuda)
    rows = [row.driver for row in DRIVERS.toolkits if row.cuda == build.cuda]
    floor = DRIVERS.floor_of(build.cuda)
    oldest = min([*rows, *([floor] if floor else [])], key=version_key)
    for driver in (oldest, *rows, NEWEST):
        here = said(image, ANY_TIME, driver)
        if build.capabilities:
            assert (here.verdict, here.rule) in {("pass", "backward"), ("pass", "minor-version")}, driver
        else:
            assert here.verdict == "unknown"  # nobody lists its machine code
    under = said(image, ANY_TIME, below(oldest))
    assert (under.verdict, under.cause, under.needs_driver) == ("fail", "driver-too-old", oldest)


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: f"{build.torch}-{build.variant}")
def test_every_published_torch_on_every_card(build: TorchBuild) -> None:
    for card in REFERENCE.cards:
        architecture = REFERENCE.architectures.architecture(card.cc)
        driver = LAST_DRIVERS.get((architecture and architecture.last_branch) or "", NEWEST)
        here = said(ImageFacts(torch=build.torch, cuda=build.cuda), card.id, driver)
        major, minor = card.cc.split(".")
        covered = any(each.split(".")[0] == major and each.split(".")[1] <= minor for each in build.capabilities)
        if covered:
            assert here.verdict == "pass"
        elif driver == LAST_DRIVERS["470"] and build.cuda.split(".")[0] > "11":
            assert (here.verdict, here.cause) == ("fail", "driver-too-old")  # nor does it start CUDA 12
        elif build.certainty == "uncertain":
            assert here.verdict == "unknown" or here.rule == "toolkit-dropped-card"
        else:
            assert (here.verdict, here.cause) == ("fail", "arch-no-kernel")


@pytest.mark.parametrize(
    ("gpu", "driver", "torch", "cuda", "verdict", "cause"),
    [
        # the table of the articles
        ("RTX 4090", "535.129.03", "2.2.0", "12.1", "pass", None),
        ("RTX 4090", "535.129.03", "2.2.0", "11.8", "pass", None),
        ("A800", "470.129.06", "2.2.0", "11.8", "pass", None),
        ("A800", "470.129.06", "2.2.0", "12.1", "fail", "driver-too-old"),
        ("RTX 3090", "535.129.03", "2.2.0", "11.8", "pass", None),
        ("RTX 3090", "525.147.05", "2.2.0", "12.1", "pass", None),  # the articles say 525.147.05 cannot
        ("RTX 5090", "570.124.06", "2.5.1", "12.4", "fail", "arch-no-kernel"),
        ("RTX 5090", "570.124.06", "2.7.1", "12.8", "pass", None),
        ("V100", "580.95.05", "2.9.1", "13.0", "fail", "arch-no-kernel"),
        ("RTX 3090", "440.33.01", "1.12.1", "10.2", "fail", "arch-no-kernel"),  # pytorch#31285
    ],
)
def test_cells_that_people_know(gpu: str, driver: str, torch: str, cuda: str, verdict: str, cause: str | None) -> None:
    here = said(ImageFacts(torch=torch, cuda=cuda), gpu, driver)
    assert (here.verdict, here.cause) == (verdict, cause)


def test_the_explanation_has_this_cells_figures() -> None:
    here = said(ImageFacts(torch="2.2.0", cuda="12.1"), "RTX 3090", "470.129.06")
    assert here.explanation == ("CUDA 12.1 needs a driver of CUDA 12 (525.60.13 or newer); 470.129.06 is CUDA 11.4.")
    assert (here.rule, here.needs_driver, here.confidence) == ("minor-version", "525.60.13", 0.95)
    assert here.source == "https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html"


def test_a_compat_package_that_may_be_there_makes_an_old_driver_no_sure_fail() -> None:
    """On a card that could use one; a registry, or the tag of a known repository, tells whether there is one."""
    image = ImageFacts(torch="2.2.0", cuda="12.1")
    for gpu in ("A800", "RTX A6000", "8.0"):
        here = said(image, gpu, "470.129.06")
        assert (here.verdict, here.cause) == ("fail", "driver-too-old")
        assert here.confidence == CONFIDENCE["secondary"]
    seen = image.model_copy(update={"origins": {"digest": "registry"}})
    assert said(seen, "A800", "470.129.06").confidence == CONFIDENCE["documented"]
    tag = facts_of_ref("pytorch/pytorch:2.2.0-cuda12.1-cudnn8-runtime", REFERENCE.schemes)
    assert said(tag, "A800", "470.129.06").confidence == CONFIDENCE["documented"]


@pytest.mark.parametrize(
    ("ref", "sure"),
    [
        ("pytorch/pytorch:2.5.1-cuda12.4-cudnn9-runtime", True),
        ("lab/train:2.5.1-cuda12.4-cudnn9-runtime", False),
        ("pytorch-cuda:2.5.1-cuda12.4-cudnn9-runtime", False),
        ("nvcr.io/nvidia/pytorch:25.10-py3", True),
        ("nvcr.io/nvidia/pytorch:25.09-py3", False),  # from memory, says the table
    ],
)
def test_what_a_strangers_tag_says_is_never_sure(ref: str, sure: bool) -> None:
    image = facts_of_ref(ref, REFERENCE.schemes)
    fails = said(image, "RTX 3090", "470.129.06")
    assert fails.verdict == "fail"
    assert (fails.confidence >= 0.9) is sure
    assert sure or said(image, "RTX 3090", "580.95.05").confidence < 0.9


def test_the_requirement_that_a_tag_does_not_tell_is_not_known() -> None:
    """NVIDIA's base images refuse driver 550 for CUDA 12.8 on a GeForce card, and name other drivers for others."""
    for ref in ("nvidia/cuda:12.8.1-devel-ubuntu22.04", "pytorch/pytorch:2.7.0-cuda12.8-cudnn9-devel"):
        image = facts_of_ref(ref, REFERENCE.schemes)
        here = said(image, "RTX 4090", "550.54.15")
        assert (here.verdict, here.rule, here.needs_driver) == ("unknown", "require-cuda-value", "570.26")
        assert said(image, "RTX 4090", "570.124.06").verdict == "pass"
        assert said(image, "RTX 4090", "550.54.15", access="cdi").verdict == "warn"
    without = facts_of_ref("pytorch/pytorch:2.7.0-cuda12.8-cudnn9-runtime", REFERENCE.schemes)
    assert said(without, "RTX 4090", "550.54.15").verdict == "pass"
    constant = facts_of_ref("nvcr.io/nvidia/pytorch:24.05-py3", REFERENCE.schemes)
    assert said(constant, "A100 80GB PCIe", "535.129.03").verdict == "pass"


def test_a_refusal_alone_is_not_sure_for_docker_may_use_cdi() -> None:
    image = ImageFacts(torch="2.7.1", cuda="12.8", require={"NVIDIA_REQUIRE_CUDA": "cuda>=12.8"})
    assert said(image, "RTX 4090", "550.54.15").confidence == CONFIDENCE["secondary"]
    both = said(image, "RTX 4090", "470.129.06")  # CUDA itself refuses this one, whoever starts it
    assert (both.cause, both.confidence) == ("image-require-unsatisfied", CONFIDENCE["documented"])


def test_a_machine_that_nobody_named_fails_no_image_for_sure() -> None:
    image = ImageFacts(torch="2.9.0", cuda="12.8", platforms=("linux/arm64",))
    for machine, confidence in ((None, CONFIDENCE["secondary"]), ("x86_64", CONFIDENCE["documented"])):
        host = host_facts("H100", "570.124.06", REFERENCE, machine=machine)
        here = predict(image, host, REFERENCE)
        assert (here.cause, here.confidence) == ("platform-mismatch", confidence)


def test_a_torch_that_only_the_configuration_names_may_be_of_another_build() -> None:
    """conda-forge builds the same releases with PTX, and for older C libraries."""
    image = ImageFacts(torch="2.6.0", cuda="12.6", glibc="2.27")
    named = image.model_copy(update={"origins": {"torch": "configuration", "cuda": "configuration"}})
    for gpu, cause in (("RTX 5090", "arch-no-kernel"), ("RTX 3090", "glibc-too-old")):
        here, there = said(named, gpu, "570.124.06"), said(image, gpu, "570.124.06")
        assert (here.cause, there.cause) == (cause, cause)
        assert here.confidence == CONFIDENCE["secondary"] < there.confidence


@pytest.mark.parametrize("driver", ["525.53", "525.60.11"])
def test_a_release_below_the_floor_of_its_own_cuda_is_no_sure_fail(driver: str) -> None:
    """NVIDIA's own libcudart asks for the driver's CUDA version, and never for its release."""
    here = said(ImageFacts(torch="2.1.0", cuda="12.1"), "RTX 4090", driver)
    assert (here.verdict, here.cause, here.needs_driver) == ("fail", "driver-too-old", "525.60.13")
    assert here.confidence < 0.9
    assert "may start it all the same" in here.remarks[0]
    assert said(ImageFacts(torch="2.1.0", cuda="12.1"), "RTX 4090", "520.61.05").confidence == 0.95


def test_jetson_and_code_for_its_desktop_sibling_is_no_sure_fail() -> None:
    """jax#40492 measured that Orin refuses sm_80; holohub#1687 and bitsandbytes#1939 that it runs."""
    image = ImageFacts(cuda="13.0", arch_list=("sm_80", "sm_90"))
    here = said(image, "8.7", "580.95.05")
    assert (here.verdict, here.cause) == ("fail", "arch-no-kernel")
    assert here.confidence < 0.9
    assert said(ImageFacts(cuda="13.0", arch_list=("sm_90",)), "8.7", "580.95.05").confidence == 0.98


@pytest.mark.parametrize(
    "ref",
    [
        "nvcr.io/nvidia/pytorch:25.08-py3",
        "nvidia/cuda:13.0.2-base-ubuntu24.04",
        "pytorch/pytorch:2.9.1-cuda13.0-cudnn9-devel",
    ],
)
def test_an_image_that_is_known_to_bring_the_compatibility_package(ref: str) -> None:
    """NGC's release notes: a data-centre card may run it with R535 and R550. Nothing but the tag is known here."""
    image = facts_of_ref(ref, REFERENCE.schemes)
    asks_for_nothing = ref.startswith("nvcr.io/nvidia/pytorch")  # NGC's constant requirement admits every driver
    assert said(image, "A100 80GB PCIe", "550.54.15").verdict == ("warn" if asks_for_nothing else "unknown")
    assert said(image, "RTX 4090", "550.54.15").fails


def test_a_card_without_a_word_on_its_cpu() -> None:
    image = ImageFacts(torch="none", cuda="12.5", platforms=("linux/arm64",))
    for gpu in ("8.7", "GH200", "12.1"):
        assert predict(image, host_facts(gpu, "580.95.05", REFERENCE), REFERENCE).cause != "platform-mismatch"
    assert predict(image, host_facts("H100", "580.95.05", REFERENCE), REFERENCE).cause == "platform-mismatch"


@pytest.mark.parametrize(
    ("gpu", "driver", "cuda", "needs"),
    [
        ("A100 80GB PCIe", "470.129.06", "12.8", "570.26"),  # 525.60.13 would start CUDA 12.8; the image refuses it
        ("3.7", "470.129.06", "12.8", None),  # what the image asks for no longer knows a Kepler
        ("RTX 4090", "470.129.06", "11.8", "520.61.05"),
    ],
)
def test_the_driver_that_is_needed_suffices(gpu: str, driver: str, cuda: str, needs: str | None) -> None:
    asks = {
        "NVIDIA_REQUIRE_CUDA": f"cuda>={cuda} brand=tesla,driver>=470,driver<471 brand=nvidia,driver>=470,driver<471"
    }
    image = ImageFacts(torch="none", cuda=cuda, compat=cuda, require=asks)
    assert said(image, gpu, driver).needs_driver == needs
    if needs:
        assert not said(image, gpu, needs).fails


def test_minor_version_compatibility_says_its_limits() -> None:
    here = said(ImageFacts(torch="2.7.1", cuda="12.8"), "RTX 4090", "535.129.03")
    assert (here.verdict, here.rule) == ("pass", "minor-version")
    limits = " ".join(here.remarks)
    assert "570.124.06" in limits
    assert "error 222" in limits
    assert "Triton" in limits


# ---- the properties

_GPUS = st.sampled_from([*(card.id for card in REFERENCE.cards), "A100", "8.7", "6.1", "3.7", "12.1", "10.7"])
_TABLE_DRIVERS = sorted(
    {
        *(row.driver for row in DRIVERS.toolkits),
        *(below(row.driver) for row in DRIVERS.toolkits),
        *(f"{row.branch}.1" for row in DRIVERS.branches),
        *("384.81", "451.0", "472.12", "551.86", "566.03", "601.2", "999.1"),  # branches that no table has
    },
    key=version_key,
)
_ENTRIES = st.sampled_from(
    [
        f"{kind}{cc}{end}"
        for kind in ("sm_", "compute_")
        for cc in (50, 70, 75, 80, 86, 90, 100, 120)
        for end in ("", "a", "f")
    ]
)
_REQUIRES = st.sampled_from(
    [
        {},
        {"NVIDIA_REQUIRE_CUDA": "cuda>=9.0"},
        {"NVIDIA_REQUIRE_CUDA": "cuda>=12.1"},
        {"NVIDIA_REQUIRE_CUDA": "cuda>=12.8 brand=tesla,driver>=550,driver<551 brand=nvidia,driver>=550,driver<551"},
        {"NVIDIA_REQUIRE_CUDA": "cuda>=13.0 brand=geforce,driver>=535"},
        {"NVIDIA_REQUIRE_CUDA": "driver<560"},
        {"NVIDIA_REQUIRE_CUDA": "cuda!=12.4", "NVIDIA_REQUIRE_ARCH": "arch>=8.0"},
        {"NVIDIA_REQUIRE_CUDA": "cuda=12.4 foo=bar driver>=535"},
        {"CUDA_VERSION": "12.4.1"},
    ]
)
_CUDAS = st.sampled_from(
    [None, "none", "9.2", "13.5", "14.0", *(row.cuda for row in DRIVERS.toolkits), "12.2.1", "11.0.3"]
)
_TORCHES = st.sampled_from([None, "none", "2.2.0", "2.9.1", "2.6.0a0+df5bbc09d1", "2.15.0", "1.13.1", "9.0"])
IMAGES = st.builds(
    ImageFacts,
    torch=_TORCHES,
    cuda=_CUDAS,
    require=_REQUIRES,
    compat=st.sampled_from([None, "12.4", "13.2"]),
    arch_list=st.lists(_ENTRIES, max_size=3).map(tuple),
    disable_require=st.booleans(),
    gpu_memory_bytes=st.sampled_from([None, 8 * GIB, 30 * GIB]),
    os=st.sampled_from([None, "ubuntu18.04", "ubuntu22.04"]),
)
_ACCESS = st.sampled_from(["hook", "cdi"])
_WORTH = {"fail": 0, "host-failed": 0, "unknown": 1, "warn": 2, "pass": 3}


@given(IMAGES, _GPUS, _ACCESS, st.lists(st.sampled_from(_TABLE_DRIVERS), min_size=2, max_size=6, unique=True))
def test_raising_the_driver_never_turns_a_pass_into_a_fail(
    image: ImageFacts, gpu: str, access: str, drivers: list[str]
) -> None:
    answers = [said(image, gpu, driver, access=access) for driver in sorted(drivers, key=version_key)]
    for older, newer in pairwise(answers):
        if older.verdict == "pass":
            assert newer.verdict != "fail", (older, newer)
            assert newer.verdict != "host-failed" or newer.rule == "driver-dropped-card"


@pytest.mark.parametrize("gpu", ["RTX 3090", "T4", "V100 SXM2"])
@pytest.mark.parametrize("build", BUILDS, ids=lambda build: f"{build.torch}-{build.variant}")
def test_raising_the_driver_through_the_whole_table(build: TorchBuild, gpu: str) -> None:
    image = ImageFacts(torch=build.torch, cuda=build.cuda)
    verdicts = [said(image, gpu, driver) for driver in _TABLE_DRIVERS[::2]]
    first = next((index for index, here in enumerate(verdicts) if here.verdict == "pass"), len(verdicts))
    later = [here for here in verdicts[first:] if here.rule != "driver-dropped-card"]
    assert {here.verdict for here in later} <= {"pass"}


@given(IMAGES.filter(lambda image: image.arch_list), _ENTRIES, _GPUS, st.sampled_from(_TABLE_DRIVERS))
def test_more_machine_code_never_makes_it_worse(image: ImageFacts, entry: str, gpu: str, driver: str) -> None:
    more = image.model_copy(update={"arch_list": (*image.arch_list, entry)})
    assert _WORTH[said(more, gpu, driver).verdict] >= _WORTH[said(image, gpu, driver).verdict]


@given(IMAGES, _GPUS, _ACCESS, st.sampled_from(["x86_64", "aarch64"]), st.sampled_from([None, *_TABLE_DRIVERS]))
def test_whatever_is_known_there_is_an_answer_with_a_rule_of_the_table(
    image: ImageFacts, gpu: str, access: str, machine: str, driver: str | None
) -> None:
    here = said(image, gpu, driver, access=access, machine=machine)
    assert here.rule in REFERENCE.rules
    assert here.cause is None or here.cause in REFERENCE.catalogue.causes
    assert (here.cause is None) == (here.verdict != "fail")
    assert here.explanation.endswith(".")
    if here.verdict == "unknown":
        assert here.confidence == 0


@given(IMAGES, _GPUS, st.sampled_from(_TABLE_DRIVERS))
def test_the_driver_that_is_asked_for_is_enough(image: ImageFacts, gpu: str, driver: str) -> None:
    here = said(image, gpu, driver)
    if here.verdict == "fail" and here.needs_driver:
        assert version_key(here.needs_driver) > version_key(driver)
        assert said(image, gpu, here.needs_driver).cause != here.cause


# ---- single rules


def test_an_admission_by_a_clause_is_a_condition() -> None:
    clauses = "brand=tesla,driver>=550,driver<551 brand=nvidia,driver>=550,driver<551"
    image = ImageFacts(cuda="12.8.1", require={"NVIDIA_REQUIRE_CUDA": f"cuda>=12.8 {clauses}"})
    here = said(image, "A100 80GB PCIe", "550.54.15")
    assert (here.verdict, here.rule) == ("warn", "require-brand")
    assert said(image, "A100 80GB PCIe", "555.42.06").cause == "image-require-unsatisfied"
    assert said(image, "A100 80GB PCIe", "570.124.06").verdict == "pass"


def test_the_container_stack_refuses_before_cuda_does() -> None:
    image = ImageFacts(torch="2.7.1", cuda="12.8", require={"NVIDIA_REQUIRE_CUDA": "cuda>=12.8"})
    here = said(image, "RTX 4090", "550.54.15")
    assert (here.verdict, here.cause, here.needs_driver) == ("fail", "image-require-unsatisfied", "570.26")
    assert "unsatisfied condition: cuda>=12.8" in here.explanation
    assert said(image.model_copy(update={"disable_require": True}), "RTX 4090", "550.54.15").rule == "minor-version"
    cdi = said(image, "RTX 4090", "550.54.15", access="cdi")
    assert (cdi.verdict, cdi.rule) == ("pass", "minor-version")
    assert any("CDI" in remark for remark in cdi.remarks)


def test_ngcs_constant_requirement_says_nothing() -> None:
    image = ImageFacts(torch="2.9.0a0+50eac811a6", cuda="13.0.1", require={"NVIDIA_REQUIRE_CUDA": "cuda>=9.0"})
    assert said(image, "RTX 4090", "550.54.15").cause == "driver-too-old"
    assert said(image, "RTX 4090", "580.82.07").verdict == "pass"


@pytest.mark.parametrize(
    ("gpu", "require", "verdict", "cause"),
    [
        ("RTX 3090", "", "fail", "fwd-compat-unsupported"),
        ("A100 80GB PCIe", "", "warn", None),  # NVIDIA's own images of CUDA 12.8 name branch 470
        ("RTX A6000", "", "unknown", None),
        ("A100 80GB PCIe", "brand=tesla,driver>=470,driver<471 brand=nvidia,driver>=470,driver<471", "warn", None),
        ("A100 80GB PCIe", "brand=tesla,driver>=535,driver<536", "fail", "image-require-unsatisfied"),
    ],
)
def test_forward_compatibility(gpu: str, require: str, verdict: str, cause: str | None) -> None:
    asks = {"NVIDIA_REQUIRE_CUDA": f"cuda>=12.8 {require}"} if require else {}
    image = ImageFacts(torch="2.7.1", cuda="12.8", compat="12.8", require=asks)
    here = said(image, gpu, "470.129.06")
    assert (here.verdict, here.cause) == (verdict, cause)


@pytest.mark.parametrize(
    ("driver", "accepted"), [("470.129.06", False), ("535.129.03", True), ("545.23.08", False), ("575.51.03", True)]
)
def test_the_compatibility_package_is_offered_where_it_accepts_the_branch(driver: str, accepted: bool) -> None:
    """And both answers agree: the advice to bring it, and the verdict on an image that does."""
    bare, with_it = ImageFacts(torch="2.9.1", cuda="13.0"), ImageFacts(torch="2.9.1", cuda="13.0", compat="13.0")
    offered = [remark for remark in said(bare, "A800 80GB PCIe", driver).remarks if "cuda-compat-13-0" in remark]
    assert bool(offered) is accepted
    here = said(with_it, "A800 80GB PCIe", driver)
    assert here.verdict == ("warn" if accepted else "fail")
    assert ("does not accept the branch" in here.explanation) is not accepted
    assert not any("cuda-compat" in remark for remark in said(bare, "RTX 3090", driver).remarks)


def test_nothing_is_offered_where_nobody_says_which_branches_are_accepted() -> None:
    assert REFERENCE.drivers.compat_accepts("12.5", "470.129.06") is None
    assert not said(ImageFacts(torch="none", cuda="12.5"), "A800 80GB PCIe", "470.129.06").remarks
    unsure = ImageFacts(torch="none", cuda="12.5", compat="12.5")
    assert said(unsure, "A800 80GB PCIe", "470.129.06").verdict == "unknown"


def test_a_compatibility_package_can_harm_a_geforce() -> None:
    image = ImageFacts(torch="2.7.1", cuda="12.8", compat="12.8")
    here = said(image, "RTX 3090", "550.54.15")
    assert (here.verdict, here.rule) == ("warn", "forward-compat-order")
    assert said(image, "RTX 3090", "570.124.06").verdict == "pass"
    assert said(image, "A100 80GB PCIe", "550.54.15").verdict == "pass"


@pytest.mark.parametrize(("gpu", "driver", "last"), [("V100", "590.44.01", "580"), ("3.7", "495.29.05", "470")])
def test_a_driver_that_dropped_the_card_is_the_machines_fault(gpu: str, driver: str, last: str) -> None:
    here = said(ImageFacts(torch="2.2.0", cuda="11.8"), gpu, driver)
    assert (here.verdict, here.rule, here.cause) == ("host-failed", "driver-dropped-card", None)
    assert f"branch {last}" in here.explanation
    assert said(ImageFacts(torch="2.2.0", cuda="11.8"), gpu, f"{last}.999.1").verdict == "pass"


def test_a_driver_older_than_the_card() -> None:
    image = ImageFacts(torch="2.7.1", cuda="12.8")
    here = said(image, "RTX 5090", "535.129.03")
    assert (here.verdict, here.rule, here.needs_driver) == ("host-failed", "driver-before-card", "570")
    assert said(ImageFacts(torch="2.7.1", cuda="12.8"), "RTX 5090", "470.129.06").needs_driver == "570"


@pytest.mark.parametrize(
    ("arch_list", "gpu", "driver", "verdict", "cause"),
    [
        (("sm_80", "sm_86"), "RTX 4090", "550.54.15", "pass", None),
        (("sm_80",), "8.7", "550.54.15", "fail", "arch-no-kernel"),
        (("sm_90a",), "H100 PCIe 80GB", "550.54.15", "pass", None),
        (("sm_90a",), "B200", "575.51.03", "fail", "arch-no-kernel"),
        (("sm_100f",), "B300", "575.51.03", "pass", None),
        (("compute_80",), "RTX 5090", "575.51.03", "pass", None),
        (("sm_80+PTX",), "RTX 5090", "575.51.03", "pass", None),
        (("compute_80",), "RTX 5090", "570.124.06", "fail", "ptx-toolchain"),
        (("native",), "RTX 4090", "550.54.15", "unknown", None),
    ],
)
def test_machine_code(arch_list: tuple[str, ...], gpu: str, driver: str, verdict: str, cause: str | None) -> None:
    here = said(ImageFacts(torch="9.9.0", cuda="12.9", arch_list=arch_list), gpu, driver)
    assert (here.verdict, here.cause) == (verdict, cause)
    if cause == "ptx-toolchain":
        assert here.needs_driver == "575.51.03"


def test_where_code_is_missing_the_builds_that_have_it_are_named() -> None:
    here = said(ImageFacts(torch="2.7.1", cuda="12.6"), "RTX 5090", "570.124.06")
    assert here.remarks == ("Of torch 2.7, the published builds for CUDA 12.8 have code for compute capability 12.0.",)


def test_a_release_without_such_code_is_told_where_it_begins_and_ends() -> None:
    """Two builds of many are never named as if they were all."""
    here = said(ImageFacts(torch="2.2.0", cuda="12.1"), "RTX 5090", "570.124.06")
    assert here.remarks[0].startswith(
        "No published build of torch 2.2 has code for compute capability 12.0; of those that have, the first is torch"
        " 2.7 for CUDA 12.8, the newest in our tables torch 2.15 for CUDA "
    )


def test_a_toolkit_without_a_torch_is_judged_by_what_it_can_make() -> None:
    assert said(ImageFacts(cuda="11.1.1"), "RTX 4090", "550.54.15").verdict == "pass"  # sm_80 and sm_86 run on 8.9
    assert said(ImageFacts(cuda="13.0.1"), "V100", "580.95.05").rule == "toolkit-dropped-card"
    assert said(ImageFacts(cuda="12.1.0"), "3.7", "470.256.02").cause == "driver-too-old"
    blackwell = said(ImageFacts(cuda="11.8.0"), "RTX 5090", "570.124.06")
    assert (blackwell.verdict, blackwell.rule) == ("unknown", "toolkit-before-card")


def test_a_build_that_was_never_published() -> None:
    here = said(ImageFacts(torch="2.9.0", cuda="12.1"), "RTX 3090", "550.54.15")
    assert (here.verdict, here.rule) == ("unknown", "torch-build-never-published")
    assert "12.6, 12.8, 13.0" in here.explanation
    measured = ImageFacts(torch="2.9.0", cuda="12.1", arch_list=("sm_86",))
    assert said(measured, "RTX 3090", "550.54.15").verdict == "pass"


def test_a_cpu_build() -> None:
    for image in (ImageFacts(torch="2.5.1+cpu"), ImageFacts(torch="2.5.1", cuda="none")):
        here = said(image, "RTX 3090", "550.54.15")
        assert (here.verdict, here.cause) == ("fail", "cpu-only-torch")
    assert said(ImageFacts(torch="2.2.0+cu121"), "RTX 3090", "550.54.15").verdict == "pass"


def test_another_cpu() -> None:
    image = ImageFacts(torch="2.5.1", cuda="12.4", platforms=("linux/amd64", "unknown/unknown"))
    here = said(image, "GH200", "550.54.15", machine="aarch64")
    assert (here.verdict, here.cause) == ("fail", "platform-mismatch")
    both = image.model_copy(update={"platforms": ("linux/amd64", "linux/arm64/v8")})
    assert said(both, "GH200", "550.54.15", machine="aarch64").cause is None
    nowhere_said = image.model_copy(update={"platforms": ()})
    assert said(nowhere_said, "GH200", "550.54.15", machine="aarch64").verdict == "unknown"


def test_the_c_library() -> None:
    image = ImageFacts(torch="2.7.1", cuda="12.8", os="ubuntu18.04")
    here = said(image, "RTX 3090", "570.124.06")
    assert (here.verdict, here.cause, here.confidence) == ("fail", "glibc-too-old", CONFIDENCE["secondary"])
    measured = image.model_copy(update={"glibc": "2.27"})
    assert said(measured, "RTX 3090", "570.124.06").confidence >= 0.95
    assert said(image.model_copy(update={"os": "ubuntu22.04"}), "RTX 3090", "570.124.06").verdict == "pass"
    assert said(ImageFacts(torch="2.5.1", cuda="12.4", os="ubuntu18.04"), "RTX 3090", "550.54.15").verdict == "pass"


@pytest.mark.parametrize(
    ("gpu", "need", "verdict"),
    [
        ("RTX 3090", 20 * GIB, "pass"),
        ("RTX 3090", 24 * GIB, "warn"),
        ("RTX 3090", 25 * GIB, "fail"),
        ("A100", 60 * GIB, "warn"),  # 40 or 80 GB
        ("A100", 90 * GIB, "fail"),
        ("8.0", 10 * GIB, "unknown"),
    ],
)
def test_memory(gpu: str, need: int, verdict: str) -> None:
    here = said(ImageFacts(torch="2.5.1", cuda="12.4", gpu_memory_bytes=need), gpu, "550.54.15")
    assert here.verdict == verdict
    assert here.cause == ("gpu-oom" if verdict == "fail" else None)


def test_what_is_missing_is_named_and_the_needed_driver_with_it() -> None:
    image = ImageFacts(torch="2.5.1", cuda="12.4")
    no_driver = said(image, "RTX 3090", None)
    assert (no_driver.verdict, no_driver.rule, no_driver.needs_driver) == ("unknown", "unknown-driver", "525.60.13")
    assert said(image, None, "550.54.15").rule == "unknown-card"
    assert said(ImageFacts(), "RTX 3090", "550.54.15").rule == "unknown-image"
    assert said(ImageFacts(torch="2.5.1"), "RTX 3090", "550.54.15").verdict == "unknown"
    assert said(image, None, "470.129.06").verdict == "fail"  # whatever the card: a definite failure wins


def test_a_driver_that_no_table_has_is_judged_by_its_neighbours() -> None:
    assert said(ImageFacts(cuda="12.4"), "RTX 3090", "551.86").verdict == "pass"
    assert said(ImageFacts(cuda="13.4"), "RTX 3090", "999.1").verdict == "pass"
    assert said(ImageFacts(cuda="14.0"), "RTX 3090", "999.1").verdict == "unknown"
    assert said(ImageFacts(cuda="14.0"), "RTX 3090", NEWEST).verdict == "fail"
    asks = ImageFacts(cuda="12.5", require={"NVIDIA_REQUIRE_CUDA": "cuda>=12.5"})
    assert said(asks, "RTX 3090", "551.86").verdict == "unknown"  # CUDA 12.4 or 12.5


def test_a_row_that_nobody_confirmed_never_fails_a_cell() -> None:
    rows = tuple(row.model_copy(update={"certainty": "uncertain"}) for row in DRIVERS.floors)
    unsure = REFERENCE.model_copy(update={"drivers": DRIVERS.model_copy(update={"floors": rows})})
    host = HostFacts(compute_capability="8.0", driver="470.129.06")
    here = predict(ImageFacts(torch="2.2.0", cuda="12.1"), host, unsure)
    assert (here.verdict, here.cause, here.confidence) == ("unknown", None, 0.0)
    assert here.explanation.startswith("Not certain: CUDA 12.1 needs")


def test_what_is_not_known_wins_over_a_condition_and_a_failure_over_both() -> None:
    tight = ImageFacts(torch="2.5.1", cuda="12.4", gpu_memory_bytes=24 * GIB)
    assert said(tight, "RTX 3090", "550.54.15").verdict == "warn"
    assert said(tight, "RTX 3090", None).verdict == "unknown"
    assert said(tight.model_copy(update={"platforms": ("linux/arm64",)}), "RTX 3090", None).cause == "platform-mismatch"


# ---- the machine as a user names it


@pytest.mark.parametrize(
    ("gpu", "card", "capability"),
    [
        ("RTX 3090", "rtx3090", "8.6"),
        ("rtx3090", "rtx3090", "8.6"),
        ("NVIDIA GeForce RTX 3090", "rtx3090", "8.6"),
        ("A800", None, "8.0"),
        ("NVIDIA A100-SXM4-80GB", "a100-80-sxm", "8.0"),
        ("8.9", None, "8.9"),
        ("sm_120", None, "12.0"),
        (None, None, None),
    ],
)
def test_a_card_as_people_name_it(gpu: str | None, card: str | None, capability: str | None) -> None:
    host = host_facts(gpu, "550.54.15", REFERENCE)
    assert (host.card.id if host.card else None, host.compute_capability) == (card, capability)


@pytest.mark.parametrize(
    ("gpu", "capability"),
    [
        *(("GTX 1080 Ti", "6.1"), ("GTX 1080", "6.1"), ("Tesla P40", "6.1"), ("Tesla P100-PCIE-16GB", "6.0")),
        *(("Tesla P100", "6.0"), ("NVIDIA TITAN V", "7.0"), ("RTX 2080", "7.5"), ("GeForce GTX 1660", "7.5")),
        *(("GTX 1660 Ti", "7.5"), ("RTX 5060 Ti", "12.0"), ("Tesla K80", "3.7"), ("NVIDIA GB10", "12.1")),
    ],
)
def test_common_cards_are_known(gpu: str, capability: str) -> None:
    assert host_facts(gpu, None, REFERENCE).compute_capability == capability


def test_the_chip_of_dgx_spark_comes_with_its_cpu() -> None:
    host = host_facts("GB10", None, REFERENCE)
    assert (host.machine, host.machine_assumed) == ("aarch64", False)


@pytest.mark.parametrize("gpu", ["GTX 1070", "P4000", "Tesla P4", "RTX 2060", "RTX 3050", "A4500", "RTX 6090"])
def test_another_model_is_never_suggested(gpu: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        host_facts(gpu, None, REFERENCE)
    assert raised.value.hint.startswith("give its compute capability")
    assert "https://developer.nvidia.com/cuda-gpus" in raised.value.hint


@pytest.mark.parametrize("gpu", ["RTX 3900", "RTX 309O", "GForce RTX 3090"])
def test_a_slip_of_the_pen_is_understood(gpu: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        host_facts(gpu, None, REFERENCE)
    assert "did you mean GeForce RTX 3090" in raised.value.hint


@pytest.mark.parametrize("gpu", ["MI300X", "AMD Instinct MI250", "Radeon RX 7900 XTX", "Intel Arc A770", "Gaudi3"])
def test_a_card_of_another_maker_is_called_that(gpu: str) -> None:
    with pytest.raises(ConfigurationError, match="is no NVIDIA card"):
        host_facts(gpu, None, REFERENCE)


def test_a_card_that_is_none() -> None:
    with pytest.raises(ConfigurationError, match="'RTX 3900' is neither a card of the table") as raised:
        host_facts("RTX 3900", None, REFERENCE)
    assert "did you mean GeForce RTX 3090" in raised.value.hint
    with pytest.raises(ConfigurationError, match="not a driver version") as raised:
        host_facts("RTX 3090", "latest", REFERENCE)
    assert "550.54.15" in raised.value.hint
