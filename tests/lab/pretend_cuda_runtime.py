"""Owns what lies under torch.cuda on the pretended card: the private functions of torch._C, streams, events, graphs.

The real `torch.cuda` calls them, so that torch's own Python code (lazy start, ban of fork, queued calls, statistics)
runs as it does over a real driver.
"""

from __future__ import annotations

import sys
import time
import types


def _base(torch, name):
    """What the compiler of torch 2.1 … 2.4 wants a stream or event to inherit from."""
    try:
        import torch._streambase as base
    except ImportError:
        return object
    return object if hasattr(torch, "Event") else getattr(base, f"_{name}Base")


def stream_types(torch, cards):
    """Stream and Event: work is done at once, so an event is a moment of the host's clock."""

    class Stream(_base(torch, "Stream")):
        last = 0

        def __init__(self, device=None, priority=0, **_):
            cards.use()
            self.device = torch.device("cuda", cards.index(device))
            Stream.last += 1
            self.cuda_stream, self.priority = Stream.last, priority

        def __eq__(self, other):
            return self is other

        __hash__ = object.__hash__

        def synchronize(self):
            cards.synchronize()

        def query(self):
            cards.use()
            return True

        def wait_stream(self, stream):
            cards.use()

        def wait_event(self, event):
            cards.use()

        def record_event(self, event=None):
            event = event or Event()
            event.record(self)
            return event

        @property
        def device_index(self):
            return self.device.index

    class Event(_base(torch, "Event")):
        def __init__(self, enable_timing=False, blocking=False, interprocess=False, **_):
            self.timed, self.moment = enable_timing, None

        def record(self, stream=None):
            cards.use()
            self.moment = time.perf_counter()

        def wait(self, stream=None):
            cards.use()

        def query(self):
            return True

        def synchronize(self):
            cards.synchronize()

        def elapsed_time(self, end):
            cards.use()
            if not (self.timed and end.timed and self.moment is not None and end.moment is not None):
                raise cards.error("invalid resource handle")
            return (end.moment - self.moment) * 1e3

    return Stream, Event


def graph_type(cards):
    """CUDAGraph: what was done during the capture is done again on the same memory at each replay."""

    class CUDAGraph:
        def __init__(self, *_, **__):
            self.calls = None

        def capture_begin(self, *_, **__):
            cards.use()
            self.calls = []
            cards.capture = self

        def capture_end(self):
            cards.capture = None

        def replay(self):
            cards.use()
            if self.calls is None:
                raise RuntimeError("Called CUDAGraph::replay without a preceding successful capture.")
            for again in self.calls:
                again()

        def reset(self):
            self.calls = None

        def pool(self):
            return (0, 1)

    return CUDAGraph


def install(torch, cards, generators):
    """Put the cards under torch.cuda."""
    cuda, low = torch.cuda, torch._C
    types_ = stream_types(torch, cards)

    def use_device(index):
        if index >= 0:
            cards.current = index

    def exchange(index):
        before = cards.current
        use_device(index)
        return before

    answers = {
        "getDeviceCount": lambda: cards.count,
        "getDevice": lambda: cards.current,
        "setDevice": use_device,
        "exchangeDevice": exchange,
        "maybeExchangeDevice": exchange,
        "init": lambda: None,
        "isInBadFork": lambda: cards.forked,
        "synchronize": cards.synchronize,
        "emptyCache": cards.empty_cache,
        "memoryStats": cards.statistics,
        "resetPeakMemoryStats": cards.reset_peak,
        "resetAccumulatedMemoryStats": lambda index: None,
        "canDeviceAccessPeer": lambda one, other: bool(cards.settings["p2p"]),
        "isCurrentStreamCapturing": lambda: cards.capture is not None,
        "getCurrentRawStream": lambda index: cuda.current_stream(index).cuda_stream,
        "ipc_collect": lambda: None,
        "sleep": lambda cycles: time.sleep(cycles / 1e9),
        "hasPrimaryContext": lambda index: cuda.is_initialized(),
        "setMemoryFraction": lambda fraction, index: None,
    }
    if not hasattr(low, "_cuda_getArchFlags"):  # a CPU build
        major, minor = cards.settings["cuda"].split(".")
        answers["getArchFlags"] = lambda: " ".join(cards.settings["arch_list"])
        answers["getCompiledVersion"] = lambda: int(major) * 1000 + int(minor) * 10
    for name, answer in answers.items():
        setattr(low, "_cuda_" + name, answer)
    if torch.version.cuda is None:
        torch.version.cuda = cards.settings["cuda"]
    if not hasattr(cuda, "OutOfMemoryError"):
        cuda.OutOfMemoryError = low._OutOfMemoryError
    cuda._is_in_bad_fork = answers["isInBadFork"]
    cuda._exchange_device = cuda._maybe_exchange_device = exchange
    cuda._get_device_properties = cards.properties
    cuda.default_generators = cards.random = generators
    cuda._cudart = types.SimpleNamespace(
        cudaMemGetInfo=cards.mem_get_info,
        cudaGetErrorString=lambda code: "unknown error",
        cudaDeviceSynchronize=lambda: cards.synchronize() or 0,
        cudaProfilerStart=lambda: 0,
        cudaProfilerStop=lambda: 0,
        cudaError=types.SimpleNamespace(success=0),
    )
    _install_streams(torch, cards, *types_)


def _install_streams(torch, cards, stream_type, event_type):
    cuda = torch.cuda
    default = {}

    def default_stream(device=None):
        index = cards.index(device)
        if index not in default:
            default[index] = stream_type(index)
            default[index].cuda_stream = 0
        return default[index]

    def current_stream(device=None):
        cards.use()
        return getattr(cards.local, "stream", None) or default_stream(device)

    class Chosen:
        """`with torch.cuda.stream(stream)`."""

        def __init__(self, stream):
            self.stream = stream

        def __enter__(self):
            self.before = getattr(cards.local, "stream", None)
            if self.stream is not None:
                cards.local.stream = self.stream
            return self.stream

        def __exit__(self, *_):
            cards.local.stream = self.before

    def set_stream(stream):
        cards.local.stream = stream

    names = {
        "Stream": stream_type,
        "Event": event_type,
        "stream": Chosen,
        "StreamContext": Chosen,
        "set_stream": set_stream,
    }
    names.update(current_stream=current_stream, default_stream=default_stream, CUDAGraph=graph_type(cards))
    for name, value in names.items():
        setattr(cuda, name, value)
    graphs = sys.modules["torch.cuda.graphs"]
    graphs.CUDAGraph = names["CUDAGraph"]
    graphs._cuda_isCurrentStreamCapturing = torch._C._cuda_isCurrentStreamCapturing
    graphs._graph_pool_handle = lambda: (0, 1)
