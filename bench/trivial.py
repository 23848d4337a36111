"""The check itself: one tensor, one sum."""

from .context import failed, passed


def check(context):
    """2 = 1 + 1, by torch."""
    import torch

    total = float(torch.ones(2).sum())
    return passed("2", device="cpu") if total == 2.0 else failed(f"1 + 1 = {total}", device="cpu")
