"""Owns the words for what a value is wrong about: pydantic's errors → sentences for the author of a file.

Must not know files or places; it sees one error, the path to it and the model that was asked.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

ValuePath = tuple[str | int, ...]

_LISTED = 8  # names that one message lists
_WORD = re.compile(r"[\w-]+")
_SHOWN = 60  # characters of a wrong value that a message repeats

_EXPECTED = {
    "string_type": "expected text",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "int_parsing": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "finite_number": "expected a finite number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "tuple_type": "expected a list",
    "list_type": "expected a list",
}
_MAPPINGS = ("dict_type", "model_type", "model_attributes_type", "mapping_type")
_EXPECTED |= dict.fromkeys(_MAPPINGS, "expected a mapping (key: value)")


class Flaw(NamedTuple):
    """One thing that the types refuse. `kind` is pydantic's error type; `key` is True where the key is meant."""

    path: ValuePath
    kind: str
    message: str
    key: bool = False


def flaws(model: type[BaseModel], error: ValidationError) -> list[Flaw]:
    """Every error of a validation, as its author should read it."""
    details = error.errors(include_url=False)
    found = []
    for detail in details:
        path, is_key = split_location(detail["loc"])
        is_short = detail["type"] == "too_short"
        if is_short and any(other["loc"][: len(path)] == path for other in details if other is not detail):
            continue  # pydantic counts only valid entries: a list of one wrong entry is not also empty
        is_key = is_key or detail["type"] == "extra_forbidden"
        found.append(Flaw(path, detail["type"], message(model, detail), is_key))
    return found


def dotted(path: ValuePath) -> str:
    """`images[2].axes.cuda[0]`; a key that is not one word is quoted: `runners['a b']`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not _WORD.fullmatch(part):
            text += f"[{part!r}]"
        else:
            text += f".{part}" if text else part
    return text


def listed(names: Iterable[str]) -> str:
    """The first of them, and how many there are where that is not all."""
    found = list(names)
    return ", ".join(found[:_LISTED]) + (f" … ({len(found)})" if len(found) > _LISTED else "")


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'labels'?`, or nothing where no known word is near."""
    found = near(word, known)
    return f"; did you mean {found!r}?" if found is not None else ""


def near(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like this one; None where none is."""
    found = get_close_matches(word, list(known), n=1, cutoff=0.7)
    return found[0] if found else None


def unknown_key(word: str, known: Iterable[str]) -> str:
    """The message for a key that its mapping does not have."""
    names = list(known)
    hint = nearest(word, names)
    if not hint and names:
        hint = f"; known here: {', '.join(names)}"
    return f"unknown key {_cut(repr(word))}{hint}"


def split_location(location: tuple[str | int, ...]) -> tuple[ValuePath, bool]:
    """Pydantic's location → path, and whether the key itself is meant."""
    if location and location[-1] == "[key]":
        return location[:-1], True
    return location, False


def message(model: type[BaseModel], error: ErrorDetails) -> str:
    """One sentence for one error of `model`."""
    kind, context, found = error["type"], error.get("ctx", {}), error["input"]
    path, is_key = split_location(error["loc"])
    if kind == "extra_forbidden":
        return unknown_key(str(path[-1]), _known_keys(model, path[:-1]))
    if kind == "missing":
        return _missing(model, path)
    if kind in {"value_error", "assertion_error"} and "error" in context:
        return str(context["error"])
    if kind in {"literal_error", "enum"}:
        return _one_of(str(context["expected"]), found, is_key=is_key)
    if kind == "string_pattern_mismatch":
        return f"{describe(found)} does not have the expected form{_example(model, path)}"
    return _plain_message(error) + (_indentation(model, path, found) if kind in _MAPPINGS else "")


def _indentation(model: type[BaseModel], path: ValuePath, found: Any) -> str:
    """Wrong indentation in YAML shows as a key beside the entry that it belongs to, and as an empty entry."""
    if not path or not isinstance(path[-1], str):
        return ""
    if path[-1] in _known_keys(model, path):
        return f"; {path[-1]!r} belongs to an entry: indent it deeper, below the entry's name"
    return "; what belongs to it stands on the next lines, indented deeper" if found is None else ""


def _plain_message(error: ErrorDetails) -> str:
    kind, context, found = error["type"], error.get("ctx", {}), error["input"]
    if kind in _EXPECTED:
        return f"{_EXPECTED[kind]}, found {describe(found)}{_way_out(kind, found)}"
    return _limit(kind, context, found) or f"{error['msg'][:1].lower()}{error['msg'][1:]}, found {describe(found)}"


def describe(value: Any) -> str:
    """What a value is, in an author's words."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()}"
    if isinstance(value, int | float):
        return f"the number {_cut(str(value))}"
    if isinstance(value, str):
        return _cut(repr(value))
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list | tuple) else type(value).__name__


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _way_out(kind: str, found: Any) -> str:
    if kind == "string_type" and isinstance(found, bool | int | float):
        return " (put it in quotes)"
    if kind in {"tuple_type", "list_type"} and isinstance(found, str | int | float):
        return f" (write [{_cut(str(found))}])"
    return ""


def _missing(model: type[BaseModel], path: ValuePath) -> str:
    field = _field(model, path)
    meaning = f": {field.description}" if field is not None and field.description else ""
    return f"the key {path[-1]!r} is missing{meaning}"


def _one_of(expected: str, found: Any, *, is_key: bool) -> str:
    choices = re.findall(r"'([^']*)'", expected)
    if is_key:
        return unknown_key(str(found), choices)
    hint = nearest(found, choices) if isinstance(found, str) else ""
    return f"expected {expected}, found {describe(found)}{hint}"


def _example(model: type[BaseModel], path: ValuePath) -> str:
    field = _field(model, path)
    example = field.examples[0] if field is not None and field.examples else None
    return f" (for example {example})" if example is not None else ""


def _limit(kind: str, context: Mapping[str, Any], found: Any) -> str:
    if kind in {"too_short", "string_too_short"}:
        least = context["min_length"]
        if least == 1:
            return "must not be empty"
        return f"needs at least {least} {'characters' if kind == 'string_too_short' else 'entries'}"
    if kind in {"too_long", "string_too_long"}:
        return f"at most {context['max_length']} {'characters' if kind == 'string_too_long' else 'entries'} are allowed"
    bounds = {"greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most")}
    bounds |= {"greater_than": ("gt", "more than"), "less_than": ("lt", "less than")}
    if kind in bounds:
        key, words = bounds[kind]
        return f"must be {words} {context[key]}, found {describe(found)}"
    return ""


def _known_keys(model: type[BaseModel], path: ValuePath) -> list[str]:
    """Keys of the mapping at `path`."""
    return [name for found in _models_at(model, path) for name in found.model_fields]


def _field(model: type[BaseModel], path: ValuePath) -> FieldInfo | None:
    if not path or not isinstance(path[-1], str):
        return None
    models = _models_at(model, path[:-1])
    return next((found.model_fields[path[-1]] for found in models if path[-1] in found.model_fields), None)


def _models_at(model: type[BaseModel], path: ValuePath) -> list[type[BaseModel]]:
    """The models whose keys may stand at `path`, found by walking the annotations."""
    places: list[Any] = [model]
    for part in path:
        places = [below for place in places for below in _below(place, part)]
    return [place for place in places if isinstance(place, type) and issubclass(place, BaseModel)]


def _below(annotation: Any, part: str | int) -> Iterator[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if part in annotation.model_fields:
            yield from _flat(annotation.model_fields[str(part)].annotation)
        return
    arguments = [argument for argument in get_args(annotation) if argument is not Ellipsis]
    is_mapping = get_origin(annotation) is dict
    if arguments and get_origin(annotation) in {dict, list, tuple} and is_mapping == isinstance(part, str):
        yield from _flat(arguments[-1])


def _flat(annotation: Any) -> Iterator[Any]:
    """The alternatives of an annotation, without `Annotated` and `|`."""
    if get_origin(annotation) is Annotated:
        yield from _flat(get_args(annotation)[0])
    elif get_origin(annotation) in {Union, types.UnionType}:
        for argument in get_args(annotation):
            yield from _flat(argument)
    else:
        yield annotation
