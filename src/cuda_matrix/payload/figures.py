"""Owns what a benchmark's samples come to: its figure, its spread, and whether it may be believed.

Thresholds that a benchmark's row in the table must have: cv_warn, cv_invalid, cv_warn_cpu, cv_invalid_cpu (coefficient
of variation of the samples), throttle_warn, throttle_invalid (share of the telemetry's samples in which the hardware or
heat held the clocks down), drift (the last round's median against the first's).

Must not know how a step was timed, nor what it does.
"""

from __future__ import annotations

from . import samples
from .context import failed, ran_elsewhere, result

_SCALES = {"s": 1.0, "ms": 1e3, "us": 1e6}  # a second in the units of durations
# A figure above this share of what the card can do at its measured clock is a mistake of the measurement.
IMPOSSIBLE_SHARE = 1.15
# Worst last. `invalid` is above `fail`: samples that nobody can believe prove no failure either.
_ORDER = ("pass", "warn", "fail", "invalid")
_SPREAD = ("cv_warn", "cv_invalid", "throttle_warn", "throttle_invalid", "drift")
_SPREAD_CPU = ("cv_warn_cpu", "cv_invalid_cpu")
# What of the telemetry stands among a benchmark's numbers; all of it is kept as telemetry.<id>.
_TELEMETRY = (
    "sm_clock_mhz", "memory_clock_mhz", "power_w", "temperature_max_c", "energy_j", "throttle_share",
    "share_sw_power_cap",
)  # fmt: skip


class Peak:
    """What the card can do at best: `value` in the benchmark's unit, reached at `mhz` (None: whatever the clock)."""

    def __init__(self, value: float, mhz=None, certain: bool = True):
        self.value = value
        self.mhz = mhz
        self.certain = certain


def judged(context, measurement, amount_per_step, numbers, ran_on, what) -> dict:
    """The result of a measurement whose every step does `amount_per_step`; `what` describes it in the summary.

    The figure is amount / seconds; where lower is better, it is seconds / amount, in the row's unit of time. `numbers`
    are the benchmark's own; `ran_on` is the device that the result of a step lay on.
    """
    device_type = ran_on.partition(":")[0]
    numbers = {**numbers, **_facts(measurement)}
    thresholds = {name: context.thresholds[name] for name in _SPREAD if device_type != "cpu" or name == "drift"}
    if device_type == "cpu":
        thresholds.update((name, context.thresholds[name]) for name in _SPREAD_CPU)
    keys = {"device": ran_on, "numbers": numbers, "thresholds": thresholds}
    numbers["stable"] = False
    elsewhere = ran_elsewhere(context.device, **keys)
    if elsewhere:
        return elsewhere
    rates, wrong = rated(measurement.rounds, amount_per_step, context.unit, context.higher_is_better)
    wrong = wrong or measurement.disagreement
    if wrong:
        return result("invalid", wrong, evidence=wrong, **keys)
    summary = samples.summarise([rate for each in rates for rate in each])
    numbers["drift"] = samples.drift(rates)
    numbers["stable"] = len(rates) > 1 and abs(numbers["drift"]) <= thresholds["drift"]
    text = "{:.4g} {} on {}{}".format(summary["median"], context.unit, ran_on, ", " + what if what else "")
    answer = result("pass", text, samples=summary, **keys)
    suffix = "_cpu" if device_type == "cpu" else ""
    worsen(answer, *samples.judge_spread(summary, thresholds["cv_warn" + suffix], thresholds["cv_invalid" + suffix]))
    if device_type != "cpu":
        worsen(answer, *judge_throttle(numbers, thresholds))
        if not numbers["stable"]:
            drift = numbers["drift"]
            worsen(answer, "warn", f"not stable: the last round's median is {drift:+.1%} off the first's")
    return answer


def rated(rounds, amount_per_step: float, unit: str, higher_is_better: bool):
    """(the figures of every round, ""), or ([], what is impossible about them)."""
    seconds = [sample for each in rounds for sample in each]
    wrong = samples.impossible(seconds)
    if not wrong and not (samples.finite(amount_per_step) and amount_per_step > 0):
        wrong = f"a step of {amount_per_step} units of work: nothing was measured"
    if wrong:
        return [], wrong
    if higher_is_better:
        return [[amount_per_step / sample for sample in each] for each in rounds], ""
    scale = _SCALES[unit] / amount_per_step
    return [[sample * scale for sample in each] for each in rounds], ""


def judge_throttle(numbers: dict, thresholds: dict):
    """(status, remark) by the share of samples in which the clocks were held down; what was not seen is said."""
    share = numbers.get("throttle_share")
    if share is None:
        numbers["throttle"] = "unknown: NVML does not tell why the clocks are as they are"
        return "pass", ""
    numbers["throttle"] = "no" if share <= thresholds["throttle_warn"] else "yes"
    if not share <= thresholds["throttle_invalid"]:
        return "invalid", f"the clocks were held down in {share:.0%} of the time"
    if share > thresholds["throttle_warn"]:
        return "warn", f"the clocks were held down in {share:.0%} of the time"
    return "pass", ""


def against_peak(context, answer: dict, peak, why_none: str = "") -> dict:
    """Add the share of the card's peak to a judged result, and judge by share_warn and share_fail where these exist.

    Without a peak, a certain one, or (where it depends on it) a measured clock, the share is no verdict.
    """
    numbers, thresholds = answer["numbers"], answer["thresholds"]
    if "samples" not in answer:
        return answer
    share, said = share_of(peak, answer["samples"]["median"], numbers.get("sm_clock_mhz"))
    if share is None:
        numbers["peak"] = "not judged: " + (why_none or said)
        return answer
    numbers["share_of_peak"] = round(share, 4)
    numbers["peak"] = said
    if not peak.certain:
        numbers["peak"] += "; the card's data are uncertain, so it is not judged"
        return answer
    limits = {name: context.thresholds[name] for name in ("share_warn", "share_fail") if name in context.thresholds}
    thresholds.update(limits, share_invalid=IMPOSSIBLE_SHARE)
    return worsen(answer, *judge_share(share, limits))


def share_of(peak, figure: float, clock_mhz):
    """(share of the peak at the measured clock, the peak in words), or (None, why not)."""
    if peak is None:
        return None, "the peak of this card is not known"
    if not (samples.finite(peak.value) and peak.value > 0):
        return None, f"a peak of {peak.value} cannot be"
    if peak.mhz is None:
        return figure / peak.value, f"{peak.value:.4g}"
    if not clock_mhz:
        return None, "the card's clock could not be read"
    at_clock = peak.value * clock_mhz / peak.mhz
    return figure / at_clock, f"{at_clock:.4g} at {clock_mhz:.0f} MHz"


def judge_share(share: float, limits: dict):
    """(status, remark) for a share of the peak. NaN is above no limit and below none, and must not pass."""
    if not share <= IMPOSSIBLE_SHARE:
        return (
            "invalid",
            f"{share:.0%} of what the card can do at its clock: the measurement, or the card's name, is wrong",
        )
    for status in ("fail", "warn"):
        limit = limits.get("share_" + status)
        if limit is not None and share < limit:
            return status, f"{share:.0%} of the card's peak, below {limit:.0%}"
    return "pass", f"{share:.0%} of the card's peak"


def card_peak(card, name: str):
    """The Peak of products in one precision, by the row of the cards table; None where the row has none."""
    value = ((card or {}).get("peak_tflops") or {}).get(name)
    field = "boost_mhz" if name == "fp32" else "tensor_peak_mhz"
    mhz = (card or {}).get(field) or (card or {}).get("boost_mhz")
    if not value or not mhz:
        return None
    # Peaks in bfloat16 are those in half precision, in every row.
    doubtful = {name, field, "sm"} | ({"fp16"} if name == "bf16" else set())
    return Peak(value, mhz, certain=doubtful.isdisjoint(card.get("uncertain") or ()))


def card_bandwidth(card):
    """The Peak of the card's memory, in GB/s; None where the card is not known."""
    value = (card or {}).get("bandwidth_gbs")
    return Peak(value, certain="bandwidth_gbs" not in (card.get("uncertain") or ())) if value else None


def worsen(answer: dict, status: str, remark: str) -> dict:
    """Lower the result to `status` where that is worse; the remark joins its summary, and is a bad one's evidence."""
    if remark:
        answer["summary"] += ("; " if ": " in answer["summary"] else ": ") + remark
    if _ORDER.index(status) > _ORDER.index(answer["status"]):
        answer["status"] = status
        if status in ("fail", "invalid"):
            answer["evidence"] = remark
    return answer


def refuted(answer: dict, summary: str, wrong: str, cause: str = "numerics-wrong") -> dict:
    """The failure in place of a result: its work itself was wrong, so its figure says nothing."""
    numbers = {**answer["numbers"], "stable": False}
    keys = {"device": answer["device"], "numbers": numbers, "thresholds": answer["thresholds"]}
    return failed(summary, evidence=wrong, cause=cause, **keys)


def _facts(measurement) -> dict:
    numbers = {"rounds": len(measurement.rounds), "steps_per_sample": measurement.steps, **measurement.warm_up}
    for name in _TELEMETRY:
        if measurement.telemetry.get(name) is not None:
            numbers[name] = measurement.telemetry[name]
    return numbers
