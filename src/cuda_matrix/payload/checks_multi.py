"""Owns the checks of several cards: copies between them, byte for byte, and a collective with exact sums.

A broken path between cards hangs, or corrupts without an error: every byte is compared, and every rank is a process of
its own with a time limit. Must not know how fast the cards are connected.
"""

from __future__ import annotations

from . import ranks
from .context import failed, passed, skipped, warned

SEED = 20240514
COPY_BYTES = (1 << 24) + 3  # 16 MiB and an odd rest
SUM_SIZES = (1, 1023, 1 << 20)  # elements
P2P_OFF = {"NCCL_P2P_DISABLE": "1"}


def p2p(context):
    """Every pair of cards in both directions, then through a third; each copy compared byte for byte."""
    import torch

    count = min(torch.cuda.device_count(), ranks.MAX_CARDS)
    if count < 2:
        return skipped("one card: there is nothing to copy between", device=context.device, numbers={"cards": count})
    names = [f"cuda:{index}" for index in range(count)]
    access = {
        (one, other): bool(torch.cuda.can_device_access_peer(one, other))
        for one in range(count)
        for other in range(count)
        if one != other
    }
    return judge_copies(copies(torch, names), access, context.thresholds)


def copies(torch, names):
    """{route: bytes that are wrong}; a route is a tuple of indices of `names`."""
    generator = torch.Generator().manual_seed(SEED)
    original = torch.randint(0, 256, (COPY_BYTES,), generator=generator, dtype=torch.uint8)
    count = len(names)
    routes = [(one, other) for one in range(count) for other in range(count) if one != other]
    routes += [(one, (one + 1) % count, (one + 2) % count) for one in range(count) if count > 2]
    wrong = {}
    for route in routes:
        data = torch.empty_like(original, device=names[route[0]]).copy_(original)
        for step in route[1:]:
            data = torch.empty_like(data, device=names[step]).copy_(data)
        wrong[route] = int((data.cpu() != original).sum())
    return wrong


def judge_copies(wrong, access, thresholds):
    """The verdict: wrong bytes by route, and which pairs have peer access."""
    cards = 1 + max(max(route) for route in wrong)
    numbers = {
        "cards": cards,
        "routes": len(wrong),
        "bytes_each": COPY_BYTES,
        "peer_access_pairs": sum(access.values()),
        "pairs": len(access),
        "wrong_bytes": max(wrong.values()),
    }
    keys = {"device": "cuda:0", "numbers": numbers, "thresholds": dict(thresholds)}
    bad = {route: count for route, count in wrong.items() if count > thresholds["wrong_bytes"]}
    if bad:
        direct = [route for route in bad if any(access.get(pair) for pair in zip(route, route[1:]))]
        lines = [
            f"{' → '.join(map(str, route))}: {count} of {COPY_BYTES} bytes are wrong" for route, count in bad.items()
        ]
        if direct:
            keys["cause"] = "nccl-p2p-acs"
        how = "with direct peer access" if direct else "through the host"
        return failed(f"copies between cards arrive damaged ({how})", evidence="\n".join(lines[:16]), **keys)
    text = f"{len(wrong)} routes between {cards} cards, every byte right"
    return passed(f"{text}; peer access in {sum(access.values())} of {len(access)} pairs", **keys)


def nccl(context):
    """All-reduce of integers with exact sums, one process a card; on a hang or a wrong sum once more without P2P."""
    import torch

    reason = ranks.why_no_nccl(torch)
    if reason:
        return skipped(reason, device=context.device)
    world = min(torch.cuda.device_count(), ranks.MAX_CARDS)
    limit_s = min(context.thresholds["attempt_s"], 0.45 * context.limit_s)
    return judge_attempts(retried("nccl", world, limit_s), world, context.thresholds)


def retried(backend: str, world: int, limit_s: float):
    """The attempts in order: one; where it hung or gave wrong sums between several cards, a second with P2P off."""
    attempts = [attempt(backend, world, limit_s, {})]
    if world > 1 and attempts[0]["ending"] in ("hang", "wrong"):
        attempts.append(attempt(backend, world, limit_s, P2P_OFF))
    return attempts


def judge_attempts(attempts, world: int, thresholds):
    """The verdict on one attempt, or on two of which the second was without P2P."""
    first, last = attempts[0], attempts[-1]
    numbers = {
        "world_size": world,
        "ending": first["ending"],
        "seconds": first["seconds"],
        "wrong_sums": first["wrong"],
    }
    keys = {"device": "cuda:0", "numbers": numbers, "thresholds": dict(thresholds)}
    if len(attempts) > 1:
        numbers.update(ending_without_p2p=last["ending"], wrong_sums_without_p2p=last["wrong"])
    if first["ending"] == "right":
        return passed(f"all-reduce over {world} process(es): every sum exact", **keys)
    told = {"hang": "hangs", "wrong": "gives wrong sums", "died": "fails"}
    if last["ending"] == "right":
        text = f"P2P is broken: all-reduce {told[first['ending']]}, and is right with NCCL_P2P_DISABLE=1"
        return warned(text, evidence=f"{text}\n{first['words']}".strip(), cause="nccl-p2p-acs", **keys)
    cause = {"hang": "nccl-timeout", "wrong": "numerics-wrong"}.get(last["ending"])
    if cause:
        keys["cause"] = cause
    text = f"all-reduce over {world} process(es) {told[last['ending']]}"
    text += ", with NCCL_P2P_DISABLE=1 as well" if len(attempts) > 1 else ""
    return failed(text, evidence=last["words"] or text, **keys)


def attempt(backend: str, world: int, limit_s: float, variables: dict) -> dict:
    """One run of all ranks: {ending: right|wrong|hang|died, seconds, wrong (sums), words (of the first bad rank)}."""
    outcome = ranks.run("checks_multi:wrong_sums", world, {"backend": backend}, limit_s, variables)
    return {"seconds": outcome.seconds, **ending(outcome, limit_s)}


def ending(outcome, limit_s: float) -> dict:
    """What the ranks' reports amount to: {ending, wrong, words}. A rank that died explains one that then waited."""
    wrong = sum(answer["wrong"] for answer in outcome.answers())
    silent, dead = outcome.silent(), outcome.dead()
    if dead:
        return {"ending": "died", "wrong": wrong, "words": "\n".join(report.words for report in dead[:3])}
    if silent and outcome.late:
        words = f"{len(silent)} of {len(outcome.reports)} ranks had not ended after {limit_s:.1f} s"
        return {"ending": "hang", "wrong": wrong, "words": f"{words}\n{silent[0].words}"}
    if silent:
        return {"ending": "died", "wrong": wrong, "words": "a rank ended without a report\n" + silent[0].words}
    if wrong:
        return {"ending": "wrong", "wrong": wrong, "words": f"{wrong} sums are not the exact ones"}
    return {"ending": "right", "wrong": 0, "words": ""}


def wrong_sums(job) -> dict:
    """Called in a rank: how many elements of all sums are not exact."""
    import torch

    device = ranks.joined(torch, job)
    wrong = 0
    for dtype in (torch.int64, torch.float32):
        for size in SUM_SIZES:
            data, expected = ranks.numbered(torch, job, size, dtype, device)
            torch.distributed.all_reduce(data)
            wrong += int((data != expected).sum())
    return {"wrong": wrong}
