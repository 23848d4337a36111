"""`recommend`: the machine that is meant, the results that count, and the exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from builders import make_facts, make_image, make_plan, make_result, make_runner
from cuda_matrix.commands.recommend import command
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.model import EngineName
from cuda_matrix.result_files import write_plan, write_result
from foretold_fleet import with_nvidia_smi, write_fleet

OLD, MID, NEW = "torch2.2.0-cu11.8", "torch2.2.0-cu12.1", "torch2.9.1-cu13.0"
A800 = "NVIDIA A800 80GB PCIe"


pytestmark = pytest.mark.usefixtures("empty_folder")


def recommend(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["--offline", *arguments])


def document(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(recommend("--json", *arguments).stdout)
    return found


def flat(text: str) -> str:
    """However wide the terminal is."""
    return " ".join(text.split())


def measure(folder: Path, image: str, images_per_s: float, **values: Any) -> None:
    facts = make_facts(A800, driver=values.pop("driver", "580.65.06"))
    write_result(
        folder, make_result(f"{image}@a800", images_per_s=images_per_s, gpu="A800 80GB", facts=facts, **values)
    )


def test_predicted_only(fleet: Path) -> None:
    done = recommend("--gpu", "A800 80GB", "--driver", "470.129.06")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "On A800 80GB, driver 470.129.06, use:"
    assert lines[1].startswith(f"  1. {OLD} (pytorch/pytorch:2.2.0-cuda11.8-cudnn8-runtime): predicted, ")
    below = "\n".join(lines[lines.index("Does not fit:") :])
    assert f"  {NEW}: driver-too-old, predicted: " in below
    assert f"  {MID}: driver-too-old, predicted: " in below
    assert "needs driver 525.60.13 or newer" in below


def test_results_that_nobody_can_read_are_named(fleet: Path) -> None:
    measure(fleet / "results", OLD, 980)
    (fleet / "results" / "x@a800.json").write_text('{"result_version": 99, "cell": "x@a800"}')
    (fleet / "results" / "y@a800.json").write_text("\x1b[31m{")
    done = recommend("--gpu", "a800", "--driver", "580.65.06")
    assert done.exit_code == 0
    assert [line.split(":")[2].strip() for line in done.stderr.splitlines()] == ["x@a800.json", "y@a800.json"]
    assert "\x1b" not in done.stderr


def test_measured_first_then_predicted(fleet: Path) -> None:
    measure(fleet / "results", OLD, 980)
    measure(fleet / "results", MID, 1_020, driver="560.35.03")
    text = flat(recommend("--gpu", "a800", "--driver", "580.65.06").stdout)
    first, second, third = re.split(r" [123]\. ", text)[1:]
    assert first.startswith(f"{MID} ")
    assert first.endswith("measured, 1,020 images/s, on driver 560.35.03, for which the rules say the same")
    assert second.endswith("measured, 980 images/s")
    assert third.startswith(f"{NEW} ")
    assert "predicted" in third


def test_the_document(fleet: Path) -> None:
    measure(fleet / "results", OLD, 980)
    found = document("--gpu", "A800 80GB", "--driver", "580.65.06")
    assert (found["gpu"], found["driver"], found["recommended"]) == ("A800 80GB", "580.65.06", OLD)
    first = found["fits"][0]
    assert (first["basis"], first["measured"]["images_per_s"], first["prediction"]["verdict"]) == (
        "measured",
        980,
        "pass",
    )
    assert [choice["basis"] for choice in found["fits"][1:]] == ["predicted", "predicted"]


def test_a_result_of_another_card_does_not_count(fleet: Path) -> None:
    facts = make_facts("NVIDIA GeForce RTX 3090", driver="580.65.06")
    write_result(fleet / "results", make_result(f"{OLD}@rtx3090", images_per_s=850, gpu="RTX 3090", facts=facts))
    assert {choice["basis"] for choice in document("--gpu", "A800 80GB", "--driver", "580.65.06")["fits"]} == {
        "predicted"
    }


def test_simulated_results_are_called_that(fleet: Path) -> None:
    measure(fleet / "results", OLD, 980, engine=EngineName.SIMULATED)
    assert document("--gpu", "A800 80GB", "--driver", "580.65.06")["fits"][0]["basis"] == "simulated"


def test_nothing_fits(empty_folder: Path) -> None:
    (empty_folder / "cuda-matrix.yml").write_text(
        "version: 1\nimages: [{id: new, ref: 'pytorch/pytorch:2.9.1-cuda13.0-cudnn9-runtime'}]\n"
        "runners: {a800: {labels: [a800], gpu: A800 80GB, driver: '470.129.06'}}\n"
    )
    done = recommend()
    assert done.exit_code == 1
    assert done.stdout.startswith("On A800 80GB, driver 470.129.06, no image of this matrix is known to work.\n")
    needed = document()["needs_driver"]
    assert needed.startswith("580")
    assert f"With driver {needed} or newer: new\n" in done.stdout


def test_this_machine_s_card(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_nvidia_smi(fleet, monkeypatch, f"0, {A800}, 550.54.15, 8.0")
    found = document()
    assert (found["gpu"], found["driver"], found["recommended"]) == (A800, "550.54.15", MID)
    assert document("--gpu", "A800 80GB")["driver"] == "550.54.15"
    assert document("--gpu", "RTX 3090")["driver"] == "550.54.15"  # of the runner with that card


def test_results_with_their_plan_need_no_configuration(empty_folder: Path) -> None:
    image = make_image("cu121", ref="pytorch/pytorch:2.2.0-cuda12.1-cudnn8-runtime")
    folder = empty_folder / "elsewhere"
    write_plan(folder, make_plan(images=(image,), runners=(make_runner("a800", "A800 80GB", None),)))
    measure(folder, "cu121", 1_020)
    found = document("--results", "elsewhere")
    assert (found["driver"], found["recommended"], found["fits"][0]["basis"]) == ("580.65.06", "cu121", "measured")


def test_results_that_were_named_add_their_images(fleet: Path) -> None:
    folder = fleet / "elsewhere"
    image = make_image("own", ref="example.org/own:1")
    write_plan(folder, make_plan(images=(image,), runners=(make_runner("a800", "A800 80GB", None),)))
    measure(folder, "own", 1_020)
    found = document("--results", "elsewhere", "--gpu", "A800 80GB", "--driver", "580.65.06")
    assert [choice["image"] for choice in found["fits"]] == ["own", NEW, MID, OLD]


def test_the_machine_s_own_python_is_no_image(empty_folder: Path) -> None:
    """The demo runs it by the local engine; nobody can pull `local/this-python`, and no registry is asked for it."""
    folder = empty_folder / "demo"
    own = make_image("this-python", ref="local/this-python")
    image = make_image("cu121", ref="pytorch/pytorch:2.2.0-cuda12.1-cudnn8-runtime")
    runners = (make_runner("a800", "A800 80GB", None), make_runner("here", None, None))
    write_plan(folder, make_plan(images=(image, own), runners=runners))
    write_result(folder, make_result("this-python@here", engine=EngineName.LOCAL, gpu=None))
    measure(folder, "cu121", 1_020, engine=EngineName.SIMULATED)
    done = recommend("--results", "demo", "--gpu", "A800 80GB", "--driver", "470.129.06")
    assert "this-python" not in done.stdout + done.stderr
    found = document("--results", "demo", "--gpu", "A800 80GB", "--driver", "470.129.06")
    assert [choice["image"] for choice in (*found["fits"], *found["does_not_fit"], *found["unknown"])] == ["cu121"]


def test_what_the_local_engine_ran_is_no_trial_of_the_image(fleet: Path) -> None:
    measure(fleet / "results", OLD, 980, engine=EngineName.LOCAL)
    assert {choice["basis"] for choice in document("--gpu", "A800 80GB", "--driver", "580.65.06")["fits"]} <= {
        "predicted"
    }


def test_the_driver_of_simulated_results_is_better_than_none(empty_folder: Path) -> None:
    image = make_image("cu121", ref="pytorch/pytorch:2.2.0-cuda12.1-cudnn8-runtime")
    folder = empty_folder / "demo"
    write_plan(folder, make_plan(images=(image,), runners=(make_runner("a800", "A800 80GB", None),)))
    measure(folder, "cu121", 1_020, engine=EngineName.SIMULATED)
    found = document("--results", "demo", "--gpu", "A800 80GB")
    assert (found["driver"], found["fits"][0]["basis"]) == ("580.65.06", "simulated")


def test_no_line_is_endless_and_no_source_is_told_twice(fleet: Path) -> None:
    text = recommend("--gpu", "A800 80GB", "--driver", "470.129.06").stdout
    assert max(len(line) for line in text.splitlines()) <= 110  # an address is not broken
    assert text.count("https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html") == 1
    assert "this host" not in text


@pytest.mark.parametrize(
    ("configured", "arguments", "hint"),
    [
        (False, (), "--config"),
        (True, (), "the runners have: A800 80GB, RTX 3090"),
        (True, ("--gpu", "RTX 4090"), "--driver"),
    ],
)
def test_what_is_not_known_is_asked_for(
    configured: bool, arguments: tuple[str, ...], hint: str, empty_folder: Path
) -> None:
    if configured:
        write_fleet(empty_folder)
    error = CliRunner().invoke(command, ["--offline", *arguments], standalone_mode=False).exception
    assert isinstance(error, ConfigurationError)
    assert hint in error.hint
