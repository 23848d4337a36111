from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cuda_matrix.documents import FILE_LIMIT, Document, Place, load_table, parse, read_json, validate
from cuda_matrix.errors import ConfigurationError, Problem
from cuda_matrix.explain import dotted
from cuda_matrix.model import Frozen
from cuda_matrix.yaml_values import DEPTH_LIMIT, PlainFloat, PlainInt


def value(text: str) -> Any:
    return parse(text.encode(), "a.yml").value


def problem(data: str | bytes) -> Problem:
    with pytest.raises(ConfigurationError) as caught:
        parse(data if isinstance(data, bytes) else data.encode(), "a.yml")
    (found,) = caught.value.problems
    assert found.file == "a.yml"
    return found


def aliases(levels: int, width: int) -> str:
    """Each level is a list of `width` aliases of the level before: width ** levels values."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels + 1)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "12",
        "-0x1F",
        "017",
        "1_000",
        "1:30",
        "1.5",
        ".5",
        "1e3",
        "1.0e+3",
        "-.inf",
        "yes",
        "no",
        "on",
        "True",
        "~",
        "null",
        '""',
        "'12'",
    ],
)
def test_scalars_resolve_as_safe_loader_does(text: str) -> None:
    expected = yaml.safe_load(f"a: {text}")["a"]
    found = value(f"a: {text}")["a"]
    assert found == expected
    assert isinstance(found, type(expected))


def test_numbers_keep_their_spelling() -> None:
    found = value("[12.10, 0x10]")
    assert isinstance(found[0], PlainFloat)
    assert isinstance(found[1], PlainInt)
    assert [each.text for each in found] == [str(each) for each in found] == ["12.10", "0x10"]


def test_dates_stay_text_and_sequences_are_tuples() -> None:
    assert value("[2027-01-31, a]") == ("2027-01-31", "a")


def test_keys_are_text_as_written() -> None:
    assert value("{on: 1, 12.10: 2, ~: 3}") == {"on": 1, "12.10": 2, "~": 3}


def test_byte_order_mark_is_accepted_and_moves_no_column() -> None:
    document = parse(b"\xef\xbb\xbfa: 1", "a.yml")
    assert document.value == {"a": 1}
    assert document.locate(("a",), True) == Place("a.yml", 1, 1)


def test_anchors_and_merge_keys() -> None:
    text = "base: &b {x: 1, y: 2}\nother: &o {y: 3, z: 4}\none: {<<: *b, y: 9}\ntwo: {y: 9, <<: [*b, *o]}\n"
    found = value(text)
    assert found["one"] == {"x": 1, "y": 9}
    assert found["two"] == {"x": 1, "y": 9, "z": 4}
    assert parse(text.encode(), "f").locate(("two", "z")) == Place("f", 2, 21)


def test_locate() -> None:
    document = parse(b"a:\n  - x\n  - {k: v}\n", "f")
    assert document.locate(()) == Place("f", 1, 1)
    assert document.locate(("a", 1, "k")) == Place("f", 3, 9)
    assert document.locate(("a", 1, "k"), True) == Place("f", 3, 6)
    assert document.locate(("a", 1, "gone", 4)) == Place("f", 3, 5)
    assert document.locate(("a", 7)) == Place("f", 2, 3)
    assert str(document.locate(("a", 7))) == "f:2:3"


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("", 0, 0, "empty"),
        ("# only a comment\n", 0, 0, "empty"),
        ("---\n", 0, 0, "empty"),
        ("a: 1\n---\nb: 2\n", 2, 1, "second document"),
        ("a: 1\nb: 2\na: 3\n", 3, 1, "'a' stands twice in one mapping; first at line 1, column 1"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, 4, "!!python/object/apply:os.system is not allowed"),
        ("a: !mine x\n", 1, 4, "!mine is not allowed"),
        ("a:\n\t- b\n", 2, 1, "a tab cannot indent"),
        ("a: b: c\n", 1, 5, "not valid YAML"),
        ("a: [1, 2\n", 2, 1, "not valid YAML"),
        ("a: *b\n", 1, 4, "no anchor &b"),
        ("a: &a [*a]\n", 1, 8, "inside its own anchor"),
        ("? [a]\n: 1\n", 1, 3, "a key must be a word"),
        ("a: {<<: 3}\n", 1, 5, "merges a mapping"),
        ("a: 0b_\n", 1, 4, "looks like a number"),
        ("a: 1\nb: \x07\n", 2, 4, "U+0007"),
        ('a: "\\0"\n', 1, 4, "U+0000"),
        (f"a: {'9' * 5000}\n", 1, 4, "looks like a number"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(text: str, line: int, column: int, words: str) -> None:
    found = problem(text)
    assert words in found.message
    assert (found.line, found.column) == (line, column)


@pytest.mark.parametrize("shape", ["[" * 100_000, "- " * 5_000 + "x", "{a: " * 70 + "1" + "}" * 70])
def test_deep_nesting(shape: str) -> None:
    assert f"more than {DEPTH_LIMIT} levels" in problem(shape).message


def test_nesting_by_aliases_counts_too() -> None:
    assert "levels deep" in problem(aliases(levels=DEPTH_LIMIT, width=1)).message


def test_the_deepest_allowed_nesting() -> None:
    assert value("[" * DEPTH_LIMIT + "]" * DEPTH_LIMIT)


def test_yaml_bomb() -> None:
    assert "YAML bomb" in problem(aliases(levels=9, width=9)).message


def test_a_bomb_of_merge_keys() -> None:
    lines = ["m0: &m0 {k0: x}"]
    lines += [f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}], k{n}: x}}" for n in range(1, 10)]
    assert "YAML bomb" in problem("\n".join(lines)).message


def test_too_large() -> None:
    assert "larger than 4 MiB" in problem(b"a" * (FILE_LIMIT + 1)).message


def test_latin_1() -> None:
    found = problem("a: 1\nb: für\n".encode("latin-1"))
    assert (found.line, found.column) == (2, 5)
    assert "not UTF-8: byte 0xfc at offset 9" in found.message


def test_latin_1_behind_a_byte_order_mark() -> None:
    found = problem(b"\xef\xbb\xbfa: \xfc")
    assert "offset 6" in found.message


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_give_a_document_or_a_problem(data: bytes) -> None:
    with suppress(ConfigurationError):
        assert isinstance(parse(data, "f"), Document)


YAML_PIECES = [
    "a",
    "b",
    ": ",
    "- ",
    "\n",
    "  ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "&x ",
    "*x",
    "!!str ",
    "<<",
    '"',
    "'",
    "|",
    ">",
    "#",
    "? ",
    "1",
    "0x",
    "%",
    "---",
    "\t",
    "\\",
]


@given(st.lists(st.sampled_from(YAML_PIECES), max_size=40).map("".join))
def test_anything_like_yaml_gives_a_document_or_a_problem(text: str) -> None:
    with suppress(ConfigurationError):
        assert parse(text.encode(), "f").value is not None


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="ascii", exclude_categories=["Cc"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=4),
    max_leaves=20,
)


def tuples(found: Any) -> Any:
    if isinstance(found, list):
        return tuple(tuples(each) for each in found)
    return {key: tuples(each) for key, each in found.items()} if isinstance(found, dict) else found


@given(PLAIN.filter(lambda found: found is not None))
def test_what_pyyaml_writes_is_read_back(found: Any) -> None:
    assert value(yaml.safe_dump(found)) == tuples(found)


class Leaf(Frozen):
    labels: tuple[str, ...]
    jobs: int = 1


class Tree(Frozen):
    leaves: dict[str, Leaf] | None = None
    more: tuple[Leaf, ...] | None = None
    left: Leaf | None = None


def problems_of(text: str) -> list[str]:
    document = parse(text.encode(), "t.yml")
    with pytest.raises(ConfigurationError) as caught:
        validate(Tree, document.value, document.locate)
    return [str(each) for each in caught.value.problems]


def test_every_problem_at_once_in_the_order_of_lines() -> None:
    assert problems_of("more:\n  - lables: [a]\nleaves:\n  x:\n    labels: a\n    jobs: two\n") == [
        "t.yml:2:5: more[0].labels: the key 'labels' is missing",
        "t.yml:2:5: more[0].lables: unknown key 'lables'; did you mean 'labels'?",
        "t.yml:5:13: leaves.x.labels: expected a list, found 'a' (write [a])",
        "t.yml:6:11: leaves.x.jobs: expected a whole number, found 'two'",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("leaves: {x: {labels: [], job: 1}}", "t.yml:1:26: leaves.x.job: unknown key 'job'; did you mean 'jobs'?"),
        ("left: {labels: [], zzz: 1}", "t.yml:1:20: left.zzz: unknown key 'zzz'; known here: labels, jobs"),
        ("left: {labels: [12]}", "t.yml:1:17: left.labels[0]: expected text, found the number 12 (put it in quotes)"),
        (
            "left: {labels: [yes]}",
            "t.yml:1:17: left.labels[0]: expected text, found the truth value true (put it in quotes)",
        ),
        ("left: {labels: [a], jobs: '2'}", "t.yml:1:27: left.jobs: expected a whole number, found '2'"),
        (
            "left: {labels: [a], jobs: true}",
            "t.yml:1:27: left.jobs: expected a whole number, found the truth value true",
        ),
        ("left: [a]", "t.yml:1:7: left: expected a mapping (key: value), found a list"),
        (
            "leaves: {a: {labels: [x]}, jobs: 2}",
            (
                "t.yml:1:34: leaves.jobs: expected a mapping (key: value), found the number 2; "
                "'jobs' belongs to an entry: indent it deeper, below the entry's name"
            ),
        ),
        (
            "leaves: {a: null}",
            (
                "t.yml:1:13: leaves.a: expected a mapping (key: value), found nothing (null); "
                "what belongs to it stands on the next lines, indented deeper"
            ),
        ),
    ],
)
def test_messages(text: str, message: str) -> None:
    assert problems_of(text) == [message]


def test_dotted() -> None:
    assert dotted(("images", 2, "axes", "cuda", 0)) == "images[2].axes.cuda[0]"
    assert dotted(("runners", "a b", "jobs")) == "runners['a b'].jobs"


def test_tables_and_json() -> None:
    assert (
        load_table(Leaf, b"labels: [a]", "t.yml")
        == read_json(Leaf, b'{"labels": ["a"]}', "t.json")
        == Leaf(labels=("a",))
    )
    with pytest.raises(ConfigurationError) as caught:
        read_json(Leaf, b'{"labels": ["a"], "jbos": 1}', "t.json")
    assert [str(each) for each in caught.value.problems] == ["t.json: jbos: unknown key 'jbos'; did you mean 'jobs'?"]
    with pytest.raises(ConfigurationError):
        read_json(Leaf, b"{" * 10_000, "t.json")
