"""Owns what tensors, generators and saved storages say about their device, and the moves between devices.

It replaces methods of torch.Tensor and a few constructors that choose a device before any operation is dispatched.
"""

from __future__ import annotations


def generator_type(torch, state):
    """torch.Generator that may belong to a card."""

    class Generator(torch._C.Generator):
        def __new__(cls, device="cpu"):
            self = super().__new__(cls, "cpu")
            self._card = state.index(device)
            return self

        def __init__(self, device="cpu"):
            pass

        @property
        def device(self):
            return torch.device("cpu") if self._card is None else torch.device("cuda", self._card)

    return Generator


class Attribute:
    """An attribute of tensors with another answer; no `property`, which torch's compiler stumbles over."""

    def __init__(self, real, get):
        self.real, self.get = real, get

    def __get__(self, tensor, owner=None):
        return self if tensor is None else self.get(tensor)

    def __set__(self, tensor, value):
        self.real.__set__(tensor, value)

    def __delete__(self, tensor):
        self.real.__delete__(tensor)


def alone(torch, call):
    """Call C code past the function mode, which would be given the method that replaces it."""

    def run(*args, **kwargs):
        with torch._C.DisableTorchFunction():
            return call(*args, **kwargs)

    return run


def tensor_methods(torch, state):
    """Replace the methods of tensors that tell or change their place."""
    methods = {**places(torch, state), **moves(torch, state), **pinning(torch, state)}
    for name, method in methods.items():
        setattr(torch.Tensor, name, method)


def places(torch, state):
    """What a tensor says about its place."""
    cls = torch.Tensor
    base = torch._C._TensorBase
    get_device, get_grad = alone(torch, base.device.__get__), alone(torch, base.grad.__get__)
    real_type, real_numpy = alone(torch, cls.type), alone(torch, cls.numpy)

    def device(self):
        index = state.card(self)
        return get_device(self) if index is None else torch.device("cuda", index)

    def grad(self):
        found = get_grad(self)
        if found is not None:
            index = state.card(self)
            if state.card(found) != index:
                state.bring_back(found) if index is None else state.put(found, index)
        return found

    def numpy(self, **options):
        if state.card(self) is not None and not options.get("force"):
            help_text = "Use Tensor.cpu() to copy the tensor to host memory first."
            raise TypeError(f"can't convert {self.device} device type tensor to numpy. {help_text}")
        return real_numpy(self, **options)

    def kind(self, dtype=None, non_blocking=False, **options):
        if dtype is None:
            name = real_type(self)
            return name if state.card(self) is None or ".cuda." in name else name.replace("torch.", "torch.cuda.", 1)
        if isinstance(dtype, str) and dtype.startswith("torch.cuda."):
            self, dtype = self.cuda(), dtype.replace("cuda.", "")
        return real_type(self, dtype, non_blocking, **options)

    return {
        "device": Attribute(base.device, device),
        "is_cuda": Attribute(base.is_cuda, lambda self: state.card(self) is not None),
        "grad": Attribute(base.grad, grad),
        "get_device": lambda self: -1 if state.card(self) is None else state.card(self),
        "numpy": numpy,
        "type": kind,
        "record_stream": lambda self, stream: None,
    }


def moves(torch, state):
    """From one device to another: always into new memory."""
    real = alone(torch, torch.Tensor.to)

    def to(self, *args, **kwargs):
        target, dtype, layout, copy = wanted(torch, self, args, dict(kwargs))
        if target.type == "meta":
            return real(self, target, dtype)
        here, there = state.card(self), state.index(target)
        keep = {} if layout is None else {"memory_format": layout}
        if here == there:
            return real(self, dtype, copy=copy, **keep)
        if here is not None:
            state.cards.synchronize()
        else:
            size = torch.empty((), dtype=dtype).element_size()
            state.cards.reserve(self.numel() * size, there)
        result = real(self, dtype, copy=True, **keep)
        return state.bring_back(result) if there is None else state.put(result, there)

    def cuda(self, device=None, non_blocking=False, memory_format=torch.preserve_format):
        return to(self, torch.device("cuda", state.index("cuda" if device is None else device)))

    return {"to": to, "cuda": cuda, "cpu": lambda self, memory_format=torch.preserve_format: to(self, "cpu")}


def wanted(torch, tensor, args, kwargs):
    """(device, dtype, memory format, copy) that a call of Tensor.to asks for."""
    copy = kwargs.pop("copy", False)
    other = args[0] if args and isinstance(args[0], torch.Tensor) else kwargs.pop("other", None)
    if other is not None:
        return other.device, other.dtype, None, copy
    if sum(isinstance(value, bool) for value in args) == 2:  # non_blocking, copy
        copy, args = args[-1], args[:-1]
    device, dtype, _, layout = torch._C._nn._parse_to(*args, **kwargs)
    return device or tensor.device, dtype or tensor.dtype, layout, copy


def pinning(torch, state):
    """Pinned host memory: a mark on a copy."""

    def is_pinned(self, device=None):
        entry = state.entry(self)
        return entry is not None and entry[1] is None

    def pin_memory(self, device=None):
        if state.card(self) is not None:
            raise RuntimeError(f"cannot pin '{self.type()}' only dense CPU tensors can be pinned")
        state.cards.use()
        if is_pinned(self):
            return self
        copy = self.clone()
        state.cards.place(state.storage(copy), None)
        return copy

    return {"is_pinned": is_pinned, "pin_memory": pin_memory}


def constructors(torch, state):
    """Those that put their device before the dispatcher."""

    def with_device(real):
        def make(*args, **kwargs):
            device = kwargs.get("device")
            index = None if device is None else state.index(device)
            if index is None:
                return real(*args, **kwargs)
            gradient = kwargs.pop("requires_grad", False)
            kwargs["device"] = "cpu"
            if args and isinstance(args[0], torch.Tensor):
                return args[0].to(torch.device("cuda", index), kwargs.get("dtype") or args[0].dtype)
            made = real(*args, **kwargs).to(torch.device("cuda", index))
            return made.requires_grad_() if gradient else made

        return make

    for name in ("tensor", "as_tensor", "asarray"):
        setattr(torch, name, with_device(getattr(torch, name)))


def serialization(torch, state):
    """torch.save writes where a storage lay, and torch.load puts it there."""

    def untyped(storage):
        for name in ("_untyped_storage", "_storage"):
            storage = getattr(storage, name, storage)
        return storage

    def tag(storage):
        entry = state.cards.storages.get(untyped(storage)._cdata)
        return None if entry is None or entry[1] is None else f"cuda:{entry[1]}"

    def restore(storage, location):
        if not str(location).startswith("cuda"):
            return None
        index = state.index(str(location))
        state.cards.place(untyped(storage), index)
        return storage

    torch.serialization.register_package(5, tag, restore)
