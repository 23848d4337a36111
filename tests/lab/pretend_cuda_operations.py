"""Owns how an operation on a pretended card is computed on the CPU, and how it fails as a card fails.

Must not know how operations are caught, nor how the results are told to lie on the card.
"""

from __future__ import annotations

import os

from pretend_cuda_state import deep, tensors

PRODUCTS = {
    "mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "matmul", "linear", "addr", "convolution",
    "convolution_backward", "_convolution",
}  # fmt: skip
CONVOLUTIONS = {"convolution", "convolution_backward", "_convolution"}
RANDOM = (
    "rand", "normal", "uniform", "bernoulli", "dropout", "multinomial", "exponential", "poisson", "geometric",
    "cauchy",
)  # fmt: skip
FACTORIES = {
    "empty", "zeros", "ones", "full", "rand", "randn", "randint", "empty_strided", "empty_permuted",
    "new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided",
}  # fmt: skip
# Operations in which a kernel checks its indices.
INDEXED = ("embedding", "gather", "scatter", "index", "take", "nll_loss", "one_hot", "_assert")


class Operations:
    """How an operation on a card is computed on the CPU."""

    def __init__(self, torch, state):
        self.torch, self.state, self.cards = torch, state, state.cards
        self.low = (torch.float16, torch.bfloat16)

    def run(self, name, func, args, kwargs, index):
        special = getattr(self, "op" + name if name.startswith("_") else "op_" + name, None)
        if special is not None:
            return special(*args, **kwargs)
        if name in FACTORIES:
            self._make_room(name, args, kwargs, index)
        if any(word in name for word in RANDOM):
            return self._random(func, args, kwargs, index)
        try:
            if name in PRODUCTS:
                return self._product(name, func, args, kwargs)
            return func(*args, **kwargs)
        except (IndexError, RuntimeError) as error:
            if self._out_of_range(name, error):
                return self._assert(name, func, args, kwargs)
            if "not implemented for" not in str(error):
                raise
            return self._in_single(func, args, kwargs)

    def record(self, name, func, args, kwargs, index):
        """During the capture of a graph: nothing is written; each replay does it again on the same memory."""
        if name == "_local_scalar_dense":
            raise self.cards.error("operation not permitted when stream is capturing")
        written = kwargs["out"] if "out" in kwargs else args[0] if name.endswith("_") else None
        known = {self._place(tensor) for tensor in tensors(self.torch, (*args, *kwargs.values()))}
        result = self.run(name, func, args, kwargs, index) if written is None else written
        made = [tensor for tensor in tensors(self.torch, (result,)) if self._place(tensor) not in known]

        def once():
            self.state.local.inside = self.state.inside + 1
            try:
                new = self.run(name, func, args, kwargs, index)
                for old, tensor in zip(made, tensors(self.torch, (new,)), strict=False):
                    old.detach().copy_(tensor)
            finally:
                self.state.local.inside -= 1

        if made or written is not None:  # the rest are views
            self.cards.capture.calls.append(once)
        return None if isinstance(written, list) else result

    def _place(self, tensor):
        storage = self.state.storage(tensor)
        return None if storage is None else storage._cdata

    def _make_room(self, name, args, kwargs, index):
        shape = args[1] if name.startswith("new_") else args[1 if name == "randint" and len(args) == 2 else 0]
        shape = args[2] if name == "randint" and len(args) == 3 else shape
        dtype = kwargs.get("dtype") or (args[0].dtype if name.startswith("new_") else self.torch.get_default_dtype())
        count = 1
        for part in shape if isinstance(shape, (list, tuple)) else ():
            count *= int(part)
        self.cards.reserve(count * self.torch.empty((), dtype=dtype).element_size(), index)

    def _random(self, func, args, kwargs, index):
        """With the card's own generator: lend its state to the host's."""
        if kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        host, card = self.torch.default_generator, self.cards.random[index]
        before = host.get_state()
        host.set_state(card.get_state())
        try:
            return func(*args, **kwargs)
        finally:
            card.set_state(host.get_state())
            host.set_state(before)

    def _product(self, name, func, args, kwargs):
        """Half precision as a tensor core does it: summed in fp32, rounded once. TF32 where it is on."""
        found = [tensor for tensor in tensors(self.torch, args) if tensor.is_floating_point()]
        if found and found[0].dtype in self.low:
            return self._in_single(func, args, kwargs)
        if found and found[0].dtype is self.torch.float32 and self._tf32(name):
            args = self._map(args, self._round_tf32)
        return func(*args, **kwargs)

    def _tf32(self, name):
        override = os.environ.get("NVIDIA_TF32_OVERRIDE")
        if self.cards.capability < (8, 0) or override == "0":
            return False
        backends = self.torch.backends
        return override == "1" or (
            backends.cudnn.allow_tf32 and backends.cudnn.enabled
            if name in CONVOLUTIONS
            else backends.cuda.matmul.allow_tf32
        )

    def _round_tf32(self, tensor):
        """Ten bits of mantissa, to the nearest."""
        if tensor.dtype is not self.torch.float32 or not tensor.numel():
            return tensor
        bits = tensor.detach().contiguous().view(self.torch.int32)
        return ((bits + 0x1000) & ~0x1FFF).view(self.torch.float32)

    def _in_single(self, func, args, kwargs):
        """Compute in fp32 and round the results to the inputs' type."""
        torch = self.torch
        found = [tensor for tensor in tensors(torch, args) if tensor.dtype in self.low]
        if not found:
            raise NotImplementedError(f"{func} has no kernel on the CPU")
        dtype = found[0].dtype
        single = self._map(args, lambda tensor: tensor.float() if tensor.dtype in self.low else tensor)
        out = kwargs.get("out")
        if isinstance(out, torch.Tensor):
            return out.copy_(func(*single, **{**kwargs, "out": out.float()}))
        result = func(*single, **kwargs)
        if func.__name__.split(".")[0].endswith("_") and isinstance(result, torch.Tensor):
            return args[0].copy_(result)
        back = self._map((result,), lambda tensor: tensor.to(dtype) if tensor.dtype is torch.float32 else tensor)
        return back[0]

    def _map(self, values, change):
        return deep(self.torch, values, change)

    def _out_of_range(self, name, error):
        text = str(error)
        words = ("out of bounds", "out of range", "Expected Tensor with single nonzero value", "Assertion")
        return any(word in text for word in words) and any(tensor_op in name for tensor_op in INDEXED)

    def _assert(self, name, func, args, kwargs):
        """A kernel on a card does not raise: it hits an assert, and what it wrote is anything."""
        self.cards.device_assert(f"../aten/src/ATen/native/cuda/{name}.cu:1: {name}")
        if name.startswith("_assert"):
            return None
        torch = self.torch
        integer = (torch.int64, torch.int32)
        args = self._map(args, lambda tensor: torch.zeros_like(tensor) if tensor.dtype in integer else tensor)
        return func(*args, **kwargs)

    # Operations that only a card has, or that the CPU has only in newer versions.

    def op_amp_foreach_non_finite_check_and_unscale_(self, gradients, found_inf, inverse):
        for gradient in gradients:
            if not bool(self.torch.isfinite(gradient).all()):
                found_inf.fill_(1.0)
            gradient.mul_(inverse.to(gradient.dtype))

    def op_amp_update_scale_(self, scale, tracker, found_inf, growth, backoff, interval):
        if float(found_inf):
            scale.mul_(backoff)
            tracker.zero_()
        else:
            tracker.add_(1)
            if int(tracker) == interval:
                scale.mul_(growth)
                tracker.zero_()
        return scale

    def op_fused_adam_(self, *lists, **options):
        """CPUs have it since torch 2.4. The caller has counted the step, which an infinite gradient takes back."""
        scale, found_inf = options.get("grad_scale"), options.get("found_inf")
        weights, gradients, means, squares, _, steps = lists  # the fifth is amsgrad's, which is not imitated
        for index, weight in enumerate(weights):
            if found_inf is not None and float(found_inf):
                steps[index].sub_(1)
                continue
            if scale is not None:
                gradients[index].div_(scale)
            gradient = -gradients[index] if options["maximize"] else gradients[index]
            self._adam(weight, gradient, (means[index], squares[index]), float(steps[index]), options)

    def _adam(self, weight, gradient, moments, step, options):
        first, second = options["beta1"], options["beta2"]
        if options.get("decoupled"):
            weight.mul_(1 - float(options["lr"]) * options["weight_decay"])
        elif options["weight_decay"]:
            gradient = gradient + options["weight_decay"] * weight
        moments[0].mul_(first).add_(gradient, alpha=1 - first)
        moments[1].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        bottom = (moments[1] / (1 - second**step)).sqrt_().add_(options["eps"])
        weight.addcdiv_(moments[0], bottom, value=-float(options["lr"]) / (1 - first**step))

    def op_fused_adamw_(self, *lists, **options):
        self.op_fused_adam_(*lists, **options, decoupled=True)

    def op_cudnn_rnn_flatten_weight(self, weights, *_):
        return weights[0].flatten()  # on a card, all weights in one piece; nothing here needs it

    def op_int_mm(self, left, right):
        if self.cards.capability < (7, 5):
            raise RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling cublasLtMatmul")
        return (left.double() @ right.double()).to(self.torch.int32)

    def op_scaled_mm(self, left, right, *rest, **options):
        """The signature changed: scales were keywords (2.1 … 2.4, result with amax), later they are positional."""
        if self.cards.capability < (8, 9):
            raise RuntimeError(
                "torch._scaled_mm is only supported on CUDA devices with compute capability >= 9.0 or 8.9"
            )
        torch = self.torch
        old = not (rest and isinstance(rest[0], torch.Tensor) and rest[0].dtype is torch.float32)
        scales = [options.get("scale_a"), options.get("scale_b")] if old else list(rest[:2])
        product = left.to(torch.float32) @ right.to(torch.float32)
        for scale in scales:
            product = product if scale is None else product * scale
        dtype = options.get("out_dtype") or next((each for each in rest if isinstance(each, torch.dtype)), left.dtype)
        result = product.to(dtype)
        return (result, product.abs().max()) if old else result
