from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from cuda_matrix import config_files, matrix
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.schemas import config_schema
from cuda_matrix.starter import starter_files, write_starter

ROOT = Path(__file__).parent.parent


def test_the_starter_is_a_valid_configuration(tmp_path: Path) -> None:
    written = write_starter(tmp_path)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in written) == sorted(starter_files())
    loaded = config_files.load(root=tmp_path)
    assert len(loaded.expansion.cells) == 4
    assert matrix.make_plan(loaded.expansion, loaded.config, tier="pull_request").cells
    assert json.loads((tmp_path / "matrix/schema.json").read_text(encoding="utf-8")) == config_schema()


@pytest.mark.parametrize(
    "name", [name for name in starter_files() if name.startswith("matrix/") and name.endswith(".yml")]
)
def test_what_is_commented_out_is_valid_too(tmp_path: Path, name: str) -> None:
    """Uncomment every line that looks like YAML; the examples name runners and images of each other's files."""
    write_starter(tmp_path)
    (tmp_path / "matrix/runners.yml").write_text(
        "version: 1\nrunners: {rtx4090: {labels: [x]}, a800: {labels: [y]}}\n", encoding="utf-8"
    )
    if name != "matrix/runners.yml":
        lines = (tmp_path / name).read_text(encoding="utf-8").splitlines()
        text = "\n".join(
            line.replace("# ", "", 1) if line.lstrip().startswith(("# ", "#  ")) and is_example(line) else line
            for line in lines
        )
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert text.count("# ") < "\n".join(lines).count("# ")
    config_files.load(root=tmp_path)


def is_example(line: str) -> bool:
    text = line.lstrip().removeprefix("# ").lstrip()
    return text.startswith("- ") or text.split(" ")[0] in {
        "exclude:",
        "paths:",
        "ref:",
        "variants:",
        "cu118:",
        "cu121:",
        "expect_fail:",
    }


def test_the_workflow_is_the_documented_one() -> None:
    ours = yaml.safe_load(starter_files()[".github/workflows/gpu-matrix-nightly.yml"])
    assert ours == yaml.safe_load((ROOT / "workflows/nightly.yml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "there", ["matrix/runners.yml", "matrix/mine.yaml", "cuda-matrix.yml", ".github/workflows/gpu-matrix-nightly.yml"]
)
def test_nothing_is_overwritten_or_half_written(tmp_path: Path, there: str) -> None:
    (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / there).write_text("mine")
    with pytest.raises(ConfigurationError, match=there) as caught:
        write_starter(tmp_path)
    assert caught.value.hint
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / there]
    assert (tmp_path / there).read_text() == "mine"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot write"):
        write_starter(tmp_path / "file")


def test_this_repositorys_own_matrix() -> None:
    loaded = config_files.load(ROOT / "matrix")
    assert len(loaded.expansion.cells) == 9
