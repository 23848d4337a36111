"""Items that share a process: one that spoils it costs itself, and none hears of another."""

from __future__ import annotations

import pytest

from builders import item_row

CHECKS = """
import os, random, signal, sys, time
from .context import failed, passed

def fine(context):
    return passed("fine", numbers={"pid": os.getpid()})

def again(context):
    return fine(context)

def last(context):
    return fine(context)

def segfault(context):
    import faulthandler
    faulthandler._sigsegv()

def hang(context):
    time.sleep(600)

def raises(context):
    print("before it raised", flush=True)
    raise RuntimeError("no such kernel")

def poison(context):
    sys.modules["torch"].cuda.poisoned = "CUDA error: an illegal memory access was encountered"
    return passed("it looked fine")

def poison_and_fail(context):
    sys.modules["torch"].cuda.poisoned = "CUDA error: unspecified launch failure"
    return failed("the product is wrong", cause="numerics-wrong")

def turn_switches(context):
    torch = sys.modules["torch"]
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.set_num_threads(1)
    os.environ["NVIDIA_TF32_OVERRIDE"] = "1"
    os.environ.pop("HOME")
    random.seed(0)
    return passed("turned")

def see_switches(context):
    torch = sys.modules["torch"]
    seen = {
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "benchmark": torch.backends.cudnn.benchmark,
        "threads": torch.get_num_threads(),
        "override": os.environ.get("NVIDIA_TF32_OVERRIDE"),
        "home": "HOME" in os.environ,
    }
    return passed("seen", numbers=seen)

def keeps(context):
    context.keep("what", {"value": 42})
    return passed("kept")

def finds(context):
    return passed("found", numbers={"value": context.kept["what"]["value"], "limit": context.thresholds["limit"]})

def slow(context):
    time.sleep(0.8)
    return fine(context)

def sees_siblings(context):
    # Other children of the worker, ended or not.
    count = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/" + name + "/stat") as stream:
                parent = int(stream.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        count += parent == os.getppid()
    return passed("seen", numbers={"siblings": count - 1})

def _rounds(context, name, own):
    torch = sys.modules["torch"]
    torch.backends.cudnn.benchmark = own
    seen = []
    for number in range(3):
        print(name, number, flush=True)
        seen.append(torch.backends.cudnn.benchmark)
        time.sleep(0.05)
        yield
    numbers = {"kept_own_switch": seen == [own] * 3, "at": time.monotonic(), "pid": os.getpid()}
    return passed(name, numbers=numbers)

def rounds_a(context):
    return (yield from _rounds(context, "a", True))

def rounds_b(context):
    return (yield from _rounds(context, "b", False))

def rounds_then_segfault(context):
    yield
    import faulthandler
    faulthandler._sigsegv()

def long_rounds(context):
    for _ in range(100):
        time.sleep(0.2)
        yield

def nothing(context):
    return None

def a_list(context):
    return ["pass"]

def no_status(context):
    return {"summary": "fine"}

def own_status(context):
    return {"status": "excellent", "summary": "fine"}

def status_is_a_list(context):
    return {"status": ["pass"], "summary": "fine"}

def invalid_check(context):
    return {"status": "invalid", "summary": "only a benchmark can be"}

def numbers_are_a_list(context):
    return passed("fine", numbers=[1, 2, 3])

def unspeakable(context):
    class Silent:
        def __str__(self):
            raise ValueError("it has no text")
    return passed("fine", numbers={"silent": Silent()})

def leaves_quietly(context):
    sys.exit(0)

def huge(context):
    numbers = {"endless": 10**6000, "infinite": 1e308 * 10, "long": "x" * 3000000, "counter": (1 << 64) - 1}
    numbers.update((f"n{number}" * 100, number) for number in range(1000))
    return passed("s" * 3000000, numbers=numbers, cause="c" * 300000, evidence="e" * 3000000, event="turn", id="fine")

def rounds_of_nothing(context):
    yield

def endless_rounds(context):
    while True:
        yield

def keeps_no_json(context):
    context.keep("what", {"value": object()})
    return passed("kept")

def keeps_too_much(context):
    context.keep("what", {"value": "x" * (2 << 20)})
    return passed("kept")

def keeps_a_tuple(context):
    context.keep("what", {1: (float("nan"), 2)})
    return passed("kept", numbers={"kept": repr(context.kept["what"])})

def sees_what_is_kept(context):
    return passed("seen", numbers={"kept": repr(context.kept.get("what"))})

def sees_results(context):
    return passed("seen", numbers={"huge": repr(context.results["huge"]["numbers"]["endless"])[:8]})

def first_kernel(context):
    return passed("there is a card", device="cuda:0")

def first_kernel_on_cpu(context):
    return passed("there is none", device="cpu")
"""
# Just enough of torch: switches, and a CUDA context that can be poisoned.
TORCH = """
import types
__version__ = "2.2.0+stub"
version = types.SimpleNamespace(cuda="12.1")
_threads = [4]
get_num_threads = lambda: _threads[0]
def set_num_threads(count):
    _threads[0] = count
backends = types.SimpleNamespace(
    cuda=types.SimpleNamespace(matmul=types.SimpleNamespace(allow_tf32=False)),
    cudnn=types.SimpleNamespace(enabled=True, benchmark=False, deterministic=False, allow_tf32=True),
)
class _Cuda:
    poisoned = ""
    is_initialized = staticmethod(lambda: True)
    empty_cache = staticmethod(lambda: None)
    def synchronize(self):
        if self.poisoned:
            raise RuntimeError(self.poisoned)
cuda = _Cuda()
class _Range:
    def __init__(self, size):
        self.size = size
    def sum(self):
        return self.size * (self.size - 1) // 2
def arange(size, device=None):
    return _Range(size)
"""


def shared(*names: str, **limits: float):
    """Rows of one group behind a card that first-kernel has proved."""
    rows = [item_row("torch.import", "checks_torch:imported"), item_row("first-kernel", "checks_stub:first_kernel")]
    for name in names:
        needs = ["torch.import", "first-kernel"]
        keys = {"needs": needs, "group": "device", "thresholds": {"limit": 7}}
        rows.append(item_row(name.replace("_", "-"), f"checks_stub:{name}", limits.get(name, 2), **keys))
    return rows


def run(deployed, *names, **request):
    deployed.torch(TORCH)
    deployed.items(*shared(*names), checks=CHECKS)
    result = deployed.run(**request)
    assert result.kinds()[-1] == "done"
    return result


def pids(result, *names):
    return {result.end(name)["numbers"]["pid"] for name in names}


def test_a_group_shares_one_process_and_each_alone_does_not(deployed):
    assert len(pids(run(deployed, "fine", "again", "last"), "fine", "again", "last")) == 1


def test_a_request_may_ask_for_a_process_each(deployed):
    assert len(pids(run(deployed, "fine", "again", "last", share=False), "fine", "again", "last")) == 3


@pytest.mark.parametrize(
    ("name", "status", "fresh"),
    [("segfault", "crash", True), ("hang", "timeout", True), ("poison", "crash", True), ("raises", "fail", False)],
)
def test_what_one_item_spoils_the_next_does_not_feel(deployed, name, status, fresh):
    result = run(deployed, "fine", name, "again", "last")
    statuses = result.statuses()
    assert [statuses[each] for each in ("fine", name, "again", "last")] == ["pass", status, "pass", "pass"]
    assert len(pids(result, "again", "last")) == 1
    assert (pids(result, "fine") != pids(result, "again")) is fresh


@pytest.mark.parametrize(
    ("name", "evidence"),
    [
        ("nothing", "it gave NoneType, not a result"),
        ("a_list", "it gave list, not a result"),
        ("no_status", "its status is None"),
        ("own_status", "its status is 'excellent'"),
        ("status_is_a_list", "its status is ['pass']"),
        ("invalid_check", "its status is 'invalid'"),
        ("numbers_are_a_list", "its numbers are list, not an object"),
        ("unspeakable", "what it gave is no JSON: ValueError: it has no text"),
        ("leaves_quietly", "the process ended with exit code 1 and without a result"),
        ("rounds_of_nothing", "it gave NoneType, not a result"),
    ],
)
def test_what_is_no_result_costs_its_own_item_at_once(deployed, name, evidence):
    result = run(deployed, "fine", name, "rounds_a", "again")
    row = name.replace("_", "-")
    assert result.statuses() == {**dict.fromkeys(GOOD, "pass"), row: "crash"}
    assert result.end(row)["evidence"].startswith(evidence)
    assert result.end(row)["seconds"] < 1.5


GOOD = ("torch.import", "first-kernel", "fine", "rounds-a", "again")


@pytest.mark.parametrize("share", [True, False])
def test_a_result_out_of_all_proportion_is_cut_to_the_protocols_size(deployed, share):
    result = run(deployed, "fine", "huge", "sees_results", "rounds_a", "again", share=share)
    assert set(result.statuses().values()) == {"pass"}
    numbers = result.end("huge")["numbers"]
    assert numbers["endless"].startswith("0x")
    assert (numbers["infinite"], numbers["counter"]) == ("inf", (1 << 64) - 1)
    assert len(result.end("huge")["summary"]) == 2000
    assert result.end("sees-results")["numbers"] == {"huge": repr(numbers["endless"])[:8]}


def test_rounds_without_an_end_cost_their_own_time(deployed):
    result = run(deployed, "fine", "endless_rounds", "rounds_a", "again")
    assert result.statuses() == {**dict.fromkeys(GOOD, "pass"), "endless-rounds": "timeout"}
    assert 1.5 < result.end("endless-rounds")["seconds"] < 4


@pytest.mark.parametrize(("name", "words"), [("keeps_no_json", "not JSON serializable"), ("keeps_too_much", "2097165")])
def test_what_cannot_be_kept_costs_the_item_that_tries(deployed, name, words):
    result = run(deployed, "fine", name, "sees_what_is_kept", "rounds_a", "again")
    row = name.replace("_", "-")
    assert result.statuses() == {**dict.fromkeys((*GOOD, "sees-what-is-kept"), "pass"), row: "fail"}
    assert words in result.end(row)["evidence"]
    assert result.end("sees-what-is-kept")["numbers"] == {"kept": "None"}


@pytest.mark.parametrize("share", [True, False])
def test_what_is_kept_is_the_same_in_every_process(deployed, share):
    result = run(deployed, "keeps_a_tuple", "sees_what_is_kept", share=share)
    for name in ("keeps-a-tuple", "sees-what-is-kept"):
        assert result.end(name)["numbers"] == {"kept": "{'1': [None, 2]}"}


def test_a_function_that_is_not_there_costs_its_item_and_not_the_group(deployed):
    deployed.torch(TORCH)
    rows = shared("fine", "again", "absent")
    rows.append({**rows[-1], "id": "absent-module", "run": "checks_absent:fine"})
    deployed.items(*rows, checks=CHECKS)
    result = deployed.run()
    assert result.statuses() == {
        **dict.fromkeys(GOOD[:3], "pass"),
        "again": "pass",
        "absent": "fail",
        "absent-module": "fail",
    }
    assert len(pids(result, "fine", "again")) == 1
    assert "checks_absent" in result.end("absent-module")["evidence"]


def test_a_poisoned_context_is_charged_to_the_item_that_left_it(deployed):
    end = run(deployed, "fine", "poison", "again").end("poison")
    assert end["evidence"] == "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert "context broken" in end["summary"]


def test_an_item_that_failed_by_itself_keeps_its_own_words(deployed):
    result = run(deployed, "poison_and_fail", "again")
    assert (result.end("poison-and-fail")["status"], result.end("poison-and-fail")["cause"]) == (
        "fail",
        "numerics-wrong",
    )
    assert result.end("again")["status"] == "pass"


def test_each_log_stays_with_its_item(deployed):
    result = run(deployed, "fine", "raises", "again")
    assert "before it raised" in result.end("raises")["log"]
    assert "log" not in result.end("fine")
    assert "log" not in result.end("again")


def test_switches_are_turned_back_between_items(deployed):
    seen = run(deployed, "turn_switches", "see_switches").end("see-switches")["numbers"]
    assert seen == {"tf32": False, "benchmark": False, "threads": 4, "override": None, "home": True}


def test_what_is_kept_reaches_later_items_and_their_thresholds_are_their_own(deployed):
    result = run(deployed, "keeps", "segfault", "finds")
    assert result.end("finds")["numbers"] == {"value": 42, "limit": 7}
    assert result.end("finds")["thresholds"] == {"limit": 7}


def test_rounds_of_one_group_interleave_with_their_own_switches(deployed):
    result = run(deployed, "rounds_a", "rounds_b")
    assert [result.statuses()[name] for name in ("rounds-a", "rounds-b")] == ["pass", "pass"]
    for name, lines in (("rounds-a", "a 0\na 1\na 2\n"), ("rounds-b", "b 0\nb 1\nb 2\n")):
        end = result.end(name)
        assert end["numbers"]["kept_own_switch"]
        assert end["log"] == lines
    # The one that began first ends first, and right before the other: its last round was not long ago.
    assert 0 < result.end("rounds-b")["numbers"]["at"] - result.end("rounds-a")["numbers"]["at"] < 1
    starts = [event["id"] for event in result.events if event["event"] == "start"]
    assert starts == ["torch.import", "first-kernel", "rounds-a", "rounds-b"]


def test_groups_of_one_name_share_a_process_one_after_the_other(deployed):
    deployed.torch(TORCH)
    rows = shared("rounds_a", "rounds_b", "fine", "again")
    for row, group in zip(rows[2:], ("measure/a", "measure/b", "measure/b", "other"), strict=True):
        row["group"] = group
    deployed.items(*rows, checks=CHECKS)
    result = deployed.run()
    assert set(result.statuses().values()) == {"pass"}
    processes = [result.end(name)["numbers"]["pid"] for name in ("rounds-a", "rounds-b", "fine", "again")]
    assert len(set(processes[:3])) == 1
    assert processes[3] not in processes[:3]
    # Neighbours of one group have ended before the next begins; within the next, rounds alternate as ever.
    order = [event["id"] for event in result.events if event["event"] in ("start", "end")][4:]
    assert order == ["rounds-a", "rounds-a", "rounds-b", "fine", "fine", "rounds-b", "again", "again"]


def test_an_optional_item_is_left_out_in_the_middle_of_a_process_too(deployed):
    rows = shared("slow", "fine", "again")
    rows[3]["priority"] = "P1"
    deployed.torch(TORCH)
    deployed.items(*rows, checks=CHECKS, budgets_s={"smoke": 0.5})
    result = deployed.run()
    assert [result.statuses()[name] for name in ("slow", "fine", "again")] == ["pass", "skip", "pass"]
    assert result.end("fine")["summary"] == "the time budget of the profile smoke is used up"
    assert len(pids(result, "slow", "again")) == 1


@pytest.mark.parametrize("device", ["cuda:0", "cpu"])
def test_what_held_a_card_has_left_before_another_begins(deployed, device):
    """On a CPU nobody waits for the end of a process; then they must not pile up."""
    names = [f"sees{number}" for number in range(12)]
    first = {"cuda:0": "checks_stub:first_kernel", "cpu": "checks_stub:first_kernel_on_cpu"}[device]
    rows = [item_row("torch.import", "checks_torch:imported"), item_row("first-kernel", first)]
    rows += [item_row(name, "checks_stub:sees_siblings", needs=["first-kernel"]) for name in names]
    deployed.torch(TORCH)
    deployed.items(*rows, checks=CHECKS)
    result = deployed.run()
    assert set(result.statuses().values()) == {"pass"}
    siblings = [result.end(name)["numbers"]["siblings"] for name in names]
    assert max(siblings) <= {"cuda:0": 0, "cpu": 1}[device]


def test_a_crash_between_rounds_costs_one_item_and_the_others_begin_again(deployed):
    result = run(deployed, "rounds_a", "rounds_then_segfault", "rounds_b")
    statuses = result.statuses()
    assert (statuses["rounds-a"], statuses["rounds-then-segfault"], statuses["rounds-b"]) == ("pass", "crash", "pass")
    starts = [event["id"] for event in result.events if event["event"] == "start"]
    assert len(starts) == len(set(starts))


def test_rounds_have_their_own_time_limit(deployed):
    result = run(deployed, "long_rounds", "rounds_b")
    assert (result.statuses()["long-rounds"], result.statuses()["rounds-b"]) == ("timeout", "pass")
    assert 1.5 < result.end("long-rounds")["seconds"] < 4


def test_what_is_optional_is_left_out_once_the_budget_is_used_up(deployed):
    deployed.items(
        item_row("hang", "checks_stub:hang", 1),
        item_row("fine", "checks_stub:fine", priority="P1"),
        item_row("again", "checks_stub:fine", priority="P0"),
        checks=CHECKS,
        budgets_s={"smoke": 0.5},
    )
    result = deployed.run()
    assert result.statuses() == {"hang": "timeout", "fine": "skip", "again": "pass"}
    assert result.end("fine")["summary"] == "the time budget of the profile smoke is used up"


def test_a_glob_of_another_profile_is_a_skip(deployed):
    deployed.items(item_row("fine", "checks_stub:fine"), checks=CHECKS)
    only_full = {**item_row("slow", "checks_stub:fine"), "limits_s": {"full": 9}}
    deployed.items(item_row("fine", "checks_stub:fine"), only_full, checks=CHECKS)
    result = deployed.run(checks=("fine", "slow"))
    assert result.statuses() == {"fine": "pass", "slow": "skip"}
    assert result.end("slow")["summary"] == "the profile smoke leaves this out"
