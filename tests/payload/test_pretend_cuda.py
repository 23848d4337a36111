"""The pretended card (tests/lab/pretend_cuda.py) behaves at torch's API as PyTorch documents CUDA to behave."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAD = """
import sys, time
import torch
import torch.nn.functional as F
card = torch.device("cuda", 0)

def said(call):
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"
"""


@pytest.fixture
def on_card(deployed, real_torch):
    """A function that runs statements on a pretended card, and returns what they wrote on stderr."""

    def run(source: str, env: dict[str, str] | None = None, **settings) -> str:
        deployed.use(real_torch)
        deployed.pretend_cuda(**{"memory_gb": 2, **settings})
        done = subprocess.run(
            [sys.executable, "-B", "-c", HEAD + source],
            env=deployed.environment(env),
            cwd=deployed.home,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    return run


def test_says_what_the_card_is(on_card):
    on_card(
        """
assert torch.cuda.is_available() and torch.cuda.device_count() == 2
assert not torch.cuda.is_initialized(), "asking whether there is a card does not start CUDA"
torch.zeros(1, device="cuda")
assert torch.cuda.is_initialized()
assert torch.cuda.get_device_name(0) == "Tesla V100-SXM2-16GB"
assert torch.cuda.get_device_capability() == (7, 0)
properties = torch.cuda.get_device_properties("cuda:1")
assert (properties.major, properties.multi_processor_count) == (7, 80)
assert properties.total_memory == torch.cuda.mem_get_info()[1] == 2 << 30
assert not hasattr(properties, "uuid"), "torch 2.2 does not have it"
assert "sm_86" in torch.cuda.get_arch_list()
assert not torch.cuda.can_device_access_peer(0, 1)
assert not torch.cuda.is_bf16_supported()
assert torch.cuda.current_device() == 0
with torch.cuda.device(1):
    assert torch.ones(1, device="cuda").device == torch.device("cuda:1")
assert "invalid device ordinal" in said(lambda: torch.ones(1, device="cuda:2"))
assert "AssertionError" in said(lambda: torch.cuda.get_device_properties(2))
""",
        gpus=2,
        capability=(7, 0),
        name="Tesla V100-SXM2-16GB",
    )


@pytest.mark.parametrize(("visible", "count"), [("", 0), ("1", 1), ("0,1", 2), ("0,7,1", 1)])
def test_cuda_visible_devices(on_card, visible, count):
    on_card(f"assert torch.cuda.device_count() == {count}", {"CUDA_VISIBLE_DEVICES": visible}, gpus=2)


def test_tensors_know_where_they_lie(on_card):
    on_card(
        """
here, there = torch.randn(4, 4), torch.randn(4, 4, device="cuda")
made = [there + 1, there @ there, there.t()[1:], there[there > 0], there[torch.tensor([0, 2])],
    there.detach(), there.data,
    torch.zeros_like(there), there.new_tensor([1]), torch.tensor([1], device="cuda"), here.to("cuda"), here.cuda(),
    torch.cat([there, there]), there.sum(), there + torch.tensor(2.0), torch.fft.rfft(there), there.to_sparse(),
    torch.linalg.svd(there)[1], there.split(2)[1], torch.nn.Parameter(there), here.to(there), here.double().to(there),
    torch.empty(2, device=card).normal_(), torch.arange(3, device=0), torch.as_tensor([1.0], device="cuda:0"),
    there.half()]
for index, tensor in enumerate(made):
    assert tensor.device == card and tensor.is_cuda and tensor.get_device() == 0, index
for tensor in (there.cpu(), there.to("cpu"), torch.zeros_like(there, device="cpu"), here.clone().copy_(there), here):
    assert tensor.device.type == "cpu" and not tensor.is_cuda and tensor.get_device() == -1
assert there.to("cuda") is there and there.cuda() is there and here.to("cpu") is here
assert there.to("cuda", torch.float64).dtype is torch.float64
assert torch.equal(here.cuda().cpu(), here) and here.to("cuda") is not here
assert "cuda:0" in repr(there) and there.type() == "torch.cuda.FloatTensor"
assert said(there.numpy).startswith("TypeError: can't convert cuda:0 device type tensor to numpy")
two = "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
for call in (lambda: there @ here, lambda: there + here, lambda: torch.cat([there, here]),
             lambda: F.linear(there, here)):
    assert two in said(call), said(call)
there[0] = here[0]
assert torch.equal(there[0].cpu(), here[0])
"""
    )


def test_modules_gradients_and_optimizers(on_card):
    on_card(
        """
import copy, io
torch.manual_seed(0)
torch.backends.cudnn.allow_tf32 = False
from torch.nn import BatchNorm2d, Conv2d, Flatten, LazyLinear, Sequential
model = Sequential(Conv2d(3, 4, 3), BatchNorm2d(4), Flatten(), LazyLinear(5))
model(torch.randn(2, 3, 6, 6))
twin = copy.deepcopy(model)
model.to("cuda")
assert {each.device for each in [*model.parameters(), *model.buffers()]} == {card}
assert all(type(each) is torch.nn.Parameter and each.is_leaf for each in model.parameters())
data = torch.randn(2, 3, 6, 6)
for one, where in ((model, "cuda"), (twin, "cpu")):
    optimizer = torch.optim.SGD(one.parameters(), 0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(one(data.to(where)), torch.tensor([1, 2], device=where)).backward()
        assert {each.grad.device.type for each in one.parameters()} == {where}
        torch.nn.utils.clip_grad_norm_(one.parameters(), 1.0)
        optimizer.step()
for mine, other in zip(model.parameters(), twin.parameters()):
    assert torch.allclose(mine.cpu(), other, atol=1e-5), "the card computes what the CPU computes"
assert copy.deepcopy(model)[0].weight.device == card
file = io.BytesIO()
torch.save(model.state_dict(), file)
file.seek(0)
assert torch.load(file)["0.weight"].device == card
file.seek(0)
assert torch.load(file, map_location="cpu")["0.weight"].device.type == "cpu"
layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, device="cuda")
layer(torch.randn(2, 5, 8, device="cuda")).sum().backward()
assert layer.self_attn.in_proj_weight.grad.is_cuda
torch.nn.LSTM(8, 8).cuda()(torch.randn(1, 2, 8, device="cuda"))[0].sum().backward()
assert "same device" in said(lambda: model(data))
"""
    )


def test_precision(on_card):
    on_card(
        """
left, right = torch.randn(256, 256), torch.randn(256, 256)
true = left.double() @ right.double()
def error(product):
    return float((product.cpu().double() - true).norm() / true.norm())
a, b = left.cuda(), right.cuda()
torch.backends.cuda.matmul.allow_tf32 = False
assert error(a @ b) < 1e-6
torch.backends.cuda.matmul.allow_tf32 = True
assert 1e-4 < error(a @ b) < 1.5e-3
torch.backends.cuda.matmul.allow_tf32 = False
for dtype, low, high in ((torch.float16, 1e-4, 1e-3), (torch.bfloat16, 1e-3, 8e-3)):
    with torch.autocast("cuda", dtype=dtype):
        product = a @ b
        assert product.dtype is dtype and product.is_cuda and low < error(product) < high, (dtype, error(product))
        assert F.softmax(product, -1).dtype is torch.float32, "an op that CUDA autocasts to float32"
        assert F.linear(left, right).dtype is torch.float32, "autocast of CUDA leaves CPU tensors alone"
        with torch.autocast("cuda", enabled=False):
            assert (a @ b).dtype is torch.float32
    assert (a @ b).dtype is torch.float32 and error(a @ b) < 1e-6
one = torch.nn.Linear(4, 4).cuda()
two = torch.nn.Linear(4, 4).cuda()
two.load_state_dict(one.state_dict())
for model, fused in ((one, True), (two, False)):
    optimizer = torch.optim.AdamW(model.parameters(), 0.1, fused=fused)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(2, 4, device="cuda")).pow(2).sum().backward()
        optimizer.step()
assert torch.allclose(one.weight, two.weight, atol=1e-5), "fused AdamW, which torch 2.2 has on CUDA only"
weight = torch.nn.Linear(256, 4).cuda()
optimizer, scaler = torch.optim.SGD(weight.parameters(), 1e-3), torch.cuda.amp.GradScaler()
for loss_factor, scale in ((1.0, 65536.0), (float("inf"), 32768.0)):
    before = weight.weight.detach().clone()
    optimizer.zero_grad()
    with torch.autocast("cuda"):
        loss = weight(a).float().pow(2).mean() * loss_factor
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == scale
    assert torch.equal(before, weight.weight) is (loss_factor != 1.0), "a step with an infinite gradient is left out"
ones = torch.ones(32, 32, dtype=torch.int8, device="cuda")
assert torch._int_mm(ones, ones)[0, 0] == 32
eight = torch.ones(16, 16, device="cuda").to(torch.float8_e4m3fn)
assert "compute capability" in said(lambda: torch._scaled_mm(eight, eight.t()))
"""
    )


def test_memory_and_out_of_memory(on_card):
    on_card(
        """
base = torch.cuda.memory_allocated()
block = torch.empty(1 << 20, device="cuda")
view = block[1:]
assert torch.cuda.memory_allocated() - base == 4 << 20
del block
assert torch.cuda.memory_allocated() - base == 4 << 20, "the view holds it"
del view
assert torch.cuda.memory_allocated() == base and torch.cuda.max_memory_allocated() >= base + (4 << 20)
torch.cuda.reset_peak_memory_stats()
assert torch.cuda.max_memory_allocated() == base
free, total = torch.cuda.mem_get_info()
kept = torch.empty(1 << 26, device="cuda")
assert torch.cuda.mem_get_info()[0] <= free - (250 << 20) and torch.cuda.memory_reserved() >= 256 << 20
for make in (lambda: torch.empty(1 << 40, device="cuda"), lambda: torch.zeros(1 << 30, 9, device="cuda"),
             lambda: [kept + 1 for _ in range(9)], lambda: torch.empty(1, device="cpu").expand(1 << 30).to("cuda")):
    text = said(make)
    assert text.startswith("OutOfMemoryError: CUDA out of memory. Tried to allocate"), text
del kept
torch.cuda.empty_cache()
assert torch.cuda.memory_reserved() <= 2 << 20
assert torch.ones(4, device="cuda").sum().item() == 4
pinned = torch.ones(4).pin_memory()
assert pinned.is_pinned() and not torch.ones(4).is_pinned() and torch.empty(3, pin_memory=True).is_pinned()
assert pinned.to("cuda", non_blocking=True).is_cuda and not pinned.is_cuda
"""
    )


def test_events_streams_and_graphs(on_card):
    on_card(
        """
begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
begin.record()
time.sleep(0.05)
end.record()
end.synchronize()
assert 49 < begin.elapsed_time(end) < 500
assert "RuntimeError" in said(lambda: torch.cuda.Event(enable_timing=True).elapsed_time(end))
stream = torch.cuda.Stream()
default = torch.cuda.current_stream()
stream.wait_stream(default)
with torch.cuda.stream(stream):
    assert torch.cuda.current_stream() == stream != default
    value = torch.ones(4, device="cuda") * 2
default.wait_stream(stream)
assert torch.cuda.current_stream() == default and value.is_cuda
fixed, count = torch.ones(4, device="cuda"), torch.zeros(1, device="cuda")
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    assert torch.cuda.is_current_stream_capturing()
    result = (fixed * 2).relu() + 1
    count.add_(1)
    assert "capturing" in said(count.item)
assert count.item() == 0, "a capture does nothing"
fixed.fill_(5)
graph.replay()
graph.replay()
assert result.tolist() == [11.0] * 4 and count.item() == 2
assert "without a preceding successful capture" in said(torch.cuda.CUDAGraph().replay)
"""
    )


def test_random_numbers(on_card):
    on_card(
        """
torch.cuda.manual_seed(7)
state = torch.cuda.get_rng_state()
first = torch.randn(3, device="cuda")
torch.randn(3)
second = torch.randn(3, device="cuda")
torch.cuda.set_rng_state(state)
assert torch.equal(first, torch.randn(3, device="cuda"))
torch.manual_seed(1)
on_host = torch.rand(3)
torch.manual_seed(1)
torch.rand(99, device="cuda")
assert torch.equal(on_host, torch.rand(3)), "the card has a generator of its own"
own = torch.Generator(device="cuda").manual_seed(3)
assert own.device == card and isinstance(own, torch.Generator)
assert torch.randn(2, device="cuda", generator=own).is_cuda
assert "generator" in said(lambda: torch.randn(2, device="cuda", generator=torch.Generator()))
"""
    )


@pytest.mark.parametrize("blocking", ["0", "1"])
def test_device_assert_poisons_the_context(on_card, blocking):
    stderr = on_card(
        f"""
blocking = {blocking}
table = torch.randn(4, 4, device="cuda")
text = said(lambda: F.embedding(torch.tensor([1, 99], device="cuda"), table))
assert ("device-side assert triggered" in text) is bool(blocking), text
for call in (torch.cuda.synchronize, lambda: torch.ones(1, device="cuda"), table.cpu, lambda: table + 1,
             torch.cuda.empty_cache):
    assert "CUDA error: device-side assert triggered" in said(call), said(call)
assert (torch.ones(1) + 1).item() == 2
assert said(lambda: F.embedding(torch.tensor([99]), torch.randn(4, 4))).startswith("IndexError")
""",
        {"CUDA_LAUNCH_BLOCKING": blocking},
    )
    assert "Assertion" in stderr


def test_threads_have_the_card_and_forked_children_may_start_it_only_themselves(on_card):
    on_card(
        """
import os, threading
def child(status):
    pid = os.fork()
    if pid == 0:
        os._exit(status())
    return os.waitpid(pid, 0)[1] >> 8
assert child(lambda: 0 if torch.ones(1, device="cuda").is_cuda else 1) == 0
value = torch.ones(1, device="cuda")
found = []
worker = threading.Thread(target=lambda: found.append((value + 1).device))
worker.start()
worker.join()
assert found == [card]
assert child(lambda: 0 if "Cannot re-initialize CUDA in forked subprocess" in said(lambda: value + 1) else 1) == 0
loader = torch.utils.data.DataLoader(torch.arange(8.0), batch_size=4, num_workers=1, pin_memory=True)
assert all(batch.is_pinned() for batch in loader)
"""
    )


def test_attention_back_ends(on_card):
    on_card(
        """
query = torch.randn(1, 2, 5, 8, device="cuda", requires_grad=True)
true = F.scaled_dot_product_attention(query, query, query, is_causal=True)
true.sum().backward()
assert true.is_cuda and query.grad.is_cuda
def forced(value, **flags):
    with torch.backends.cuda.sdp_kernel(**flags):
        return F.scaled_dot_product_attention(value, value, value, is_causal=True)
flash = dict(enable_flash=True, enable_math=False, enable_mem_efficient=False)
efficient = dict(enable_flash=False, enable_math=False, enable_mem_efficient=True)
assert torch.allclose(forced(query, **efficient), true, atol=1e-5)
assert "No available kernel" in said(lambda: forced(query, **flash)), "flash attention has no fp32"
assert "No available kernel" in said(lambda: forced(query.half(), **flash)), "nor anything before sm_80"
""",
        capability=(7, 5),
    )
