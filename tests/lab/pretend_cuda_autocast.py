"""Owns autocast and attention on the pretended card: which type an operation gets, and which back end may serve it."""

from __future__ import annotations

import functools

from pretend_cuda_state import deep, one_device, tensors

LOWERED = (
    "linear", "matmul", "mm", "bmm", "addmm", "addbmm", "baddbmm", "mv", "addmv", "einsum", "__matmul__",
    "__rmatmul__", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "prelu", "scaled_dot_product_attention",
)  # fmt: skip
# PyTorch's documentation, Automatic Mixed Precision, "CUDA Ops that can autocast to float32".
FULL_PRECISION = (
    "softmax", "log_softmax", "layer_norm", "group_norm", "cross_entropy", "nll_loss", "mse_loss", "l1_loss",
    "smooth_l1_loss", "kl_div", "exp", "log", "pow", "sum", "prod", "cumsum", "norm", "rsqrt", "softplus",
)  # fmt: skip


def autocast(torch, state):
    """autocast("cuda"): products get the lower type, some operations fp32; CPU tensors are let be."""

    def lower(real, dtype=None):
        def run(*args, **kwargs):
            wanted = autocast_type(torch)
            if wanted is not None:
                found = list(tensors(torch, (args, kwargs)))
                if any(state.card(tensor) is not None for tensor in found):
                    change = functools.partial(cast, torch, dtype or wanted)
                    args = deep(torch, args, change)
                    kwargs = {key: deep(torch, value, change) for key, value in kwargs.items()}
            return real(*args, **kwargs)

        return functools.wraps(real)(run) if hasattr(real, "__name__") else run

    for owner in (torch, torch.Tensor, torch.nn.functional):
        for names, dtype in ((LOWERED, None), (FULL_PRECISION, torch.float32)):
            for name in names:
                if hasattr(owner, name):
                    setattr(owner, name, lower(getattr(owner, name), dtype))


def autocast_type(torch):
    """The type that autocast("cuda") asks for here; None where it is off."""
    if not torch.is_autocast_enabled():
        return None
    return torch.get_autocast_dtype("cuda") if hasattr(torch, "get_autocast_dtype") else torch.get_autocast_gpu_dtype()


def cast(torch, dtype, tensor):
    return tensor.to(dtype) if tensor.dtype in (torch.float16, torch.bfloat16, torch.float32) else tensor


def attention(torch, state):
    """scaled_dot_product_attention: a back end that this card cannot have is refused as CUDA refuses it."""
    functional = torch.nn.functional
    real = getattr(functional, "scaled_dot_product_attention", None)
    if real is None:
        return
    flags = torch.backends.cuda

    def run(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, **options):
        if state.card(query) is None:
            return real(query, key, value, attn_mask, dropout_p, is_causal, **options)
        one_device(state, [query, key, value])
        dtype = query.dtype
        half, head = dtype in (torch.float16, torch.bfloat16), query.shape[-1]
        modern = state.cards.capability >= (8, 0)
        able = flags.math_sdp_enabled()
        able |= flags.flash_sdp_enabled() and modern and half and attn_mask is None and head <= 256
        able |= flags.mem_efficient_sdp_enabled() and (modern or dtype is not torch.bfloat16)
        cudnn = getattr(flags, "cudnn_sdp_enabled", None)
        able |= bool(cudnn and cudnn() and modern and half and head <= 128)
        if not able:
            raise RuntimeError("No available kernel. Aborting execution.")
        before = flags.math_sdp_enabled()
        flags.enable_math_sdp(True)
        try:
            return real(query, key, value, attn_mask, dropout_p, is_causal, **options)
        finally:
            flags.enable_math_sdp(before)

    functional.scaled_dot_product_attention = run
