from __future__ import annotations

import base64
import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import make_diagnosis, make_facts, make_plan, make_result
from cuda_matrix.model import CheckStatus, Verdict
from cuda_matrix.reference import load_tree
from cuda_matrix.report import mermaid
from cuda_matrix.report.html import render_html
from cuda_matrix.report.jsonform import render_json
from cuda_matrix.report.markdown import render_markdown
from cuda_matrix.report.mermaid import chart
from cuda_matrix.report.view import Section, View, Way, WayStep
from cuda_matrix.report.way import way
from cuda_matrix.result import CheckResult
from cuda_matrix.tree import Known, walk
from report_cases import HOSTILE, hostile, mixed, view_of

LIBRARY = os.environ.get("CUDA_MATRIX_TEST_MERMAID", "")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
# What means something to Mermaid or to the browser below it, alone and in the places where labels stand.
ATTACKS = (
    *(
        '"',
        '"]',
        '"]:::wrong\n  click q0 call alert(1)',
        "end",
        "`**b**`",
        "]:::open",
        "a\nend\nsubgraph x",
        "-->",
        "==>",
    ),
    *(
        "%%{init: {'securityLevel': 'loose'}}%%",
        "%% comment",
        "#quot;",
        "#35;#60;script#62;",
        "&lt;b&gt;",
        "&#60;img&#62;",
    ),
    *(
        "<img src=x onerror=alert(1)>",
        "<script>alert(1)</script>",
        "$$x^2$$",
        "fa:fa-car",
        "click q0 href 'javascript:0'",
    ),
    *(
        "style q0 fill:#f00;",
        "classDef way fill:#000;",
        "A@{ shape: circle }",
        "---\ntitle: x\n---",
        "1. list",
        "- list",
    ),
    *(
        "\\",
        "\\n",
        "|",
        "~~~",
        "__b__ *i* ~s~",
        "a & b --> c",
        "{{x}}",
        "((x))",
        ";",
        "accDescr: x",
        "\u2028end",
        "",
        " ",
    ),
    HOSTILE,
)


def failed(cell: str) -> View:
    images = tuple(f"{cell}{number}" for number in range(mermaid.CHARTS + 5))
    checks = (CheckResult(id="first-kernel", status=CheckStatus.FAIL),)
    facts = make_facts(driver="470.129.06", python="3.11", nvidia_smi="ok")
    results = tuple(
        make_result(f"{image}@rtx4090", Verdict.FAIL, diagnosis=make_diagnosis(), checks=checks, facts=facts)
        for image in images
    )
    return view_of(make_plan(images=images), results)


def way_saying(text: str) -> Way:
    """A way whose every text is `text`, as no tree of ours has it."""
    step = WayStep("works", text, text, text, text, bad=True, others=((text, text), (text, text)))
    return Way((step, step), text, found=True)


def charts(view: View) -> list[str]:
    return [chart(section.way) for section in view.failures if section.way]


def ways() -> list[Way]:
    """One for each question of the tree: the way ends there, for want of an answer."""
    tree = load_tree()
    found = []
    for answers in ({}, {"works": "no"}, {"works": "no", "started": "no"}, {"works": "yes"}):
        known = {node.id: Known(answer="yes", evidence="e") for node in tree.nodes}
        known.update({node: Known(answer=answer, evidence="e") for node, answer in answers.items()})
        found.append(way(walk(tree, known), tree))
    return found


def test_the_way_taken_stands_first_and_is_drawn_thick() -> None:
    lines = charts(mixed())[0].splitlines()
    assert lines[0] == "flowchart TD"
    edges = [line for line in lines if re.search(r"==>|-->|-\.->", line)]
    taken = [line for line in edges if "-.->" not in line]
    assert edges[: len(taken)] == taken  # linkStyle counts edges in the order in which they stand
    assert f"linkStyle {','.join(str(n) for n in range(len(taken)))} " in lines[-1]
    assert taken[-1].strip() == 'q5 == "no" ==> e'
    assert any("driver 470.129.06, CUDA 12.1 needs 525.60.13" in line for line in lines)
    assert "driver-too-old" in next(line for line in lines if line.startswith("  e(["))


def test_an_answer_that_was_not_seen_says_so() -> None:
    text = charts(mixed())[0]
    assert 'q4 -- "yes (by the diagnosis)" --> q5' in text
    assert '"no (nothing was seen)"' in charts(mixed())[1]
    assert "class e open" in charts(mixed())[1]


@given(st.text(max_size=400) | st.sampled_from(ATTACKS))
def test_no_text_leaves_its_label(text: str) -> None:
    for line in chart(way_saying(text)).splitlines():
        labels = re.findall(r'"([^"]*)"', line)
        rest = re.sub(r'"[^"]*"', "", line)
        assert line.count('"') == 2 * len(labels)
        assert re.fullmatch(r"[A-Za-z0-9 \[\]()|:;.,=<>#-]*", rest)
        for shown in [part for label in labels for part in label.split("<br/>", 1)]:
            assert shown.strip()
            assert not re.search(r"[<>&#;`${}\[\]|*~\\\n\r]|%%|__|--|::", shown)
            assert len(shown) <= mermaid.LABEL + mermaid.EVIDENCE


def test_every_failed_cell_has_its_way_in_every_format() -> None:
    view = mixed()
    sections = [section for section in view.failures if section.way]
    assert {s.verdict for s in sections} == {Verdict.FAIL, Verdict.EXPECTED_FAIL}
    assert render_markdown(view).count("```mermaid\nflowchart TD\n") == len(sections)
    page = render_html(view)
    assert page.count('<ol class="way">') == len(sections)
    document = json.loads(render_json(view))
    assert [row["cell"] for row in document["ways"]] == [section.cell for section in sections]
    (old,) = [row for row in document["ways"] if row["cell"] == "torch2.2.0-cu121@a800"]
    assert old["leaf"] == "driver-old"
    assert old["steps"][-1] == {
        "node": "floor",
        "question": load_tree().node("floor").question,  # type: ignore[union-attr]
        "answer": "no",
        "how": "seen",
        "evidence": "driver 470.129.06, CUDA 12.1 needs 525.60.13",
    }
    assert html.escape(old["steps"][-1]["evidence"]) in page


def test_a_cell_that_is_good_has_no_way() -> None:
    view = view_of(make_plan(images=("a",), runners=("r",)), (make_result("a@r"),))
    assert json.loads(render_json(view))["ways"] == []
    assert "mermaid" not in render_markdown(view)


def test_a_page_has_only_so_many_charts_and_the_rest_in_words() -> None:
    text = render_markdown(failed("torch"))
    assert text.count("```mermaid") == mermaid.CHARTS
    assert text.count("→ **The driver is below the floor") == 5
    assert text.count("<summary>The way down the diagnosis tree</summary>") == mermaid.CHARTS + 5


def test_a_chart_stays_below_mermaid_s_limits() -> None:
    # https://mermaid.js.org/config/schema-docs/config.html: maxTextSize 50 000 characters, maxEdges 500
    step = WayStep("n", "W" * 9999, "W" * 9999, "W" * 9999, "W" * 9999, bad=True, others=(("W" * 999, "W" * 999),) * 2)
    text = chart(Way((step,) * len(load_tree().nodes), "W" * 9999, found=True))
    assert len(text) < 50_000
    assert len(re.findall(r"[-=.]>", text)) < 500


def test_hostile_text_opens_no_second_fence() -> None:
    blocks = re.findall(r"^(`{3,})mermaid\n(.*?)\n\1$", render_markdown(hostile()), re.MULTILINE | re.DOTALL)
    assert blocks
    assert all("`" not in body for _, body in blocks)


@pytest.mark.skipif(
    not (LIBRARY and BROWSER), reason="CUDA_MATRIX_TEST_MERMAID (mermaid.min.js) or chromium is not set up"
)
def test_mermaid_itself_draws_every_chart(tmp_path: Path) -> None:
    sections: list[Section] = [*mixed().failures, *hostile().failures, *failed("torch").failures[:1]]
    texts = [chart(section.way) for section in sections if section.way]
    texts += [chart(each) for each in ways()]
    attacks = [chart(way_saying(text)) for text in ATTACKS]
    drawn = draw([*texts, *attacks], tmp_path)
    assert [each["error"] for each in drawn] == [""] * len(drawn)
    for each, text in zip(drawn, [*texts, *attacks], strict=True):
        boxes = set(re.findall(r"^  (e|q\d+|o\d+x\d+)[\[(]", text, re.MULTILINE)) | set(
            re.findall(r" (o\d+x\d+)\[", text)
        )
        assert each["nodes"] == len(boxes)
        assert each["edges"] == len(re.findall(r"==>|-->|-\.->", text))
        assert each["active"] == 0
    assert "driver 470.129.06, CUDA 12.1 needs 525.60.13" in drawn[0]["text"]
    assert "‹script›alert(1)‹/script›" in drawn[len(texts) + ATTACKS.index("<script>alert(1)</script>")]["text"]
    assert "nvidia_uvm" in draw([chart(way_saying("modprobe nvidia_uvm"))], tmp_path)[0]["text"]


def draw(texts: list[str], folder: Path) -> list[dict[str, object]]:
    """What Mermaid in a browser makes of each: error, boxes, edges, text, and elements that can do something."""
    page = """<!doctype html><meta charset="utf-8"><div id="all"></div><pre id="out"></pre>
<script src="LIBRARY"></script><script>
mermaid.initialize({startOnLoad: false, securityLevel: "strict"});
(async () => {
  const out = [];
  for (const [i, text] of CHARTS.entries()) {
    const box = document.createElement("div");
    document.getElementById("all").append(box);
    try {
      box.innerHTML = (await mermaid.render("m" + i, text)).svg;
      out.push({error: "", nodes: box.querySelectorAll("g.node").length,
        edges: box.querySelectorAll("path.flowchart-link").length,
        active: box.querySelectorAll("script, img, a, iframe, i, [onclick], [onerror], .clickable, .katex").length,
        text: [...box.querySelectorAll(".nodeLabel")].map(e => e.innerText).join("\\n")});
    } catch (error) { out.push({error: String(error)}); }
  }
  document.getElementById("out").textContent = btoa(unescape(encodeURIComponent(JSON.stringify(out))));
})();
</script>"""
    charts_json = json.dumps(texts).replace("<", "\\u003c")
    file = folder / "charts.html"
    file.write_text(page.replace("LIBRARY", Path(LIBRARY).resolve().as_uri()).replace("CHARTS", charts_json))
    assert BROWSER is not None
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--virtual-time-budget=60000", "--dump-dom", file.as_uri()]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    match = re.search(r'<pre id="out">([A-Za-z0-9+/=]+)</pre>', told)
    assert match, told[-2000:]
    found: list[dict[str, object]] = json.loads(base64.b64decode(match[1]))
    return found
