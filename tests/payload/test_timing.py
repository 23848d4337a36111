"""How long a step takes and what that comes to, by a fake clock: warm-up, stop rule, telemetry, judgement."""

from __future__ import annotations

import math
import os
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuda_matrix.payload import figures, round_watch, samples, telemetry, timing

SPREAD = {
    "cv_warn": 0.03,
    "cv_invalid": 0.10,
    "cv_warn_cpu": 0.25,
    "cv_invalid_cpu": 0.50,
    "throttle_warn": 0.01,
    "throttle_invalid": 0.10,
    "drift": 0.05,
}
CARD = {
    "id": "rtx3090",
    "boost_mhz": 1700,
    "tensor_peak_mhz": 1600,
    "bandwidth_gbs": 936,
    "l2_mb": 6,
    "peak_tflops": {"fp32": 34.0, "tf32": 32.0, "fp16": 64.0, "bf16": 64.0, "fp8": None, "int8": 256.0},
    "uncertain": [],
}
SEEN = {
    "samples": 8,
    "watched_s": 1.0,
    "busy_samples": 8,
    "throttle_share": 0.0,
    "energy_j": 100.0,
    "sm_clock_mhz": 1600,
}


class Clock:
    """Time that passes only in steps."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    perf_counter = monotonic


class Context:
    """What timing and figures read of a context."""

    def __init__(self, device="cpu", profile="standard", card=None, **changes):
        self.device = device
        self.on_gpu = device.startswith("cuda")
        self.profile = profile
        self.card = card
        self.item_id = "gemm.fp16"
        self.kept = {}
        self.thresholds = SPREAD
        self.unit = "TFLOP/s"
        self.higher_is_better = True
        self.__dict__.update(changes)

    def keep(self, name, value):
        self.kept[name] = value


class Torch:
    """The parts of torch that measuring needs: events by the fake clock, a thread count."""

    def __init__(self, clock, speed=1.0):
        self.threads = None
        self.cuda = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                self.at = clock.now

            def synchronize(self):
                pass

            def elapsed_time(self, end):
                return speed * (end.at - self.at) * 1e3

        self.Event = Event

    def set_num_threads(self, count):
        self.threads = count


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    monkeypatch.setattr(timing, "_warmed", set())
    return clock


@pytest.fixture
def watched(monkeypatch):
    """Let the telemetry see, one after another, what is in this list; its last entry again and again."""
    seen = [dict(SEEN)]

    class Watch:
        def __init__(self, device):
            assert device == "cuda:0"

        def __enter__(self):
            return self

        def __exit__(self, *_error):
            pass

        def summary(self):
            return seen.pop(0) if len(seen) > 1 else dict(seen[0])

    monkeypatch.setattr(telemetry, "Watch", Watch)
    return seen


def steps_of(clock, *seconds):
    """A step that takes so long; the last duration for ever."""
    left = list(seconds)

    def step():
        clock.now += left.pop(0) if len(left) > 1 else left[0]

    return step


def turns(generator):
    """(number of yields, what the generator returned)."""
    count = 0
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            return count, stop.value
        count += 1


def test_a_steady_step_is_sampled_twenty_times_in_each_of_three_rounds(clock):
    context, torch, rounds = Context(), Torch(clock), []
    generator = timing.measured(context, torch, steps_of(clock, 0.05), after_round=lambda: rounds.append(clock.now))
    count, measurement = turns(generator)
    assert count == len(rounds) == 3
    assert [len(each) for each in measurement.rounds] == [20, 20, 20]
    assert measurement.all == pytest.approx([0.05] * 60)
    assert (measurement.steps, torch.threads) == (1, 1)
    assert (measurement.telemetry, context.kept) == ({}, {})


def test_short_steps_share_a_sample(clock):
    _, measurement = turns(timing.measured(Context(), Torch(clock), steps_of(clock, 0.001)))
    assert measurement.steps in (49, 50)
    assert min(len(each) for each in measurement.rounds) >= timing.ROUND_SAMPLES
    _, measurement = turns(timing.measured(Context(), Torch(clock), steps_of(clock, 0.001), sample_s=0.1))
    assert measurement.steps in (99, 100)


def test_a_noisy_round_ends_at_its_time_limit_and_a_slow_one_has_two_samples(clock):
    plan = timing.PLANS["standard"]
    noisy = timing.CpuTimer(steps_of(clock, *[0.01, 0.02] * 1000))
    found = timing.sample_round(noisy, 1, plan)
    assert len(found) > timing.ROUND_SAMPLES
    assert plan.round_s[1] <= sum(found) <= plan.round_s[1] + 0.05
    assert len(timing.sample_round(timing.CpuTimer(steps_of(clock, 60.0)), 1, plan)) == timing.LEAST_SAMPLES


@given(
    seconds=st.lists(st.floats(min_value=1e-4, max_value=0.3), min_size=1, max_size=400),
    profile=st.sampled_from(sorted(timing.PLANS)),
)
def test_a_round_keeps_to_its_time(seconds, profile):
    clock, plan = Clock(), timing.PLANS[profile]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "time", clock)
        found = timing.sample_round(timing.CpuTimer(steps_of(clock, *seconds)), 1, plan)
    spent = sum(found)
    assert spent >= plan.round_s[0] * (1 - 1e-6)
    assert len(found) == timing.LEAST_SAMPLES or spent <= plan.round_s[1] + max(found) + 1e-6
    if spent < plan.round_s[1] * (1 - 1e-6):
        assert len(found) >= timing.ROUND_SAMPLES
        assert samples.iqr_share(found) <= timing.STEADY_IQR


def test_warm_up_ends_when_the_clock_has_settled_and_is_no_part_of_the_measurement(clock, watched):
    plan = timing.PLANS["full"]
    watched[:] = [{**SEEN, "sm_clock_mhz": mhz} for mhz in (2000, 1900, 1850, 1800, 1700, 1600, 1590, 1500)]
    context = Context("cuda:0", "full")
    _, measurement = turns(timing.measured(context, Torch(clock), steps_of(clock, 0.01)))
    assert measurement.warm_up["settled"] is True
    assert plan.cold_s[0] < measurement.warm_up["warmup_s"] < plan.cold_s[1]
    assert measurement.telemetry["sm_clock_mhz"] == 1500
    assert measurement.telemetry["energy_j"] == 300.0
    assert context.kept["telemetry.gemm.fp16"] == measurement.telemetry


def test_a_clock_that_never_settles_ends_the_warm_up_at_its_limit(clock, watched):
    watched[:] = [{**SEEN, "sm_clock_mhz": 1000 + 500 * (number % 2)} for number in range(200)]
    _, measurement = turns(timing.measured(Context("cuda:0"), Torch(clock), steps_of(clock, 0.01)))
    plan = timing.PLANS["standard"]
    assert measurement.warm_up["settled"] is False
    assert plan.cold_s[1] <= measurement.warm_up["warmup_s"] <= plan.cold_s[1] + 2 * plan.window_s


def test_where_the_clock_cannot_be_read_the_steps_themselves_must_settle(clock, watched):
    watched[:] = [{"samples": 0, "reason": "NVML cannot be loaded"}]
    _, measurement = turns(timing.measured(Context("cuda:0"), Torch(clock), steps_of(clock, 0.01)))
    assert measurement.warm_up["settled"] is True
    assert measurement.telemetry == {"samples": 0, "reason": "NVML cannot be loaded"}


@pytest.mark.usefixtures("watched")
def test_only_the_first_benchmark_of_a_process_warms_a_cold_card_up(clock):
    plan, found = timing.PLANS["standard"], []
    for _ in range(2):
        _, measurement = turns(timing.measured(Context("cuda:0"), Torch(clock), steps_of(clock, 0.01)))
        found.append(measurement.warm_up["warmup_s"])
    assert found[0] >= plan.cold_s[0]
    assert plan.warm_s[0] <= found[1] < plan.cold_s[0]
    assert timing._warmed == {os.getpid()}


@pytest.mark.parametrize("profile", sorted(timing.PLANS))
def test_six_products_keep_their_budget(clock, watched, profile):
    """The worst case: noisy steps and a clock that never settles."""
    watched[:] = [{**SEEN, "sm_clock_mhz": 1000 + 500 * (number % 2)} for number in range(1000)]
    started = clock.now
    for _ in range(6):
        turns(timing.measured(Context("cuda:0", profile), Torch(clock), steps_of(clock, *[0.01, 0.02] * 5000)))
    assert clock.now - started <= {"smoke": 12, "standard": 45, "full": 180}[profile]


@pytest.mark.usefixtures("watched")
def test_the_cache_is_flushed_before_every_sample_which_is_one_step(clock):
    log = []

    class Flushing(Torch):
        int8 = "int8"

        def get_device_properties(self, _device):
            return type("Properties", (), {"L2_cache_size": 200 << 20})

        def empty(self, size, dtype, device):
            assert (dtype, device) == ("int8", "cuda:0")
            log.append(size)
            return type("Buffer", (), {"zero_": lambda _self: log.append("flush")})()

    step = steps_of(clock, 1e-4)
    _, measurement = turns(
        timing.measured(Context("cuda:0", "smoke"), Flushing(clock), lambda: (step(), log.append("step")), flush=True)
    )
    assert log[0] == 400 << 20  # twice the cache
    assert set(zip(log[1::2], log[2::2], strict=True)) == {("flush", "step")}
    assert measurement.steps == 1


def judged(context, *rounds, amount=1.0, ran_on=None, seen=None):
    measurement = timing.Measurement([list(each) for each in rounds], 1, seen)
    return figures.judged(context, measurement, amount, {"size": 8}, ran_on or context.device, "8×8")


def test_a_figure_is_work_over_time():
    result = judged(Context("cuda:0"), [0.5] * 20, [0.5] * 20, amount=2.0, seen=SEEN)
    assert (result["status"], result["samples"]["median"], result["samples"]["n"]) == ("pass", 4.0, 40)
    assert result["numbers"]["stable"] is True
    assert result["numbers"]["sm_clock_mhz"] == 1600
    assert result["summary"] == "4 TFLOP/s on cuda:0, 8×8"
    assert set(result["thresholds"]) == {"cv_warn", "cv_invalid", "throttle_warn", "throttle_invalid", "drift"}


@pytest.mark.parametrize(("unit", "figure"), [("s", 0.25), ("ms", 250.0), ("us", 250000.0)])
def test_a_duration_is_time_over_work(unit, figure):
    context = Context(unit=unit, higher_is_better=False)
    assert judged(context, [0.5] * 20, amount=2.0)["samples"]["median"] == pytest.approx(figure)


@pytest.mark.parametrize(
    ("rounds", "changes", "status", "words"),
    [
        ([[0.1] * 20] * 3, {}, "pass", ""),
        ([[0.1, 0.108] * 10] * 3, {}, "warn", "vary"),
        ([[0.1, 0.2] * 10] * 3, {}, "invalid", "vary"),
        ([[0.1] * 20, [0.1065] * 2], {}, "warn", "not stable"),
        ([[0.1] * 20], {}, "warn", "not stable"),  # one round shows no drift, so nothing is stable
        ([[0.1], [0.1]], {}, "warn", "only 2 samples"),
        ([[0.1] * 20, [-0.1] * 20], {}, "invalid", "no duration"),  # a clock that runs backwards
        ([[0.1] * 20, [0.0] * 20], {}, "invalid", "no duration"),
        ([[math.nan] * 20], {}, "invalid", "no duration"),
        ([], {}, "invalid", "nothing was measured"),
        ([[0.1] * 20] * 3, {"throttle_share": 0.05}, "warn", "held down in 5%"),
        ([[0.1] * 20] * 3, {"throttle_share": 0.5}, "invalid", "held down in 50%"),
        ([[0.1] * 20] * 3, {"throttle_share": math.nan}, "invalid", "held down"),
        ([[0.1] * 20] * 3, {"throttle_share": None}, "pass", ""),
    ],
)
def test_a_measurement_is_believed_only_where_it_can_be(rounds, changes, status, words):
    result = judged(Context("cuda:0"), *rounds, seen={**SEEN, **changes})
    assert result["status"] == status
    assert words in result["summary"]
    if status == "invalid":
        assert result["evidence"]
    if changes.get("throttle_share", 0) is None:
        assert result["numbers"]["throttle"].startswith("unknown")


def test_a_shared_cpu_has_wide_bounds():
    noisy = [0.1, 0.13] * 10
    result = judged(Context(), noisy, [second * 1.2 for second in noisy])
    assert result["status"] == "pass"
    assert judged(Context(), [0.1, 0.4] * 10)["status"] == "invalid"
    assert set(result["thresholds"]) == {"cv_warn_cpu", "cv_invalid_cpu", "drift"}


@pytest.mark.parametrize("amount", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("higher", [True, False])
def test_no_work_is_no_figure(amount, higher):
    context = Context("cuda:0", unit="ms", higher_is_better=higher)
    assert judged(context, [0.1] * 20, amount=amount)["status"] == "invalid"


def test_work_that_ran_elsewhere_fails():
    result = judged(Context("cuda:0"), [0.1] * 20, ran_on="cpu")
    assert (result["status"], result["cause"]) == ("fail", "silent-cpu-fallback")


@given(
    rounds=st.lists(
        st.lists(st.floats(min_value=1e-7, max_value=1e4), min_size=1, max_size=30), min_size=1, max_size=4
    ),
    amount=st.floats(min_value=1e-6, max_value=1e9),
)
def test_rates_and_durations_are_each_others_inverse(rounds, amount):
    rates, wrong = figures.rated(rounds, amount, "x/s", True)
    durations, _ = figures.rated(rounds, amount, "s", False)
    assert not wrong
    for rate, duration in zip(chain(*rates), chain(*durations), strict=True):
        assert rate * duration == pytest.approx(1.0)


# 64 TFLOP/s at 1600 MHz: at a measured clock of 1600 MHz, the figure / 64 is the share.
@pytest.mark.parametrize(
    ("figure", "card", "seen", "status", "words"),
    [
        (51.2, {}, {}, "pass", "80% of the card's peak"),
        (35.0, {}, {}, "warn", "below 60%"),
        (20.0, {}, {}, "fail", "below 45%"),
        (80.0, {}, {}, "invalid", "the measurement"),
        (35.0, {}, {"sm_clock_mhz": 800}, "pass", "109%"),  # a slow clock is no fault of the software
        (64.0, {}, {"sm_clock_mhz": 800}, "invalid", "200%"),
        (20.0, {}, {"sm_clock_mhz": None}, "pass", ""),
        (20.0, {"uncertain": ["fp16"]}, {}, "pass", ""),
        (20.0, {"uncertain": ["tensor_peak_mhz"]}, {}, "pass", ""),
        (20.0, {"uncertain": ["bandwidth_gbs", "fp32"]}, {}, "fail", ""),
        (20.0, None, {}, "pass", ""),
        (20.0, {"peak_tflops": {"fp16": None}}, {}, "pass", ""),
        (51.2, {"peak_tflops": {"fp16": 1e-3}}, {}, "invalid", "the card's name, is wrong"),  # an absurd row
        (51.2, {"peak_tflops": {"fp16": -5.0}}, {}, "pass", ""),
        (51.2, {"peak_tflops": {"fp16": math.nan}}, {}, "pass", ""),
        (20.0, {}, {"throttle_share": 0.5}, "invalid", "held down"),  # nobody fails by a measurement nobody believes
    ],
)
def test_the_share_of_the_clock_normalised_peak(figure, card, seen, status, words):
    row = None if card is None else {**CARD, **card}
    context = Context("cuda:0", card=row, thresholds={**SPREAD, "share_warn": 0.60, "share_fail": 0.45})
    result = judged(context, [1 / figure] * 20, [1 / figure] * 20, seen={**SEEN, **seen})
    result = figures.against_peak(context, result, figures.card_peak(row, "fp16"))
    assert result["status"] == status
    assert words in result["summary"]
    assert "share_of_peak" in result["numbers"] or result["numbers"]["peak"].startswith("not judged")
    if status in ("warn", "fail"):
        assert result["thresholds"]["share_" + status] in (0.60, 0.45)


def test_fp32_is_normalised_by_the_boost_clock_and_memory_by_none():
    assert figures.card_peak(CARD, "fp32").mhz == 1700
    assert figures.card_peak(CARD, "int8").mhz == 1600
    assert figures.card_peak({**CARD, "uncertain": ["fp16"]}, "bf16").certain is False
    assert figures.share_of(figures.card_bandwidth(CARD), 702.0, None)[0] == pytest.approx(0.75)
    assert figures.card_bandwidth({**CARD, "uncertain": ["bandwidth_gbs"]}).certain is False
    assert figures.card_bandwidth(None) is None


def test_an_invalid_measurement_has_no_share():
    context = Context("cuda:0", card=CARD)
    result = judged(context, [0.0] * 20)
    assert figures.against_peak(context, result, figures.card_peak(CARD, "fp16"))["status"] == "invalid"
    assert "share_of_peak" not in result["numbers"]


def test_the_telemetry_of_rounds_is_summed_by_the_kind_of_number():
    one = {**SEEN, "busy_samples": 2, "throttle_share": 1.0, "temperature_max_c": 60, "sm_clock_min_mhz": 900}
    other = {**SEEN, "busy_samples": 6, "temperature_max_c": 70, "sm_clock_min_mhz": 800, "sm_clock_mhz": 1500}
    found = round_watch.merged([one, other])
    assert found["throttle_share"] == 0.25
    assert (found["samples"], found["energy_j"], found["temperature_max_c"]) == (16, 200.0, 70)
    assert (found["sm_clock_min_mhz"], found["sm_clock_mhz"]) == (800, 1550)
    assert round_watch.merged([]) == {}


def test_a_round_that_was_not_seen_has_its_say():
    unseen = {"samples": 0, "reason": "GPU is lost"}
    found = round_watch.merged([SEEN, unseen])
    assert found["reason"] == "GPU is lost"
    assert found["energy_j"] is None  # a part is no sum
    assert found["sm_clock_mhz"] == 1600
    assert round_watch.merged([unseen, unseen]) == unseen
    nothing = {**SEEN, "busy_samples": 0, "throttle_share": None}
    assert round_watch.merged([nothing])["throttle_share"] is None


def test_off_a_gpu_nothing_is_watched(monkeypatch):
    monkeypatch.setattr(telemetry, "Watch", None)
    watch = round_watch.RoundWatch("cpu")
    with watch:
        pass
    assert (watch.summary(), watch.last_clock_mhz()) == ({}, None)


@pytest.mark.usefixtures("watched")
def test_a_clock_that_runs_backwards_ends_as_invalid_and_not_as_an_endless_loop(clock):
    context = Context("cuda:0", "smoke")
    _, measurement = turns(timing.measured(context, Torch(clock, speed=-1.0), steps_of(clock, 0.01)))
    assert measurement.steps == 1
    result = figures.judged(context, measurement, 1.0, {}, "cuda:0", "")
    assert (result["status"], result["numbers"]["stable"]) == ("invalid", False)


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize(
    ("speed", "status"),
    [(1.0, "pass"), (1.04, "pass"), (1.1, "invalid"), (0.5, "pass"), (0.2, "invalid"), (1e-4, "invalid")],
)
def test_a_card_whose_clock_does_not_agree_with_the_hosts_is_not_believed(clock, speed, status):
    context = Context("cuda:0", "smoke")
    _, measurement = turns(timing.measured(context, Torch(clock, speed), steps_of(clock, 0.01)))
    result = figures.judged(context, measurement, 1.0, {}, "cuda:0", "")
    assert result["status"] == status
    assert ("the card's clock and the host's disagree: " in result.get("evidence", "")) is (status == "invalid")
    assert measurement.steps <= 7  # of 10 ms each: 20 ms were wanted


def test_what_was_queued_before_the_first_event_and_short_rounds_are_not_too_little():
    assert timing.disagreement(0.01, 1.0)
    assert not timing.disagreement(0.01, 1.0, queued=True)
    assert timing.disagreement(1.1, 1.0, queued=True)
    assert not timing.disagreement(0.01, timing.COMPARED_FROM_S / 2)
    assert not timing.disagreement(0.0, 0.0)


@pytest.mark.parametrize("limits", [{}, {"share_warn": 0.60, "share_fail": 0.45}])
def test_a_share_that_is_no_number_does_not_pass(limits):
    assert figures.judge_share(math.nan, limits)[0] == "invalid"
    assert figures.judge_share(0.9, limits)[0] == "pass"
