"""Ten trivial torch checks, deployed in place of the payload's items.py: what the machinery itself costs per check."""

from .table import Item

ITEMS = [Item("torch.import", "check", "checks_torch:imported", (60, 60, 60), torch=True)]
ITEMS += [
    Item(f"trivial.{number}", "check", "trivial:check", (60, 60, 60), needs=("torch.import",)) for number in range(10)
]
