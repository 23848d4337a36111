"""Owns GPT-2 (Radford et al. 2019): pre-norm blocks, learned positions, tanh GELU, input and output embedding tied.

Built here, because an image need not carry transformers. No dropout: it costs time and proves nothing. `SMALL` has
124,475,904 parameters: the original's, and the rows that pad the vocabulary to a multiple of 128.
Must not know what is measured with it.
"""

from __future__ import annotations

from . import attention


class Size:
    """How large a GPT-2 is: blocks, width, attention heads, positions (tokens of one sequence), vocabulary."""

    def __init__(self, layers: int, width: int, heads: int, positions: int, vocabulary: int):
        self.layers = layers
        self.width = width
        self.heads = heads
        self.positions = positions
        self.vocabulary = vocabulary

    def flop_per_token(self, parameters: int) -> float:
        """Model FLOP of one token in training, forward and backward: 6·N + 12·layers·width·positions.

        N counts every parameter but the positions' (the vocabulary's rows work as the output layer). The second term
        is attention, causal or not (PaLM, arXiv:2204.02311, appendix B).
        """
        worked = parameters - self.positions * self.width
        return 6.0 * worked + 12.0 * self.layers * self.width * self.positions


SMALL = Size(layers=12, width=768, heads=12, positions=1024, vocabulary=50304)
TINY = Size(layers=2, width=64, heads=4, positions=64, vocabulary=512)


def gpt2(torch, size: Size):
    """A GPT-2 that maps tokens (batch × positions) to logits, initialised as the original: normal, 0.02."""
    nn = torch.nn
    block = _block_class(torch, size)

    class Gpt2(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Embedding(size.vocabulary, size.width)
            self.places = nn.Embedding(size.positions, size.width)
            self.blocks = nn.ModuleList([block() for _ in range(size.layers)])
            self.norm = nn.LayerNorm(size.width)

        def forward(self, tokens):
            places = torch.arange(tokens.shape[1], device=tokens.device)
            hidden = self.tokens(tokens) + self.places(places)
            for each in self.blocks:
                hidden = each(hidden)
            return nn.functional.linear(self.norm(hidden), self.tokens.weight)

    model = Gpt2()
    _initialise(torch, model, size)
    return model


def _block_class(torch, size):
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm_1 = nn.LayerNorm(size.width)
            self.qkv = nn.Linear(size.width, 3 * size.width)
            self.mixed = nn.Linear(size.width, size.width)
            self.norm_2 = nn.LayerNorm(size.width)
            self.wide = nn.Linear(size.width, 4 * size.width)
            self.narrow = nn.Linear(4 * size.width, size.width)

        def forward(self, hidden):
            batch, length, width = hidden.shape
            parts = self.qkv(self.norm_1(hidden)).split(width, dim=2)
            heads = [part.view(batch, length, size.heads, width // size.heads).transpose(1, 2) for part in parts]
            seen = _attention(torch, *heads).transpose(1, 2).reshape(batch, length, width)
            hidden = hidden + self.mixed(seen)
            wide = nn.functional.gelu(self.wide(self.norm_2(hidden)), approximate="tanh")
            return hidden + self.narrow(wide)

    return Block


def _attention(torch, query, key, value):
    """Causal attention: PyTorch's fused one where there is one, the formula where there is none."""
    if attention.has_fused(torch):
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    return attention.plain(torch, query, key, value)


def count(model) -> int:
    """Number of parameters; a tied one counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _initialise(torch, model, size):
    """Normal, 0.02; what is added to the residual stream smaller, by the root of the number of additions."""
    for module in model.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Embedding)):
            torch.nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.zeros_(module.bias)
    for block in model.blocks:
        for module in (block.mixed, block.narrow):
            torch.nn.init.normal_(module.weight, std=0.02 * (2 * size.layers) ** -0.5)
