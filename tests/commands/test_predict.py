"""`predict`: one image, the whole matrix, and what another driver would change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from builders import make_diagnosis, make_facts, make_result
from cuda_matrix.commands.foresight import show_unanswered
from cuda_matrix.commands.predict import command
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.model import EngineName, Verdict
from cuda_matrix.result_files import write_result
from foretold_fleet import with_nvidia_smi

CU121 = "pytorch/pytorch:2.2.0-cuda12.1-cudnn8-runtime"


pytestmark = pytest.mark.usefixtures("empty_folder")


def predict(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments), standalone_mode=False)


def document(*arguments: str) -> dict[str, object]:
    done = predict("--json", *arguments)
    assert done.exception is None, done.exception
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_an_image_that_is_too_new_for_the_driver() -> None:
    done = predict("--image", CU121, "--gpu", "A800 80GB", "--driver", "470.129.06", "--offline")
    assert done.exit_code == 0
    first, *rest = done.stdout.splitlines()
    assert first == f"❌ fail, driver-too-old: {CU121} on A800 80GB, driver 470.129.06"
    text = "\n".join(rest)
    assert "  needs driver 525.60.13 or newer" in rest
    assert "rule " in text
    assert "https://" in text
    assert "    cuda = 12.1 (tag" in text


def test_the_document_of_one_image() -> None:
    found = document("--image", CU121, "--gpu", "RTX 3090", "--driver", "580.65.06", "--offline")
    assert (found["image"], found["gpu"], found["driver"]) == (CU121, "RTX 3090", "580.65.06")
    assert (found["verdict"], found["cause"]) == ("pass", None)
    assert {"rule", "explanation", "source", "confidence", "remarks", "needs_driver"} <= set(found)
    facts = found["facts"]
    assert isinstance(facts, dict)
    assert facts["cuda"]["value"] == "12.1"
    assert facts["cuda"]["origin"]


@pytest.mark.parametrize("text", ["torch=2.2.0,cuda=12.1", '{"torch": "2.2.0", "cuda": "12.1"}'])
def test_facts_instead_of_a_reference(text: str, empty_folder: Path) -> None:
    asked = ("--gpu", "A800 80GB", "--driver", "470.129.06")
    assert document("--image", text, *asked)["cause"] == "driver-too-old"
    (empty_folder / "facts.json").write_text('{"torch": "2.2.0", "cuda": "12.1"}')
    assert document("--image", "facts.json", *asked)["cause"] == "driver-too-old"


def test_a_file_that_holds_no_facts(empty_folder: Path) -> None:
    (empty_folder / "list.json").write_text('["torch"]')
    os.mkfifo(empty_folder / "pipe.json")
    for name, words in (("list.json", "holds no facts"), ("pipe.json", "no regular file")):
        error = predict("--image", name, "--gpu", "8.6", "--driver", "550.54.15", "--offline").exception
        assert isinstance(error, ConfigurationError)
        assert words in str(error)


def test_an_option_of_any_length_is_no_long_message() -> None:
    error = predict("--image", CU121, "--gpu", "8.6", "--driver", "9" * 100_000).exception
    assert isinstance(error, ConfigurationError)
    assert len(str(error)) < 500


def test_a_compute_capability_instead_of_a_card() -> None:
    assert document("--image", CU121, "--gpu", "8.6", "--driver", "580.65.06", "--offline")["verdict"] == "pass"


def test_a_card_without_a_driver_is_not_enough_and_says_which_it_needs() -> None:
    found = document("--image", CU121, "--gpu", "RTX 3090", "--offline")
    assert found["verdict"] == "unknown"


def test_this_machine_s_card_and_driver(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_nvidia_smi(empty_folder, monkeypatch, "0, NVIDIA A800 80GB PCIe, 470.129.06, 8.0")
    found = document("--image", CU121, "--offline")
    assert (found["gpu"], found["driver"]) == ("NVIDIA A800 80GB PCIe", "470.129.06")
    assert found["cause"] == "driver-too-old"
    assert document("--image", CU121, "--offline", "--driver", "550.54.15")["verdict"] in {"pass", "warn"}


def test_two_cards_give_two_answers(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a800, p100 = "0, NVIDIA A800 80GB PCIe, 550.54.15, 8.0", "2, Tesla P100-PCIE-16GB, 550.54.15, 6.0"
    with_nvidia_smi(empty_folder, monkeypatch, f"{a800}\n{a800}\n{p100}")
    cells = document("--image", CU121, "--offline")["cells"]
    assert isinstance(cells, list)
    assert [cell["gpu"] for cell in cells] == ["NVIDIA A800 80GB PCIe", "Tesla P100-PCIE-16GB"]


def test_a_card_that_no_table_has_is_known_by_its_capability(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_nvidia_smi(empty_folder, monkeypatch, "0, NVIDIA Quantum 9000, 580.65.06, 8.6")
    assert document("--image", CU121, "--offline")["verdict"] == "pass"


def test_the_configuration_s_runners_where_this_machine_has_no_card(fleet: Path) -> None:
    cells = document("--image", "torch=2.2.0,cuda=12.1")["cells"]
    assert isinstance(cells, list)
    assert [(cell["runner"], cell["verdict"], cell["cause"]) for cell in cells] == [
        ("rtx3090", "pass", None),
        ("a800", "fail", "driver-too-old"),
    ]


def test_no_card_anywhere_says_what_to_give() -> None:
    error = predict("--image", CU121, "--offline").exception
    assert isinstance(error, ConfigurationError)
    assert "--gpu" in error.hint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--image", CU121, "--gpu", "RTX 3900", "--driver", "550.54.15"), "RTX 3900"),
        (("--image", CU121, "--gpu", "RTX 3090", "--driver", "new"), "--driver: "),
        (("--image", "Not an image", "--gpu", "RTX 3090"), "white space"),
        (("--driver", "550.54.15"), "no configuration"),
    ],
)
def test_wrong_arguments(arguments: tuple[str, ...], message: str) -> None:
    error = predict("--offline", *arguments).exception
    assert isinstance(error, ConfigurationError)
    assert message in str(error)
    assert "Traceback" not in str(error)


def test_a_file_of_facts_that_is_no_such_file(empty_folder: Path) -> None:
    assert isinstance(predict("--image", "gone.json", "--gpu", "8.6").exception, FileNotFoundError)
    (empty_folder / "big.json").write_bytes(b"{" + b" " * (1 << 20))
    assert isinstance(predict("--image", "big.json", "--gpu", "8.6").exception, ConfigurationError)
    (empty_folder / "empty.json").write_text("")
    assert document("--image", "empty.json", "--gpu", "8.6", "--driver", "550.54.15")["verdict"] == "unknown"


def test_a_registry_that_does_not_answer() -> None:
    asked = ["--gpu", "RTX 3090", "--driver", "580.65.06"]
    # A process of its own: what it prints beside the answer and how it ends are asked for too.
    command = [sys.executable, "-m", "cuda_matrix", "predict", "--image"]
    done = subprocess.run(
        [*command, "localhost:1/nothing/known:latest", *asked], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert "nothing is known of localhost:1/nothing/known:latest" in done.stderr
    assert "hint: give what you know of it: --image torch=2.2.0,cuda=12.1" in done.stderr
    known = "localhost:1/pytorch/pytorch:2.2.0-cuda12.1-cudnn8-runtime"
    done = subprocess.run([*command, known, *asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "note: predicted from the tag alone: " in done.stderr


def test_the_whole_matrix(fleet: Path) -> None:
    lines = predict("--offline").stdout.splitlines()
    row = next(line for line in lines if line.startswith("torch2.2.0-cu12.1@a800"))
    assert row.split(maxsplit=2)[1:] == ["470.129.06", "❌ fail: driver-too-old"]
    assert not any("@cpu" in line for line in lines)
    assert lines[-1] == "6 cells: 3 run, 3 fail, 0 unknown"


def test_the_whole_matrix_as_a_document(fleet: Path) -> None:
    cells = document("--offline", "--gpu", "rtx3090")["cells"]
    assert isinstance(cells, list)
    assert [(cell["cell"], cell["verdict"]) for cell in cells] == [
        ("torch2.2.0-cu11.8@rtx3090", "pass"),
        ("torch2.2.0-cu12.1@rtx3090", "pass"),
        ("torch2.9.1-cu13.0@rtx3090", "fail"),
    ]


def test_what_if(fleet: Path) -> None:
    text = predict("--offline", "--driver", "580.65.06").stdout
    assert text.startswith("With driver 580.65.06: 3 cells turn green, 0 turn red; 3 stay (3 green, 0 red)\n")
    assert "torch2.2.0-cu12.1@a800: fail: driver-too-old with 470.129.06 → pass" in text
    older = predict("--offline", "--driver", "470.129.06").stdout
    assert older.startswith("With driver 470.129.06: 0 cells turn green, 1 turns red; 5 stay (2 green, 3 red)\n")
    assert "Turns red:\n  torch2.2.0-cu12.1@rtx3090: pass with 550.54.15 → fail: driver-too-old" in older


def test_what_if_for_one_card(fleet: Path) -> None:
    found = document("--offline", "--driver", "580.65.06", "--gpu", "A800 80GB")
    assert found["summary"] == {"turn_green": 2, "turn_red": 0, "stay_green": 1, "stay_red": 0, "unknown": 0}
    cells = found["cells"]
    assert isinstance(cells, list)
    assert [(c["cell"], c["turn"], c["before"]["verdict"], c["after"]["verdict"]) for c in cells][1] == (
        "torch2.2.0-cu12.1@a800",
        "green",
        "fail",
        "pass",
    )


def test_a_card_that_no_runner_has(fleet: Path) -> None:
    error = predict("--offline", "--driver", "580.65.06", "--gpu", "RTX 4090").exception
    assert isinstance(error, ConfigurationError)
    assert error.hint == "cards of its runners: A800 80GB, RTX 3090"


def test_what_if_against_what_was_measured(fleet: Path) -> None:
    measured = make_facts("NVIDIA A800 80GB PCIe", driver="525.60.13")
    results = (
        make_result("torch2.2.0-cu12.1@a800", gpu="A800 80GB", facts=measured),
        make_result(
            "torch2.2.0-cu11.8@a800",
            Verdict.FAIL,
            gpu="A800 80GB",
            facts=measured,
            diagnosis=make_diagnosis("native-crash"),
        ),
    )
    for result in results:
        write_result(fleet / "results", result)
    found = document("--offline", "--driver", "580.65.06", "--gpu", "A800 80GB", "--results", "results")
    cells = found["cells"]
    assert isinstance(cells, list)
    assert {cell["driver"] for cell in cells} == {"525.60.13"}
    assert [(cell["turn"], cell.get("measured")) for cell in cells] == [
        ("unknown", "fail: native-crash"),  # the rules did not foresee it: what a driver does to it, nobody knows
        ("stays", "pass"),
        ("green", None),
    ]
    text = predict("--offline", "--driver", "580.65.06", "--gpu", "A800 80GB", "--results", "results").stdout
    head = "What changes cannot be said:\n  torch2.2.0-cu11.8@a800: pass with 525.60.13, measured fail: native-crash"
    assert head in text


def test_what_if_against_what_was_simulated(fleet: Path) -> None:
    """The simulation decides by the same tables: no card was asked, and nobody may read that one was."""
    seen = make_facts("NVIDIA A800 80GB PCIe", driver="525.60.13")
    result = make_result("torch2.2.0-cu12.1@a800", gpu="A800 80GB", facts=seen, engine=EngineName.SIMULATED)
    write_result(fleet / "results", result)
    asked = ("--offline", "--gpu", "A800 80GB", "--results", "results")
    table = predict(*asked).stdout
    assert "simulated pass" in table
    what_if = predict(*asked, "--driver", "470.129.06").stdout
    assert "pass with 525.60.13, simulated pass → fail: driver-too-old" in what_if
    assert "easured" not in table + what_if
    cells = document(*asked)["cells"]
    assert isinstance(cells, list)
    assert [cell.get("simulated") for cell in cells] == [None, True, None]


DRIVERLESS = (
    "version: 1\nimages: [{id: t, ref: 'pytorch/pytorch:2.2.0-cuda12.1-cudnn8-runtime'}]\n"
    "runners: {rtx4090: {labels: [x], gpu: RTX 4090}}\n"
)


def test_a_runner_without_a_driver_is_told_once(empty_folder: Path) -> None:
    (empty_folder / "cuda-matrix.yml").write_text(DRIVERLESS)
    text = " ".join(predict("--offline").stdout.split())
    assert text.count("rtx4090 has no `driver:`: its predictions are unknown; add it") == 1
    assert "this machine" not in text


def test_what_if_for_a_runner_without_a_driver_contradicts_itself_nowhere(empty_folder: Path) -> None:
    (empty_folder / "cuda-matrix.yml").write_text(DRIVERLESS)
    text = " ".join(predict("--offline", "--driver", "535.129.03").stdout.split())
    assert "What changes cannot be said: t@rtx4090: pass with 535.129.03 " in text
    assert "rtx4090 has no `driver:`: 1 of its 1 cells are predicted to run with 535.129.03, and what that" in text
    assert "--results" in text
    assert "not known" not in text
    assert "this machine" not in text


def test_one_note_for_images_whose_registry_does_not_answer(fleet: Path) -> None:
    notes = CliRunner()

    @click.command()
    def told() -> None:
        show_unanswered({f"docker.io/a:{n}": f"docker.io/a:{n}: no such host" for n in range(5)} | {"b": "refused"})

    text = notes.invoke(told).stderr
    assert max(map(len, text.splitlines())) <= 100
    flat = " ".join(text.split())
    assert flat.count("note: ") == 2
    assert "5 images (docker.io/a:0, docker.io/a:1, docker.io/a:2, …): the image: no such host" in flat
    assert flat.endswith(": b: refused")


def test_the_facts_that_an_operator_reads(fleet: Path) -> None:
    asked = ("--image", "nvidia/cuda:12.4.1-runtime-ubuntu22.04", "--gpu", "A800 80GB", "--driver", "550.54.15")
    text = predict("--offline", *asked).stdout
    assert "cuda = 12.4.1" in text
    assert "mutable_tag" not in text
    assert "flavour" not in text
    assert "flavour" in document("--offline", *asked)["facts"]  # type: ignore[operator]
