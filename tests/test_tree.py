from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from builders import make_diagnosis, make_facts, make_result
from cuda_matrix.model import CheckStatus, EngineName, Verdict
from cuda_matrix.reference import load_reference, load_tree
from cuda_matrix.report.way import way_of_result
from cuda_matrix.result import CellResult, CheckResult, Facts, Timings
from cuda_matrix.tree import Known, Path, Tree, path_of, walk

TREE = load_tree()
REFERENCE = load_reference()
CAUSES = REFERENCE.catalogue.causes
WORDS = sorted({word for node in TREE.nodes for word in node.answers})


def answers(path: Path) -> dict[str, str]:
    return {step.node.id: step.answer for step in path.steps}


def failed(cause: str, **values: Any) -> CellResult:
    return make_result(
        "image@rtx4090",
        Verdict.FAIL,
        diagnosis=make_diagnosis(cause, evidence="its line"),
        **{"facts": Facts(), **values},
    )


def of(result: CellResult) -> Path:
    return path_of(TREE, result, REFERENCE.drivers)


def check(id_: str, status: CheckStatus = CheckStatus.PASS, device: str | None = None) -> CheckResult:
    return CheckResult(id=id_, status=status, device=device)


def test_every_cause_has_a_place_and_every_place_a_cause() -> None:
    assert TREE.causes_below[TREE.nodes[0].id] == set(CAUSES)
    assert {leaf.id for leaf in TREE.leaves if not leaf.causes} == {"nothing-against-it", "no-card"}
    assert all(len(set(leaf.causes)) == len(leaf.causes) for leaf in TREE.leaves)


@pytest.mark.parametrize("code", sorted(CAUSES))
def test_every_cause_is_walked_to_a_leaf_that_names_it(code: str) -> None:
    # Of each stage in which the cause can show; in the last, with and without a kernel that ran.
    phases = set(CAUSES[code].phase)
    cases: list[CellResult] = []
    if phases & {"pull", "start"}:
        stage = "pull" if phases & {"pull"} else "start"
        diagnosis = make_diagnosis(code, evidence="its line", where=stage)
        cases.append(failed(code).model_copy(update={"diagnosis": diagnosis}))
    if phases & {"import", "run", "build"}:
        python = Facts(python="3.11", nvidia_smi="ok", driver="550.54.15", torch_cuda=None)
        cases.append(failed(code, facts=python, checks=(check("first-kernel", CheckStatus.FAIL),)))
        cases.append(failed(code, facts=python, checks=(check("driver.init", CheckStatus.FAIL),)))
        ran = make_facts(nvidia_smi="ok", python="3.11")
        cases.append(failed(code, facts=ran, checks=(check("first-kernel", device="cuda:0"),)))
    ends = [path.leaf for path in map(of, cases) if path.leaf is not None]
    assert ends, f"{code} comes to no leaf"
    assert all(code in leaf.causes for leaf in ends)


def test_the_article_s_own_case_is_an_old_driver() -> None:
    # S3: A800 with driver 470.129.06 and a CUDA 12.1 runtime.
    facts = make_facts("NVIDIA A800 80GB PCIe", driver="470.129.06", python="3.10", nvidia_smi="ok")
    path = of(failed("driver-too-old", facts=facts, checks=(check("first-kernel", CheckStatus.FAIL),)))
    assert path.leaf is not None
    assert path.leaf.id == "driver-old"
    floor = path.steps[-1]
    assert (floor.node.id, floor.answer, floor.basis, floor.bad) == ("floor", "no", "seen", True)
    assert floor.evidence == "driver 470.129.06, CUDA 12.1 needs 525.60.13"
    assert [s.basis for s in path.steps if s.node.id == "init"] == ["diagnosis"]


def test_minor_version_compatibility_counts_as_new_enough() -> None:
    # The article says that 525.147.05 "cannot run CUDA 12.x"; NVIDIA's floor for 12.x is 525.60.13.
    facts = make_facts(driver="525.147.05", torch_cuda="12.8", python="3.10", nvidia_smi="ok")
    path = of(failed("cpu-only-torch", facts=facts.model_copy(update={"torch_cuda": "12.8"})))
    assert answers(path)["floor"] == "yes"


@pytest.mark.parametrize(
    ("stage", "code", "leaf"),
    [
        ("pull", "registry-rate-limit", "registry-says-no"),
        ("pull", "disk-full", "disk"),
        ("start", "toolkit-missing", "toolkit-out-of-order"),
        ("start", "image-require-unsatisfied", "request-unmet"),
        ("create", "engine-error", "engine-refused"),
        ("start", "unknown", "engine-refused"),
        ("start", "gpu-off-bus", "card-out-of-order"),
    ],
)
def test_a_container_that_never_started_is_asked_after_the_start(stage: str, code: str, leaf: str) -> None:
    result = failed(code).model_copy(update={"diagnosis": make_diagnosis(code, where=stage)})
    path = of(result)
    assert answers(path)["works"] == "no"
    assert answers(path)["started"] == "no"
    assert path.leaf is not None
    assert path.leaf.id == leaf


def test_the_same_cause_ends_where_it_showed() -> None:
    before = of(failed("gpu-oom", facts=make_facts(python="3"), checks=(check("first-kernel", CheckStatus.FAIL),)))
    after = of(failed("gpu-oom", facts=make_facts(python="3"), checks=(check("first-kernel", device="cuda:0"),)))
    assert answers(before)["works"] == "no"
    assert answers(after)["works"] == "yes"
    assert before.leaf == after.leaf == TREE.leaf("out-of-room")
    assert len(after.steps) < len(before.steps)


def test_without_a_diagnosis_the_path_ends_at_the_first_question_nobody_answered() -> None:
    seen = {"works": Known(answer="no", evidence="e"), "started": Known(answer="yes", evidence="e")}
    path = walk(TREE, seen)
    assert [step.basis for step in path.steps] == ["seen", "seen", "open"]
    assert path.leaf is None
    assert path.steps[-1].node.id == "runs"
    assert path.steps[-1].answer == ""


def test_nothing_known_is_not_taken_for_a_kernel_that_ran() -> None:
    path = walk(TREE, {})
    assert [(step.node.id, step.answer, step.basis) for step in path.steps] == [
        ("works", "no", "unseen"),
        ("started", "", "open"),
    ]


def test_what_was_seen_is_not_bent_to_the_diagnosis() -> None:
    facts = make_facts(driver="470.129.06", python="3.10", nvidia_smi="ok")
    path = of(failed("numerics-wrong", facts=facts, checks=(check("first-kernel", CheckStatus.FAIL),)))
    assert path.leaf is None
    assert (path.steps[-1].node.id, path.steps[-1].answer, path.steps[-1].basis) == ("floor", "no", "clash")


def test_a_driver_below_the_floor_with_a_forward_compatible_libcuda_is_not_to_blame() -> None:
    # cuda-compat-12-1 on an A100 with R470: the kernel's driver stays old, the libcuda in use is new.
    facts = make_facts("NVIDIA A800 80GB PCIe", driver="470.129.06", torch_cuda="12.1", python="3.10", nvidia_smi="ok")
    kernel = check("first-kernel", CheckStatus.FAIL)

    def floor(status: CheckStatus, offered: str) -> str:
        init = CheckResult(id="driver.init", status=status, numbers={"driver_cuda": offered})
        return answers(of(failed("gpu-oom", facts=facts, checks=(init, kernel)))).get("floor", "")

    assert floor(CheckStatus.WARN, "12.1") == "yes"
    assert floor(CheckStatus.WARN, "11.4") == "no"
    assert floor(CheckStatus.FAIL, "12.1") == ""  # it does not start: the way ends before


def test_a_cell_without_a_card_is_not_asked_for_nvidia_smi() -> None:
    facts = Facts(python="3.11", nvidia_smi="missing")
    path = of(failed("torch-missing", gpu=None, facts=facts, checks=(check("torch.import", CheckStatus.FAIL),)))
    assert answers(path)["smi"] == "no card asked for"
    assert path.leaf == TREE.leaf("import-fails")


def test_an_image_without_nvidia_smi_may_still_see_its_card() -> None:
    facts = Facts(python="3.11", nvidia_smi="missing")
    path = of(
        failed("arch-no-kernel", facts=facts, checks=(check("driver.init"), check("first-kernel", CheckStatus.FAIL)))
    )
    assert [s.basis for s in path.steps if s.node.id == "smi"] == ["diagnosis"]
    assert path.leaf == TREE.leaf("no-code")


def test_a_container_without_nvidia_smi_and_card_leads_to_the_toolkit_and_gpus() -> None:
    facts = Facts(python="3.11", nvidia_smi="missing")
    path = of(failed("gpu-not-exposed", facts=facts, checks=(check("host.driver", CheckStatus.FAIL),)))
    assert answers(path)["smi"] == "not found"
    assert path.leaf == TREE.leaf("not-exposed")
    assert "--gpus" in TREE.leaf("not-exposed").do[0]  # type: ignore[union-attr]


def test_a_machine_s_own_python_is_not_asked_about_containers() -> None:
    local = load_tree().local
    words = [node.question for node in local.nodes] + [text for leaf in local.leaves for text in (leaf.title, *leaf.do)]
    strange = re.compile(r"container|image|engine|--gpus|docker|registry", re.IGNORECASE)
    assert [text for text in words if strange.search(text)] == []
    assert local.node("engine") is None
    assert {node.id for node in local.nodes} < {node.id for node in TREE.nodes}
    result = failed("torch-missing", gpu=None, facts=Facts(python="3.11"), engine=EngineName.LOCAL)
    way = way_of_result(result)
    said = " ".join([way.end, *(f"{step.question} {step.evidence} {step.others}" for step in way.steps)])
    assert "Did the process start?" in said
    assert not strange.search(said)
    assert way.leaf == "import-fails"
    smi = failed("host-driver-missing", facts=Facts(python="3.11", nvidia_smi="missing"), engine=EngineName.LOCAL)
    assert not any(strange.search(step.evidence) for step in way_of_result(smi).steps)


def test_a_python_that_could_not_be_started_ends_where_it_could_not() -> None:
    result = failed("entrypoint-not-found", engine=EngineName.LOCAL)
    way = way_of_result(result.model_copy(update={"diagnosis": make_diagnosis("entrypoint-not-found", where="start")}))
    assert [step.node for step in way.steps] == ["works", "started", "entry"]
    assert way.leaf == "entry-missing"


def test_a_cause_of_a_newer_catalogue_is_no_guess() -> None:
    path = of(failed("no-native-kernels", timings=Timings(payload_s=3.0), facts=Facts(python="3.11")))
    assert path.cause == "no-native-kernels"
    assert path.leaf is None


def test_evidence_is_bounded() -> None:
    facts = Facts(python="3", nvidia_smi="x" * 2000)
    path = of(failed("driver-lib-mismatch", facts=facts))
    assert max(len(step.evidence) for step in path.steps) <= 200


@given(
    st.dictionaries(
        st.sampled_from([node.id for node in TREE.nodes]),
        st.builds(Known, answer=st.sampled_from([*WORDS, "", "nonsense"]), evidence=st.text(max_size=300)),
    ),
    st.none() | st.sampled_from(sorted(CAUSES)) | st.just("of-tomorrow"),
)
def test_a_walk_ends_agrees_and_never_invents(known: dict[str, Known], cause: str | None) -> None:
    path = walk(TREE, known, cause, "said")
    assert 1 <= len(path.steps) <= len(TREE.nodes)
    assert len({step.node.id for step in path.steps}) == len(path.steps)
    if path.leaf is not None and cause in CAUSES:
        assert cause in path.leaf.causes
    assert (path.leaf is None) == (path.steps[-1].basis in {"open", "clash"})
    for step in path.steps:
        given_answer = known[step.node.id].answer if step.node.id in known else None
        if step.basis in {"seen", "clash"}:
            assert step.answer == given_answer
        elif given_answer in step.node.answers:
            pytest.fail("an answer that was seen was passed over")
        if cause is None or cause not in CAUSES:
            assert step.basis in {"seen", "unseen", "open"}


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows["nodes"][0]["answers"].update(perhaps="nowhere"),
        lambda rows: rows["nodes"][-1]["answers"].update(again="works"),
        lambda rows: rows["leaves"].append(dict(rows["leaves"][0])),
        lambda rows: rows["leaves"].append({"id": "lonely", "title": "t", "causes": [], "do": ["x"]}),
        lambda rows: rows["nodes"][1].update(bad=["never"]),
    ],
)
def test_a_tree_that_is_none_is_refused(change: Any) -> None:
    rows = TREE.model_dump()
    rows = {"nodes": [dict(row) for row in rows["nodes"]], "leaves": [dict(row) for row in rows["leaves"]]}
    change(rows)
    with pytest.raises(ValidationError):
        Tree(**rows)


def test_another_card_than_the_configured_one_is_found_where_the_card_is_named() -> None:
    facts = make_facts("NVIDIA A800 80GB PCIe", python="3.11", nvidia_smi="ok")
    path = of(failed("runner-card-mismatch", facts=facts))
    assert answers(path)["smi"] == "another card"
    assert path.leaf == TREE.leaf("other-card")
    ran = of(failed("runner-card-mismatch", facts=facts, checks=(check("first-kernel", device="cuda:0"),)))
    assert ran.leaf == TREE.leaf("results-wrong")


def test_machine_code_for_the_card_is_read_off_the_arch_list() -> None:
    checks = (check("first-kernel", CheckStatus.FAIL),)

    def arch(*architectures: str, machine: str = "x86_64") -> list[tuple[str, str]]:
        facts = make_facts(python="3", nvidia_smi="ok", arch_list=architectures, machine=machine)
        path = of(failed("unknown", facts=facts, checks=checks))
        return [(step.answer, step.basis) for step in path.steps if step.node.id == "arch"]

    assert arch("sm_80", "sm_86") == [("yes", "seen")]
    assert arch("sm_50", "sm_60") == [("no", "clash")]
    assert arch("compute_80") == [("yes", "diagnosis")]  # whether the driver translates it, only a kernel shows
    assert arch("sm_80", machine="aarch64") == [("yes", "diagnosis")]
