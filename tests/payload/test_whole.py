"""The whole payload on a real PyTorch: what it costs, and that its verdicts do not depend on who shares a process."""

from __future__ import annotations

import pytest

from cuda_matrix.reference import load_items

# Everything that computes: what shares a process, and enough of what does not.
CHECKS = ("torch", "first-kernel", "libs", "numerics", "attention", "training", "export")
# What a smoke run may cost beside its items, torch.import among them, in imports of torch: 0.2 to 0.3.
OVERHEAD_IMPORTS = 0.3
ATTEMPTS = 3  # what somebody else does on this machine only ever adds to it
SMOKE_BUDGET_S = load_items().budgets_s["smoke"]


@pytest.fixture
def sound(deployed, real_torch):
    deployed.use(real_torch)
    return deployed


def test_verdicts_do_not_depend_on_who_shares_a_process(sound):
    together = sound.run(checks=CHECKS, benchmarks=())
    alone = sound.run(checks=CHECKS, benchmarks=(), share=False)
    assert together.statuses() == alone.statuses()
    assert {"fail", "crash", "timeout"}.isdisjoint(together.statuses().values()), together.statuses()
    for name, end in together.ends().items():
        assert end.get("cause") == alone.end(name).get("cause")
        assert end["summary"] == alone.end(name)["summary"] or name == "torch.import"


def test_a_smoke_run_is_in_its_budget_and_costs_little_beside_its_items(sound):
    overheads = []
    while len(overheads) < ATTEMPTS and not [each for each in overheads if each <= OVERHEAD_IMPORTS]:
        run = sound.run(limit_s=120.0)
        spent = {name: end["seconds"] for name, end in run.ends().items() if "seconds" in end}
        import_s = run.end("torch.import")["numbers"]["import_s"]
        assert {"fail", "crash", "timeout"}.isdisjoint(run.statuses().values()), run.statuses()
        assert not [name for name, end in run.ends().items() if "budget" in end["summary"]], spent
        assert run.seconds < SMOKE_BUDGET_S + import_s, spent
        overheads.append((run.seconds - sum(spent.values())) / import_s)
    assert min(overheads) <= OVERHEAD_IMPORTS, overheads
