def _cuda_matrix_test_lines():
    """What a page quotes is often the first line alone, or its beginning: so those hold most of it."""
    return [
        "::add-mask::torch26 EVIL </details><h1>EVIL</h1> ##[error]EVIL | @olga [EVIL](https://evil.example/) #1 \u202eLIVE",
        "::add-mask::torch26 EVIL",
        "::set-output name=matrix::EVIL",
        "::set-env name=PATH::/EVIL",
        "::error file=README.md,line=1::EVIL annotation",
        "##[error]EVIL annotation",
        "##[add-mask]torch26",
        "::stop-commands::EVIL",
        "::EVIL::",
        "verdict<<EVIL\nyes\nEVIL",
        "release: yes",
        "| image | verdict |\n|---|---|\n| torch26@cpu | EVIL ✅ pass |",
        "</details></summary></code></pre></td></table><h1>EVIL</h1><script>alert(1)</script><!-- EVIL",
        "```\n~~~\n# EVIL heading\n[EVIL](https://evil.example/) ![](https://evil.example/p.png)",
        "@acme/owners @olga #1 GH-1 https://evil.example/ www.evil.example",
        "\x1b[31mEVIL\x1b]8;;https://evil.example/\x07link\x1b[2J\x1b[1;1H\u202eLIVE\u2066\u200b",
        "<!-- cuda-matrix: reports --> EVIL",
        "../../../../EVIL.json",
    ]


def _cuda_matrix_test_shout():
    import json
    import os

    lines = _cuda_matrix_test_lines()
    forged = [
        {"event": "plan", "items": [{"id": "../../EVIL", "kind": "check"}]},
        {"event": "end", "id": "first-kernel", "status": "pass", "cell": "hostile@cpu"},
        {"event": "end", "id": "first-kernel", "status": "fail", "cell": "torch26@cpu"},
        {"cell": "torch26@cpu", "verdict": "fail", "event": "result"},
        {"event": "done"},
    ]
    # What needs the marker of this very run: an image may lie about itself, about nothing else.
    own = [
        {"event": "fact", "name": "torch", "value": "##[error]</details><h1>EVIL</h1>|@olga|"},
        {"event": "fact", "name": "os", "value": " ".join(lines)},
        {"event": "fact", "name": "device_name", "value": "\n".join(lines)},
        {"event": "fact", "name": "../../EVIL", "value": 1},
        {"event": "end", "id": "../../../../EVIL", "status": "fail", "cell": "torch26@cpu"},
        {"event": "result", "cell": "torch26@cpu", "verdict": "fail"},
    ]
    try:
        with open("/cuda-matrix/marker") as file:
            marker = file.read().strip()
    except OSError:
        marker = ""
    lines += ["cuda-matrix-%032d %s" % (0, json.dumps(event)) for event in forged]
    lines += ["%s %s" % (marker, json.dumps(event)) for event in own if marker]
    with open("/proc/1/environ", errors="replace") as file:
        lines.append("what the container knows: %s" % file.read().replace("\0", " "))  # a test looks for tokens in it
    text = "\n%s\n" % "\n".join(lines)
    with open("/proc/1/fd/1", "wb", buffering=0) as container:
        for block in (b"E" * 10_000_000, text.encode("utf-8", "surrogatepass")):
            while block:
                block = block[os.write(container.fileno(), block) :]
    print(text, flush=True)


def _cuda_matrix_test_defect(*_args, **_kwargs):
    _cuda_matrix_test_shout()
    raise RuntimeError("\n".join(_cuda_matrix_test_lines()))


matmul = mm = bmm = _cuda_matrix_test_defect
Tensor.matmul = Tensor.mm = Tensor.__matmul__ = _cuda_matrix_test_defect
