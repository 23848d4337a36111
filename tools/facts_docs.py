"""Writes docs/causes.md and docs/compatibility-rules.md from the tables of facts: `make docs`.

tests/test_facts_docs.py compares them with the tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from cuda_matrix.architectures import Architecture, Capability
from cuda_matrix.catalogue import Cause, ExitSign, Signature
from cuda_matrix.facts import Fact
from cuda_matrix.reference import load_reference
from cuda_matrix.releases import TorchRelease, Variant
from cuda_matrix.rules import Rule
from cuda_matrix.tables import Reference

DOCS = Path(__file__).resolve().parent.parent / "docs"
_PHASES = {
    "pull": "While the image is pulled",
    "start": "While the container is created and started",
    "import": "While Python imports",
    "build": "While something is compiled",
    "run": "While the work runs",
}
_CAUSES = """# Causes

Why a cell fails, one section each: who has to act, how the cause is recognised, and what to do. Codes are stable.
Generated from `src/cuda_matrix/data/causes.yml` (`make docs`).

**Side** says who has to act: the image, the host, the registry, the configuration. It decides between `fail` (the
image does not work) and `host-failed` (nothing is said about the image). **Phase** is when the cause shows;
evidence of another phase never means it.

The signs are case-insensitive regular expressions, tried on each line of the output. The sign with the highest
priority wins, then the earliest line; the confidence says how often the words mean this cause and no other. A
*symptom* is something that is seen, not why: any cause that is more specific wins over it. Where nothing matches,
the answer is `unknown`, with what to collect next.
"""
_RULES = """# Compatibility rules

What decides whether an image runs on a machine, and the tables behind it. Predictions cite the rules by their id.
Generated from `src/cuda_matrix/data/` (`make docs`).

Each rule and each row says how certain it is. **verified**: the artefact itself was examined or measured.
**documented**: the vendor's page. **secondary**: a copy, or a third party's table. **uncertain**: plausible, not
confirmed; no cell fails on it alone. A row of a table that is neither verified nor documented says so in its
remark.
"""


def causes_page(reference: Reference) -> str:
    """The whole of docs/causes.md."""
    causes = list(reference.catalogue.causes.values())
    parts = [_CAUSES, _overview(causes)]
    for phase, title in _PHASES.items():
        parts.append(f"## {title}\n")
        parts += [_cause(cause) for cause in causes if cause.phase[0] == phase]
    return "\n".join(parts)


def rules_page(reference: Reference) -> str:
    """The whole of docs/compatibility-rules.md."""
    tables: Iterable[Callable[[Reference], str]] = (
        _toolkits,
        _floors,
        _branches,
        _forward,
        _brands,
        _architectures,
        _releases,
        _aarch64,
        _schemes,
        _ngc,
        _systems,
    )
    rules = [_rule(rule) for rule in reference.rules.values()]
    return "\n".join([_RULES, "## Rules\n", *rules, *(table(reference) for table in tables)])


PAGES: dict[str, Callable[[Reference], str]] = {"causes.md": causes_page, "compatibility-rules.md": rules_page}


def code(text: str) -> str:
    """`text` as Markdown shows it letter by letter, backticks included."""
    runs = re.findall(r"`+", text)
    fence = "`" * (max(map(len, runs), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table; a pipe in a cell is escaped."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _sources(texts: Iterable[str]) -> str:
    """Each text, its address as a link: a bare address loses its end in some renderers."""
    return "; ".join(re.sub(r"https://[^\s()]+", lambda match: f"<{match[0]}>", text) for text in texts)


def _keys(reference_sources: dict[str, str]) -> str:
    return "Sources: " + _sources(reference_sources.values()) + "\n"


def _remark(row: Fact) -> str:
    """What a reader must know of a row beyond its figures."""
    doubt = "" if row.certainty in {"verified", "documented"} else row.certainty
    return "; ".join(text for text in (doubt, row.note) if text)


def _overview(causes: list[Cause]) -> str:
    rows = (
        (f"[`{cause.code}`](#{_anchor(cause)})", cause.title, cause.side, ", ".join(cause.phase)) for cause in causes
    )
    return table(("code", "what", "side", "phase"), rows)


def _heading(cause: Cause) -> str:
    return f"`{cause.code}`: {cause.title}"


def _anchor(cause: Cause) -> str:
    """As GitHub makes it of the heading: lower case, without punctuation, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", _heading(cause).lower()).replace(" ", "-")


def _cause(cause: Cause) -> str:
    kind = " · a symptom" if cause.symptom else ""
    lines = [f"### {_heading(cause)}", "", f"Side: {cause.side} · phase: {', '.join(cause.phase)}{kind}", ""]
    lines += [cause.explanation.strip(), ""]
    signs = [_sign(sign) for sign in cause.signatures] + [_exit(sign) for sign in cause.exits]
    if signs:
        lines += ["**Recognised by**", "", *signs, ""]
    else:
        lines += ["Recognised by what the checks and the engine report, not by words in the output.", ""]
    lines += ["**What to do**", "", *_steps(cause.known_fix, cause.fix)]
    lines += [f"Sources: {_sources(cause.sources)}", ""]
    for name, case in cause.cases.items():
        lines += [f"#### {case.title or cause.title} (`{name}`)", ""]
        lines += [case.explanation, ""] if case.explanation else []
        lines += _steps(case.known_fix, case.fix)
        lines += [f"Source: {_sources([case.source])}", ""] if case.source else []
    return "\n".join(lines)


def _steps(known_fix: tuple[str, ...], fix: tuple[str, ...]) -> list[str]:
    """What to do, numbered; a step that names facts of the case (`{driver}`) is only given where they are known."""
    steps = [re.sub(r"\{(\w+)\}", r"<\1>", step).replace("<", "&lt;").replace(">", "&gt;") for step in known_fix]
    return [*(f"{number}. {step}" for number, step in enumerate((*steps, *fix), start=1)), ""]


def _sign(sign: Signature) -> str:
    conditions = [f"where another line has {code(sign.also)}"] if sign.also else []
    conditions += [f"where it is told that {code(sign.told)}"] if sign.told else []
    joined = ", ".join([code(sign.pattern), *conditions])
    case = f", case `{sign.case}`" if sign.case else ""
    return f"- {joined} (priority {sign.priority}, confidence {sign.confidence:g}{case})"


def _exit(sign: ExitSign) -> str:
    told = [
        f"exit code {sign.code}" if sign.code is not None else "",
        f"signal {sign.signal}" if sign.signal is not None else "",
        "the engine saw the memory limit end it" if sign.oom_killed else "",
        "it ran out of time" if sign.timed_out else "",
    ]
    text = ", ".join(part for part in told if part)
    return f"- {text} (priority {sign.priority}, confidence {sign.confidence:g})"


def _rule(rule: Rule) -> str:
    return f"### `{rule.id}`: {rule.title}\n\n{rule.text.strip()}\n\n{rule.certainty}: {_sources(rule.sources)}\n"


def _toolkits(reference: Reference) -> str:
    rows = ((row.cuda, row.release, row.driver, _remark(row)) for row in reference.drivers.toolkits)
    text = (
        "## Toolkit → driver\n\nThe driver that is packaged and tested with each toolkit: what *all* of its features\n"
        "need. It is not the lowest driver that runs a program built with it; that is the floor below. CUDA 12.7 was\n"
        "never released.\n"
    )
    return f"{text}\n{table(('CUDA', 'release', 'packaged driver', 'remark'), rows)}"


def _floors(reference: Reference) -> str:
    rows = ((row.cuda_major, row.driver, _remark(row)) for row in reference.drivers.floors)
    text = (
        "## Floors\n\nThe lowest driver for programs of any toolkit of one CUDA major (rules `minor-version`, "
        "`minor-version-limits`).\nBefore CUDA 11 there is none.\n"
    )
    return f"{text}\n{table(('CUDA major', 'lowest driver', 'remark'), rows)}"


def _branches(reference: Reference) -> str:
    support = {row.branch: row for row in reference.drivers.support}
    rows = []
    for row in reference.drivers.branches:
        kept = support.get(row.branch)
        end = (kept.eol or ("over" if kept.ended else "")) if kept else ""
        remark = "; ".join(text for text in (_remark(row), _remark(kept) if kept else "") if text)
        rows.append((f"R{row.branch}", row.cuda, (kept.kind or "") if kept else "", end, remark))
    text = "## Driver branches\n\nThe newest CUDA that drivers of a branch report, and how long NVIDIA maintains it.\n"
    return f"{text}\n{table(('branch', 'CUDA', 'kind', 'ends', 'remark'), rows)}"


def _forward(reference: Reference) -> str:
    forward = reference.drivers.forward
    rows = ((row.kind, row.supported, _remark(row)) for row in forward.classes)
    text = (
        "## Forward compatibility\n\nWhich cards the packages `cuda-compat-X-Y` are for, "
        f"since CUDA {forward.first_cuda} (rule `forward-compat`).\n"
    )
    cards = f"{text}\n{table(('kind of card', 'supported', 'remark'), rows)}"
    branches = ((row.cuda, ", ".join(row.branches), _remark(row)) for row in forward.accepts)
    about = (
        "Which driver branches NVIDIA's own images name for the package of their CUDA; for any other, nobody says.\n"
    )
    return f"{cards}\n{about}\n{table(('package of CUDA', 'branches', 'remark'), branches)}"


def _brands(reference: Reference) -> str:
    rows = ((row.kind, ", ".join(row.brands), _remark(row)) for row in reference.drivers.brands)
    text = (
        "## Brands\n\nWhat the driver may call the cards of one kind, as `brand=` of NVIDIA_REQUIRE_* means it "
        "(rule `require-brand`).\n"
    )
    return f"{text}\n{table(('kind of card', 'brand', 'remark'), rows)}\n{_keys(reference.drivers.sources)}"


def _architectures(reference: Reference) -> str:
    rows = [
        _generation(architecture, row)
        for architecture in reference.architectures.rows
        for row in architecture.capabilities
    ]
    head = ("architecture", "capability", "first toolkit", "removed in", "last driver branch", "remark")
    text = "## Architectures\n\nWhich toolkits make code for a card, and which drivers know it.\n"
    return f"{text}\n{table(head, rows)}\n{_keys(reference.architectures.sources)}"


def _generation(architecture: Architecture, row: Capability) -> tuple[str, ...]:
    last = f"R{architecture.last_branch}" if architecture.last_branch else "–"
    apart = "exact code alone" if row.exact else ""
    family = f"family of {row.family}" if row.family else ""
    remark = "; ".join(text for text in (apart, family, _remark(row)) if text)
    return (architecture.name, row.capability, row.first_toolkit or "?", row.removed_in or "–", last, remark)


def _releases(reference: Reference) -> str:
    text = (
        "## PyTorch releases\n\nThe CUDA builds of each release for Linux x86_64, and the compute capabilities with\n"
        "machine code of their own in each. The build in bold is what a plain `pip install torch` gives. A pair\n"
        "that is not here was never published, unless the list of builds is uncertain (below).\n"
    )
    head = ("torch", "Python", "build", "CUDA", "cuDNN", "NCCL", "capabilities", "remark")
    rows = [_build(release, variant) for release in reference.releases.releases for variant in release.variants]
    notes = [f"- {row.torch}: {_remark(row)}" for row in reference.releases.releases if _remark(row)]
    return f"{text}\n{table(head, rows)}\nOf the lists of builds:\n\n" + "\n".join(notes) + "\n"


def _build(release: TorchRelease, row: Variant) -> tuple[str, ...]:
    name = f"**{row.variant}**" if row.variant == release.pypi_default else row.variant
    python = f"{release.python_min}–{release.python_max}"
    capabilities = " ".join(row.sm) or "not known"
    return (release.torch, python, name, row.cuda, row.cudnn or "", row.nccl or "", capabilities, _remark(row))


def _aarch64(reference: Reference) -> str:
    rows = (
        (", ".join(row.cuda), f"from {row.since_torch} on", " ".join(row.sm), _remark(row))
        for row in reference.releases.aarch64
    )
    text = "### For Linux aarch64\n\nThe lists differ. Of builds that are not here, the machine code is not known.\n"
    return f"{text}\n{table(('CUDA', 'torch', 'capabilities', 'remark'), rows)}\n{_keys(reference.releases.sources)}"


def _schemes(reference: Reference) -> str:
    lines = ["## Tags\n", "What the tags of known repositories say.\n"]
    for row in reference.schemes.schemes:
        lines += [f"### {row.title} (`{row.id}`, {row.certainty})\n", "For example:\n"]
        lines += [f"- {code(example)}" for example in row.examples]
        lines += ["", "To be known:\n", *(f"- {trap}" for trap in row.traps), ""]
    return "\n".join(lines)


def _ngc(reference: Reference) -> str:
    rows = (
        (f"{row.release}-py3", row.torch or "?", row.cuda or "?", row.cuda_driver or "", _remark(row))
        for row in reference.schemes.ngc
    )
    head = ("tag", "torch", "CUDA", "driver inside", "remark")
    return f"### Months of nvcr.io/nvidia/pytorch\n\n{table(head, rows)}\n{_keys(reference.schemes.sources)}"


def _systems(reference: Reference) -> str:
    systems = ((row.os, row.glibc, _remark(row)) for row in reference.systems.systems)
    wheels = (
        (f"from {row.since_torch} on", row.machine, ", ".join(row.cuda) or "every", row.glibc, row.tag, _remark(row))
        for row in reference.systems.wheels
    )
    head = ("torch", "machine", "CUDA", "glibc", "wheel tag", "remark")
    return (
        "## C libraries\n\nWhat the published wheels of torch need (rule `glibc`), and what systems have.\n\n"
        f"{table(head, wheels)}\n"
        f"{table(('system', 'glibc', 'remark'), systems)}\n{_keys(reference.systems.sources)}"
    )


def main() -> None:
    """Write both pages."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(load_reference()), encoding="utf-8")


if __name__ == "__main__":
    main()
