"""Owns the template engine: where templates lie, and that nothing reaches a page unescaped.

Must not know what the templates say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cuda_matrix.report import escape


def markdown_environment() -> Environment:
    """Every value is escaped unless it is `escape.Markdown`."""
    environment = _environment(autoescape=False, finalize=_to_markdown)
    environment.filters |= {
        "anchor": escape.anchor,
        "code": escape.code,
        "table_code": escape.table_code,
        "fence": escape.fence,
        "short": escape.short,
        "prose": escape.markdown_prose,
        "link": lambda target, text: escape.link(escape.markdown(text), target),
    }
    return environment


def html_environment() -> Environment:
    """Autoescape, and unseen characters made visible."""
    environment = _environment(autoescape=True, finalize=_to_html)
    environment.filters |= {"short": escape.short, "prose": escape.html_prose}
    return environment


def _environment(*, autoescape: bool, finalize: Callable[[Any], Any]) -> Environment:
    environment = Environment(
        loader=PackageLoader("cuda_matrix"),
        autoescape=autoescape,  # noqa: S701 - off only for Markdown, where `finalize` escapes every value
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.tests["web"] = lambda target: str(target).startswith("https://")
    return environment


def _to_markdown(value: Any) -> Any:
    return value if isinstance(value, escape.Markdown) else escape.markdown(str(value))


def _to_html(value: Any) -> Any:
    return escape.printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
