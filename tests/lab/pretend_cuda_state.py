"""Owns what the parts of the pretended card share: which tensor lies where.

Must not know what is computed, nor how a card is asked for.
"""

from __future__ import annotations

import threading


class State:
    """What the modes share."""

    def __init__(self, torch, cards):
        self.torch, self.cards = torch, cards
        self.local = threading.local()

    @property
    def inside(self):
        return getattr(self.local, "inside", 0)

    def storage(self, tensor):
        """The untyped storage that says where a tensor lies; None for one that has no memory here."""
        self.local.inside = self.inside + 1
        try:
            if tensor.layout is not self.torch.strided:
                tensor = tensor._values() if tensor.layout is self.torch.sparse_coo else tensor.values()
            if hasattr(tensor, "untyped_storage"):
                return tensor.untyped_storage()
            return tensor.storage().untyped()  # torch 1.13
        except (RuntimeError, NotImplementedError, AttributeError):  # fake, meta, functorch and MKLDNN tensors
            return None
        finally:
            self.local.inside -= 1

    def entry(self, tensor):
        storage = self.storage(tensor)
        return None if storage is None else self.cards.storages.get(storage._cdata)

    def card(self, tensor):
        """On which card a tensor lies; None: on the host."""
        entry = self.entry(tensor)
        return None if entry is None else entry[1]

    def put(self, value, index):
        """Say of every tensor in `value` that it lies on card `index`."""
        for tensor in tensors(self.torch, (value,)):
            storage = self.storage(tensor)
            if storage is None:
                continue
            entry = self.cards.storages.get(storage._cdata)
            if entry is None or entry[1] != index:
                self.cards.place(storage, index)
        return value

    def bring_back(self, value):
        for tensor in tensors(self.torch, (value,)):
            storage = self.storage(tensor)
            if storage is not None:
                self.cards.take_away(storage)
        return value

    def index(self, device):
        """Card number of a device argument; None where it is not a CUDA device."""
        device = self.torch.device("cuda", device) if isinstance(device, int) else self.torch.device(device)
        if device.type != "cuda":
            return None
        self.cards.use()
        return self.cards.valid(self.cards.current if device.index is None else device.index)


def tensors(torch, values):
    """Every tensor in arguments, lists of them included."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors(torch, value)
        elif isinstance(value, dict):
            yield from tensors(torch, value.values())


def deep(torch, value, change):
    """Arguments with every tensor changed."""
    if isinstance(value, (list, tuple)):
        return type(value)(deep(torch, each, change) for each in value)
    return change(value) if isinstance(value, torch.Tensor) else value


def one_device(state, found):
    if len(found) < 2:
        return
    cards = {state.card(tensor) for tensor in found if tensor.dim() > 0 or state.card(tensor) is not None}
    cards = {"cpu" if card is None else f"cuda:{card}" for card in cards}
    if len(cards) > 1:
        first, second = sorted(cards, key=lambda name: (name == "cpu", name))[:2]
        text = "Expected all tensors to be on the same device, but found at least two devices, {} and {}!"
        raise RuntimeError(text.format(first, second))
