"""Makes a real PyTorch without a card behave as if it had cards: tensors say `cuda:0` and are computed on the CPU.

`install(torch, settings)` right after `import torch`; the settings are those of pretend_cuda_card.DEFAULTS. A card is
a property of a tensor's storage, so that views, Parameters, `.data` and in-place operations carry it. A dispatch mode
sees every operation (those of backward too) and passes the card from inputs to results; a function mode sees what the
caller wrote, and refuses operands on two devices. What is computed is not what a card computes: no Triton, no CUDA
kernel, no PTX, no NVML; TF32 and FP8 are imitated by rounding. torch.compile and torch.export fail on a model that lies
on such a card: they switch Python's modes off and make CUDA tensors in C++.
"""

from __future__ import annotations

import atexit
import threading

import pretend_cuda_autocast
import pretend_cuda_card
import pretend_cuda_runtime
import pretend_cuda_tensors
from pretend_cuda_operations import Operations
from pretend_cuda_state import State, one_device, tensors

# Functions that may take tensors of two devices, or that work on no data at all.
MIXED = {
    "copy_", "to", "cpu", "cuda", "type", "type_as", "__setitem__", "__getitem__", "index_put_", "index_put",
    "backward", "grad", "__set__", "__get__", "__deepcopy__", "set_", "result_type", "can_cast", "is_same_size",
    "_pack_padded_sequence", "ctc_loss", "tensor_split", "save", "load", "__reduce_ex__",
    "_has_compatible_shallow_copy_type", "broadcast_tensors", "is_tensor", "promote_types", "is_floating_point",
    "as_tensor", "tensor", "__repr__", "__format__", "expand_as", "view_as", "reshape_as",
}  # fmt: skip


def function_mode(torch, state):
    """What the caller wrote: one device for all operands, and fp32 where CUDA autocast wants it."""
    from torch.overrides import TorchFunctionMode

    class CallerSide(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            kwargs = kwargs or {}
            if state.inside:
                return func(*args, **kwargs)
            name = getattr(func, "__name__", "")
            if name not in MIXED:
                one_device(state, [*tensors(torch, args), *tensors(torch, kwargs.values())])
            if kwargs.get("generator") is not None:
                own_generator(state, args, kwargs)
            result = func(*args, **kwargs)
            if name in ("__deepcopy__", "new_tensor", "new") and isinstance(args[0], torch.Tensor):
                index = state.card(args[0])
                if index is not None and "device" not in kwargs:
                    state.put(result, index)
            elif kwargs.get("device") is not None and name.endswith("_like") and state.index(kwargs["device"]) is None:
                state.bring_back(result)
            return result

    return CallerSide()


def own_generator(state, args, kwargs):
    """A card draws from a card's generator only, and the host from the host's."""
    where = kwargs.get("device", getattr(args[0], "device", None) if args else None)
    wanted = "cpu" if where is None or state.index(where) is None else "cuda"
    if kwargs["generator"].device.type != wanted:
        found = kwargs["generator"].device.type
        raise RuntimeError(f"Expected a '{wanted}' device type for generator but found '{found}'")


def dispatch_mode(torch, state):
    """Every operation, the engine's own included: runs on the CPU, and its results lie where its inputs lay."""
    from torch.utils._python_dispatch import TorchDispatchMode

    cards = state.cards
    operations = Operations(torch, state)

    class CardSide(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            kwargs = dict(kwargs or {})
            device, pinned = kwargs.get("device"), kwargs.pop("pin_memory", False)
            index = None
            if device is not None and device.type == "cuda":
                index = state.index(device)
                kwargs["device"] = torch.device("cpu")
            elif device is None or device.type == "cpu":
                for tensor in tensors(torch, (*args, *kwargs.values())):
                    index = state.card(tensor)
                    if index is not None:
                        break
            if index is None:
                result = func(*args, **kwargs)
                if pinned:
                    state.put(result, None)
                return result
            cards.use()
            name = func.__name__.split(".")[0]
            state.local.inside = state.inside + 1
            try:
                if cards.capture is None:
                    result = operations.run(name, func, args, kwargs, index)
                else:
                    result = operations.record(name, func, args, kwargs, index)
                if name != "copy_":
                    state.put(result, index)
            finally:
                state.local.inside -= 1
            return result

    return CardSide()


def install(torch, settings):
    """Turn the pretence on in this process, its threads and its children."""
    import torch.cuda  # a module that a bare `import torch` has, named here because it is what is changed
    import torch.cuda.graphs

    cards = pretend_cuda_card.Cards(torch, settings)
    state = State(torch, cards)
    generator = pretend_cuda_tensors.generator_type(torch, state)
    torch.Generator = generator
    generators = tuple(generator("cpu") for _ in range(cards.count))
    pretend_cuda_runtime.install(torch, cards, generators)
    for index, each in enumerate(generators):
        each._card = index
    pretend_cuda_tensors.tensor_methods(torch, state)
    pretend_cuda_tensors.constructors(torch, state)
    pretend_cuda_autocast.attention(torch, state)
    pretend_cuda_autocast.autocast(torch, state)
    pretend_cuda_tensors.serialization(torch, state)
    modes = function_mode(torch, state), dispatch_mode(torch, state)
    for mode in modes:
        mode.__enter__()
        atexit.register(mode.__exit__, None, None, None)
    threads(modes)
    return cards


def threads(modes):
    """Modes belong to a thread: switch them on in each new one."""
    start = threading.Thread._bootstrap_inner

    def bootstrap(self):
        with modes[0], modes[1]:
            start(self)

    threading.Thread._bootstrap_inner = bootstrap
