"""Bandwidth, launch and start-up: their judgement by numbers, and a real torch on a CPU and on a pretended card."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from bench_lab import CARD, FIXED_CLOCK, benchmarks
from cuda_matrix.payload import bench_launch, bench_memory, bench_startup, figures, timing
from cuda_matrix.reference import load_items

ROWS = {row.id: row for row in load_items().items}


def context(item, device="cuda:0", card=None, **changes):
    row = ROWS[item]
    settings = {
        "device": device,
        "thresholds": dict(row.thresholds),
        "unit": row.unit,
        "higher_is_better": row.higher_is_better,
        "card": card,
    }
    return SimpleNamespace(**{**settings, **changes})


def judged(item, figure_per_second, **keys):
    measurement = timing.Measurement([[1.0] * 20] * 3)
    return figures.judged(context(item, **keys), measurement, figure_per_second, {}, "cuda:0", "")


@pytest.mark.parametrize(
    ("gbs", "changes", "status"),
    [
        (860.0, {}, "pass"),
        (600.0, {}, "warn"),
        (2000.0, {}, "invalid"),  # from the cache, or another card
        (600.0, {"uncertain": ["bandwidth_gbs"]}, "pass"),
        (600.0, {"uncertain": ["memory_gb"]}, "warn"),
        (600.0, None, "pass"),
        (600.0, {"bandwidth_gbs": 0}, "pass"),
    ],
)
@pytest.mark.parametrize("item", ["memory.copy", "memory.triad"])
def test_memory_is_judged_by_the_data_sheet_where_it_is_certain(item, gbs, changes, status):
    card = None if changes is None else {"bandwidth_gbs": 936, "uncertain": [], **changes}
    result = judged(item, gbs, card=card)
    result = figures.against_peak(context(item, card=card), result, figures.card_bandwidth(card))
    assert result["status"] == status
    if status == "warn":
        assert result["thresholds"]["share_warn"] == 0.75


@pytest.mark.parametrize(
    ("generation", "width", "gbs", "status"),
    [
        (4, 16, 26.0, "pass"),
        (4, 16, 12.0, "warn"),
        (3, 16, 12.6, "pass"),
        (4, 8, 12.6, "pass"),
        (5, 16, 55.0, "pass"),
        (3, 1, 12.0, "invalid"),
        (9, 16, 12.0, "pass"),  # a generation that nobody knows yet
        (None, None, 12.0, "pass"),
    ],
)
@pytest.mark.parametrize("item", ["pcie.h2d", "pcie.d2h"])
def test_copies_are_judged_by_the_negotiated_link(item, generation, width, gbs, status):
    peak = bench_memory.link_peak({"pcie_generation": generation, "pcie_width": width})
    result = figures.against_peak(context(item), judged(item, gbs), peak, "the link is not known")
    assert result["status"] == status
    assert (peak is None) == ("share_of_peak" not in result["numbers"])
    if peak is None:
        assert result["numbers"]["peak"] == "not judged: the link is not known"


def test_a_link_has_the_speed_that_the_standard_gives_it():
    for generation, gbs in ((3, 15.8), (4, 31.5), (5, 63.0)):
        peak = bench_memory.link_peak({"pcie_generation": generation, "pcie_width": 16})
        assert peak.value == pytest.approx(gbs, abs=0.06)


@pytest.mark.parametrize(
    ("microseconds", "wrong", "status"), [(4.0, "", "pass"), (25.0, "", "warn"), (4.0, "3 are lost", "fail")]
)
def test_launches(microseconds, wrong, status):
    measurement = timing.Measurement([[microseconds / 1e6] * 20] * 3)
    answer = figures.judged(context("launch"), measurement, 1.0, {}, "cuda:0", "")
    result = bench_launch.judge(context("launch"), answer, wrong)
    assert result["status"] == status
    if status == "fail":
        assert (result["evidence"], result["cause"]) == (wrong, "numerics-wrong")
    else:
        assert result["samples"]["median"] == pytest.approx(microseconds)
        assert result["thresholds"]["launch_us_warn"] == 20


@pytest.mark.parametrize(
    ("seconds", "wrong", "status"),
    [
        ([2.0], "", "pass"),
        ([2.0, 2.1, 2.0], "", "pass"),
        ([2.0, 9.0, 1.0], "", "warn"),
        ([], "", "unknown"),
        ([2.0, -1.0], "", "invalid"),
        ([0.0], "", "invalid"),
        ([math.nan], "", "invalid"),
        ([2.0], "ImportError: no", "fail"),
        ([], "ImportError: no", "fail"),
    ],
)
def test_fresh_processes(seconds, wrong, status):
    result = bench_startup.judge(context("startup.import"), seconds, {"first_s": 5.0}, wrong)
    assert result["status"] == status
    assert result["numbers"] == {"first_s": 5.0, "processes": len(seconds)}
    assert result.get("evidence", "") == wrong or status == "invalid"
    if status in ("pass", "warn"):
        assert result["samples"]["n"] == len(seconds)


def test_what_a_fresh_process_says_is_found_among_what_torch_prints():
    assert bench_startup.said(b'noise\ncuda-matrix-startup {"import_s": 1.5}\nbye\n') == {"import_s": 1.5}
    assert bench_startup.said(b"noise\n") is None


ON_CPU = ("memory.copy", "memory.triad", "launch", "startup.import", "startup.first-kernel")


def test_on_a_cpu(deployed, real_torch):
    benchmarks(deployed, real_torch, *ON_CPU, "pcie.h2d", "pcie.d2h", device="cpu")
    run = deployed.run(profile="standard")
    for item in ON_CPU:
        end = run.end(item)
        assert end["status"] in ("pass", "warn", "invalid"), end  # a shared CPU may be noisy; what is done is right
        assert end["samples"]["median"] > 0
        assert end["device"] == "cpu"
    assert run.end("startup.import")["numbers"]["first_s"] > 0
    first = run.end("startup.first-kernel")
    assert first["samples"]["median"] > first["numbers"]["import_s"] > 0
    assert [run.end(item)["status"] for item in ("pcie.h2d", "pcie.d2h")] == ["skip", "skip"]


ON_CARD = ("memory.copy", "memory.triad", "pcie.h2d", "pcie.d2h", "launch", "startup.first-kernel")
SLOW_ENOUGH = FIXED_CLOCK + "    bench_memory.PAGEABLE_COPIES = 1\n"


def told(run, items):
    return "\n".join(f"{item}: {run.end(item)['summary']} ({run.end(item).get('evidence')})" for item in items)


def test_on_a_card(deployed, real_torch):
    benchmarks(deployed, real_torch, *ON_CARD, source=SLOW_ENOUGH, cards=[CARD])
    run = deployed.run(profile="standard")
    statuses = run.statuses()
    # 1 ms a launch is slow, and said to be
    expected = {**dict.fromkeys(ON_CARD, "pass"), "launch": "warn"}
    assert {item: statuses[item] for item in ON_CARD} == expected, told(run, ON_CARD)
    size = 1 << 22
    assert run.end("memory.copy")["samples"]["median"] == pytest.approx(2 * size / 1e6, rel=1e-6)
    assert run.end("memory.triad")["samples"]["median"] == pytest.approx(3 * size / 1e6, rel=1e-6)
    assert run.end("memory.triad")["numbers"]["share_of_peak"] == pytest.approx(3 * size / 1e6 / 11, abs=1e-3)
    h2d = run.end("pcie.h2d")
    assert h2d["numbers"]["share_of_peak"] == pytest.approx(size / 1e6 / (2 * 1.969), abs=1e-3)
    assert (h2d["numbers"]["pcie_generation"], h2d["numbers"]["pcie_width"]) == (4, 2)
    assert h2d["numbers"]["pageable_gbs"] > 0
    assert run.end("launch")["numbers"]["graph_us"] > 0
    assert run.end("startup.first-kernel")["device"] == "cuda:0"


BROKEN = """
    add, copy_, add_ = torch.add, torch.Tensor.copy_, torch.Tensor.add_
    def broken_add(*args, **options):
        found = add(*args, **options)
        if options.get("alpha") == bench_memory.SCALAR:
            found[12345] += 0.01
        return found
    def broken_copy(self, source, non_blocking=False):
        copy_(self, source, non_blocking)
        if source.is_cuda and self.dtype is torch.uint8 and not self.is_cuda and non_blocking:
            self[70:80] = 0
        return self
    broken_copy.__name__ = "copy_"  # by which the pretended card knows what may join two devices
    seen = []
    def broken_add_(self, value, **options):
        seen.append(1)
        return self if len(seen) % 5 == 3 else add_(self, value, **options)
    torch.add, torch.Tensor.copy_, torch.Tensor.add_ = broken_add, broken_copy, broken_add_
"""


def test_data_that_arrive_wrong_are_seen_and_no_neighbour_is_blamed(deployed, real_torch):
    items = ON_CARD[:-1]
    benchmarks(deployed, real_torch, *items, source=SLOW_ENOUGH + BROKEN, cards=[CARD])
    run = deployed.run(profile="standard")
    wrong = {"memory.triad", "pcie.d2h", "launch"}
    statuses = run.statuses()
    assert {item for item in items if statuses[item] == "fail"} == wrong, told(run, items)
    assert {statuses[item] for item in items if item not in wrong} == {"pass"}, told(run, items)
    assert "element 12345" in run.end("memory.triad")["evidence"]
    assert "bytes differ" in run.end("pcie.d2h")["evidence"]
    assert "the card counted" in run.end("launch")["evidence"]


def test_a_fresh_process_that_cannot_import_torch_fails_with_its_words(deployed, real_torch):
    benchmarks(deployed, real_torch, "startup.import", "memory.copy", device="cpu")
    # Only the worker, which has the payload's modules, may import it.
    hook = (deployed.site / "sitecustomize.py").read_text()
    refuse = 'if sys.argv[0] == "-c":\n            raise ImportError("libcudnn.so.8: cannot open shared object file")'
    (deployed.site / "sitecustomize.py").write_text(
        hook.replace("        spec =", f"        {refuse}\n        spec =", 1)
    )
    run = deployed.run(profile="standard")
    assert run.end("startup.import")["status"] == "fail"
    assert "libcudnn.so.8" in run.end("startup.import")["evidence"]
    assert run.end("memory.copy")["status"] != "fail"
