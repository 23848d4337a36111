"""Owns attention as its formula says it: softmax(Q·Kᵀ/√width)·V, causal or not; and whether torch has a fused one.

Must not know who uses it, nor how exact it is.
"""

from __future__ import annotations


def has_fused(torch) -> bool:
    """Whether this torch has `scaled_dot_product_attention` (2.0 and newer)."""
    return hasattr(torch.nn.functional, "scaled_dot_product_attention")


def scores(torch, query, key, causal: bool = True):
    """What the softmax is taken of; tensors are (…, tokens, width)."""
    found = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    if causal:
        hidden = torch.ones(found.shape[-2:], dtype=torch.bool, device=found.device).triu(1)
        found = found.masked_fill(hidden, float("-inf"))
    return found


def plain(torch, query, key, value, causal: bool = True):
    """The formula by torch's own softmax."""
    return torch.softmax(scores(torch, query, key, causal), dim=-1) @ value
