from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from cuda_matrix import config_files
from cuda_matrix.config import Image, Runner
from cuda_matrix.errors import ConfigurationError

RUNNERS = "version: 1\nrunners:\n  g1: {labels: [g1]}\n  g2: {labels: [g2]}\n"
IMAGES = "version: 1\nimages:\n  - {id: a, ref: a}\n  - id: b\n    ref: b\n    variants: {cu1: {}, cu2: {}}\n"
LABELS = Runner.model_fields["labels"].description
UNQUOTED = 'write the version in quotes: "12.10" (without them YAML reads a number, and 12.10 becomes 12.1)'
SAME_BUT_FOR_CASE = "the image ids 'A' and 'a' differ only in case: they would share a file"
WRONG_VERSION = "this cuda-matrix reads version 1 of the format (write `version: 1`), found"


def write(root: Path, **files: str) -> Path:
    directory = root / "matrix"
    directory.mkdir()
    for name, text in files.items():
        (directory / f"{name}.yml").write_text(dedent(text), encoding="utf-8")
    return directory


def problems(root: Path, **files: str) -> list[str]:
    write(root, **files)
    with pytest.raises(ConfigurationError) as caught:
        config_files.load(root=root)
    prefix = f"{root.as_posix()}/matrix/"
    return [str(each).replace(prefix, "") for each in caught.value.problems]


def test_files_are_merged_and_remember_their_places(tmp_path: Path) -> None:
    directory = write(
        tmp_path, a=IMAGES, b=RUNNERS, c="images:\n  - {id: c, ref: c}\npolicy: {required: [a@g1]}\nexclude:\n"
    )
    loaded = config_files.load(root=tmp_path)
    assert [image.id for image in loaded.config.images] == ["a", "b", "c"]
    assert len(loaded.expansion.cells) == 8
    assert str(loaded.locate(("images", 2, "ref"), False)) == f"{directory.as_posix()}/c.yml:2:18"
    assert str(loaded.locate(("runners", "g2"), True)) == f"{directory.as_posix()}/b.yml:4:3"
    assert loaded.locate(("nowhere",), False).line == 0
    assert [Path(file).name for file in loaded.files] == ["a.yml", "b.yml", "c.yml"]


def test_policy_may_be_spread_over_files(tmp_path: Path) -> None:
    write(tmp_path, a=IMAGES, b=RUNNERS, c="policy: {required: [a@g1]}", d="policy: {tiers: {t: ['*']}}")
    policy = config_files.load(root=tmp_path).config.policy
    assert policy.required == ("a@g1",)
    assert policy.tiers == {"t": ("*",)}


def test_one_file(tmp_path: Path) -> None:
    (tmp_path / "cuda-matrix.yml").write_text(IMAGES + RUNNERS.removeprefix("version: 1\n"))
    assert config_files.load(root=tmp_path).config == config_files.load(tmp_path / "cuda-matrix.yml").config


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "there is no configuration here"),
        (["matrix/readme.txt"], r"holds no \*.yml"),
        (["matrix/.hidden.yml"], r"holds no \*.yml"),
        (["matrix/a.yml", "cuda-matrix.yml"], "both"),
    ],
)
def test_what_to_read_must_be_clear(tmp_path: Path, names: list[str], words: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("version: 1")
    with pytest.raises(ConfigurationError, match=words) as caught:
        config_files.load(root=tmp_path)
    assert caught.value.hint


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no"):
        config_files.load(tmp_path / "gone.yml")


def test_problems_of_two_files_come_together_and_in_order(tmp_path: Path) -> None:
    assert problems(
        tmp_path,
        a="""\
        version: 1
        images:
          - id: t{cuda}
            axes: {cuda: [12.10]}
            ref: x
            lables: 1
        """,
        b="runners:\n  g1: {lables: [g1], gpu: 3090}\n",
    ) == [
        f"a.yml:4:19: images[0].axes.cuda[0]: {UNQUOTED}",
        f"a.yml:6:5: images[0].lables: unknown key 'lables'; known here: {', '.join(Image.model_fields)}",
        f"b.yml:2:7: runners.g1.labels: the key 'labels' is missing: {LABELS}",
        "b.yml:2:8: runners.g1.lables: unknown key 'lables'; did you mean 'labels'?",
        "b.yml:2:27: runners.g1.gpu: expected text, found the number 3090 (put it in quotes)",
    ]


def test_a_file_that_cannot_be_read_does_not_hide_the_others_problems(tmp_path: Path) -> None:
    found = problems(tmp_path, a="version: 1\nimages: [\n", b="runners: {g1: {}}\n")
    assert len(found) == 2
    assert found[0].startswith("a.yml:3:1: not valid YAML")
    assert found[1].startswith("b.yml:1:15: runners.g1.labels: the key 'labels' is missing")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"c": "runners: {g1: {labels: [x]}}"}, ["c.yml:1:11: runners.g1: 'g1' stands twice; first at b.yml:3:3"]),
        (
            {"c": "version: 2"},
            [f"c.yml:1:10: version: {WRONG_VERSION} the number 2"],
        ),
        (
            {"c": "version: true"},
            [f"c.yml:1:10: version: {WRONG_VERSION} the truth value true"],
        ),
        ({"c": "- x"}, ["c.yml:1:1: expected a mapping (key: value) such as `version: 1`, found a list"]),
        ({"c": "polcy: {}"}, ["c.yml:1:1: polcy: unknown key 'polcy'; did you mean 'policy'?"]),
        ({"c": "exclude: {}"}, ["c.yml:1:10: exclude: expected a list, found a mapping"]),
        (
            {"c": "report: {dir: a}", "d": "report: {dir: b}"},
            ["d.yml:1:10: report.dir: 'dir' stands twice; first at c.yml:1:10"],
        ),
    ],
)
def test_merging(tmp_path: Path, files: dict[str, str], expected: list[str]) -> None:
    assert [
        line.replace(f"{tmp_path.as_posix()}/matrix/", "") for line in problems(tmp_path, a=IMAGES, b=RUNNERS, **files)
    ] == expected


def test_version_must_stand_somewhere(tmp_path: Path) -> None:
    found = problems(tmp_path, a="images: [{id: a, ref: a}]", b="runners: {g1: {labels: [x]}}")
    assert found == ["a.yml:1:1: version: the version of the format is missing: write `version: 1` at the top"]


def test_what_the_types_cannot_see_is_said_with_its_place(tmp_path: Path) -> None:
    assert problems(
        tmp_path,
        a=IMAGES + "  - {id: A, ref: a b}\n",
        b=RUNNERS,
        c="""\
        exclude:
          - {image: a, runner: g3, reason: abc}
        include:
          - {image: b, variant: cu3, runner: g1}
          - {image: a, runner: g1}
        policy:
          required: ["a@g3"]
        """,
    ) == [
        f"a.yml:7:10: images[2].id: {SAME_BUT_FOR_CASE} (see a.yml:3:10)",
        "a.yml:7:18: images[2].ref: 'a b' is not an image reference: it holds white space",
        "c.yml:2:24: exclude[0].runner: matches no runner: 'g3'",
        "c.yml:4:25: include[0].variant: 'b' has no variant 'cu3'",
        "c.yml:5:5: include[1]: has no effect: this cell is not excluded, or is included twice",
        "c.yml:7:14: policy.required[0]: 'a@g3' matches no cell; no runner matches 'g3'",
    ]


def test_a_file_that_is_not_yaml_hides_only_what_it_may_hold(tmp_path: Path) -> None:
    known = "{cell: '*', until: '2030-01-01', cause: x, reason: abc}"
    policy = f"policy: {{tiers: {{t: ['a@g9', 'c@g1', 'c@g9']}}, expect_fail: [{known}]}}"
    found = problems(tmp_path, a="images:\n  - {id: b, ref: b}\n  - {id: [\n", b=RUNNERS, c=policy)
    assert [line.split(": ")[:2] for line in found] == [
        ["a.yml:4:1", "not valid YAML"],
        ["c.yml:1:22", "policy.tiers.t[0]"],
        ["c.yml:1:38", "policy.tiers.t[2]"],
        ["c.yml:1:102", "policy.expect_fail[0].cause"],
    ]


def test_a_section_that_stands_twice_is_told_once(tmp_path: Path) -> None:
    text = "images: [{id: a, ref: a}]\nimages: [{id: c, ref: c}]\npolicy: {required: [c@g1, c@g9]}\nx: 1\n"
    assert [line.split(": ")[:2] for line in problems(tmp_path, a=text, b=RUNNERS)] == [
        ["a.yml:2:1", "images"],
        ["a.yml:3:27", "policy.required[1]"],
        ["a.yml:4:1", "x"],
    ]


@pytest.mark.parametrize("section", ["images", "runners"])
def test_a_section_that_is_missing_is_told_once(tmp_path: Path, section: str) -> None:
    files = {"images": IMAGES, "runners": RUNNERS}
    del files[section]
    (line,) = problems(
        tmp_path, **files, policy="policy: {required: [a@g1]}\nexclude: [{image: a, runner: g2, reason: abc}]"
    )
    assert f"{section}: the key '{section}' is missing" in line


@pytest.mark.parametrize(("section", "word"), [("images", "image"), ("runners", "runers"), ("exclude", "excludes")])
def test_a_section_with_another_name_is_told_once(tmp_path: Path, section: str, word: str) -> None:
    rest = "exclude: [{image: a, runner: g2, reason: abc}]\ninclude: [{image: a, runner: g2}]\n"
    texts = {"a": IMAGES, "b": RUNNERS, "c": rest}
    found = problems(tmp_path, **{name: text.replace(f"{section}:", f"{word}:") for name, text in texts.items()})
    assert [line for line in found if "is missing" not in line] == [
        line for line in found if f"{word}: unknown key" in line
    ]


def test_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to(tmp_path / "x")
    with pytest.raises(ConfigurationError):
        config_files.load(tmp_path / "x")


def test_a_dangling_link_is_an_error_and_no_absent_file(tmp_path: Path) -> None:
    (tmp_path / "matrix").mkdir()
    (tmp_path / "matrix/a.yml").write_text(
        "version: 1\nimages: [{id: a, ref: 'e.org/a:1'}]\nrunners: {r: {labels: [x]}}\n"
    )
    (tmp_path / "matrix/b.yml").symlink_to(tmp_path / "nowhere.yml")
    with pytest.raises(ConfigurationError) as caught:
        config_files.load(tmp_path / "matrix")
    assert [problem.message for problem in caught.value.problems] == ["cannot be read: No such file or directory"]


# ---- where images are configured


def places(folder: Path, monkeypatch: pytest.MonkeyPatch, config: str | Path | None = None) -> dict[str, str]:
    monkeypatch.chdir(folder)
    images = config_files.load(config).expansion.images
    return {key: f"{row.place.file}:{row.place.line}" if row.place else "" for key, row in images.items()}


AXES = "images:\n  - {id: c, ref: c}\n\n  -\n    id: 'd{n}'\n    ref: d\n    axes: {n: ['1', '2']}\n"


def test_every_image_knows_the_line_of_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, a=IMAGES, b=RUNNERS, c=AXES)
    first = {"a": "matrix/a.yml:3", "b+cu1": "matrix/a.yml:4", "b+cu2": "matrix/a.yml:4"}
    assert places(tmp_path, monkeypatch) == first | {
        "c": "matrix/c.yml:2",
        "d1": "matrix/c.yml:5",
        "d2": "matrix/c.yml:5",
    }
    assert places(tmp_path, monkeypatch, tmp_path / "matrix") == places(tmp_path, monkeypatch, "./matrix")


def test_places_begin_at_the_top_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "gpu").mkdir()
    write(tmp_path / "gpu", a=IMAGES, b=RUNNERS)
    assert places(tmp_path / "gpu", monkeypatch)["a"] == "gpu/matrix/a.yml:3"
    (tmp_path / "other").mkdir()
    assert places(tmp_path / "other", monkeypatch, "../gpu/matrix")["a"] == "gpu/matrix/a.yml:3"


def test_a_configuration_outside_the_checkout_has_no_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / ".git").mkdir()
    write(tmp_path, a=IMAGES, b=RUNNERS)
    assert set(places(tmp_path / "here", monkeypatch, "../matrix").values()) == {""}


def test_a_file_whose_name_cannot_be_shown_is_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, **{"a\u202e": IMAGES, "b": RUNNERS})
    assert places(tmp_path, monkeypatch)["a"] == ""
