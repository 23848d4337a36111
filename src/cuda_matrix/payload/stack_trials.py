"""Owns one real operation for each package that usually stands beside torch: import it, use it, compare the outcome.

Every function runs in a child of its own and raises where something is wrong. Must not know how that is reported.
"""

from __future__ import annotations

import os

from . import scratch


def need(condition, text: str) -> None:
    """Complain where an outcome is not the right one."""
    if not condition:
        raise RuntimeError(text)


def numpy(torch, _device):
    """Arrays and tensors share memory both ways. NumPy 2 under a torch built with NumPy 1 fails here."""
    import numpy as np

    array = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    tensor = torch.from_numpy(array)
    tensor += 1
    need(array[1, 2] == 6.0 and tensor.numpy() is not array, "torch.from_numpy does not share the array's memory")
    need(bool((tensor.numpy() == array).all()), "a tensor's numpy() differs from the array it was made of")


def torchvision(torch, device):
    """Non-maximum suppression is compiled against one torch; on a GPU its CUDA half is used."""
    import torchvision as package

    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]], device=device)
    scores = torch.tensor([0.9, 0.8, 0.7], device=device)
    kept = package.ops.nms(boxes, scores, 0.5).tolist()
    need(kept == [0, 2], f"torchvision.ops.nms keeps {kept}, and [0, 2] is right")


def torchaudio(torch, _device):
    """A filter that halves its input, through the package's compiled code where it has one."""
    import torchaudio as package

    wave = torch.linspace(-1.0, 1.0, 64).reshape(1, 64)
    half = package.functional.lfilter(wave, torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.0]))
    need(float((half - wave / 2).abs().max()) < 1e-6, "torchaudio.functional.lfilter computes something else")


def transformers(torch, _device):
    """A very small BERT, made here: one forward pass, no network."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    with torch.no_grad():
        states = BertModel(config).eval()(torch.arange(8).reshape(1, 8)).last_hidden_state
    need(tuple(states.shape) == (1, 8, 16), f"a tiny BERT gives the shape {tuple(states.shape)}")
    need(bool(torch.isfinite(states).all()), "a tiny BERT gives values that are not finite")


def pandas(_torch, _device):
    """A frame, grouped and summed."""
    import pandas as pd

    sums = pd.DataFrame({"key": ["a", "b", "a"], "value": [1, 2, 3]}).groupby("key")["value"].sum()
    need(sums.to_dict() == {"a": 4, "b": 2}, f"pandas groups to {sums.to_dict()}")


def matplotlib(_torch, _device):
    """A figure without a display, as a PNG in memory."""
    import io

    import matplotlib as package

    package.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots()
    axes.plot([1, 2, 3])
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    need(stream.getvalue().startswith(b"\x89PNG") and len(stream.getvalue()) > 1000, "matplotlib draws no PNG")


def jupyterlab(_torch, _device):
    """The application's class loads with its server, and says its options."""
    from jupyterlab.labapp import LabApp

    need("port" in LabApp.flags or LabApp.class_trait_names(), "JupyterLab's application has no options")


def scipy(_torch, _device):
    """Two equations with a known solution."""
    from scipy import linalg

    solution = linalg.solve([[2.0, 0.0], [0.0, 4.0]], [2.0, 8.0])
    need(max(abs(solution - [1.0, 2.0])) < 1e-9, f"scipy.linalg.solve gives {list(solution)}")


def sklearn(_torch, _device):
    """A line through three points."""
    from sklearn.linear_model import LinearRegression

    slope = float(LinearRegression().fit([[0.0], [1.0], [2.0]], [0.0, 2.0, 4.0]).coef_[0])
    need(abs(slope - 2.0) < 1e-9, f"scikit-learn fits a slope of {slope}, and 2 is right")


def cv2(_torch, _device):
    """An image made smaller."""
    import cv2 as package
    import numpy as np

    small = package.resize(np.full((8, 8, 3), 7, dtype=np.uint8), (4, 4))
    need(small.shape == (4, 4, 3) and int(small.min()) == int(small.max()) == 7, "cv2.resize changes a plain colour")


def pil(_torch, _device):
    """A PNG written and read in memory."""
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (1, 2, 3)).save(stream, format="PNG")
    stream.seek(0)
    need(Image.open(stream).convert("RGB").getpixel((3, 3)) == (1, 2, 3), "Pillow reads another colour than it wrote")


def safetensors(torch, _device):
    """A tensor written and read in memory."""
    from safetensors.torch import load, save

    tensor = torch.arange(5.0)
    need(bool(torch.equal(load(save({"x": tensor}))["x"], tensor)), "safetensors reads another tensor than it wrote")


def einops(torch, _device):
    """Axes exchanged."""
    from einops import rearrange

    tensor = torch.arange(6.0).reshape(2, 3)
    need(bool(torch.equal(rearrange(tensor, "a b -> b a"), tensor.t())), "einops.rearrange gives another order")


def accelerate(torch, _device):
    """A layer made without memory."""
    from accelerate import init_empty_weights

    with init_empty_weights():
        layer = torch.nn.Linear(4, 4)
    need(layer.weight.device.type == "meta", "accelerate.init_empty_weights makes real weights")


def tensorboard(_torch, _device):
    """One value written to a log directory."""
    from torch.utils.tensorboard import SummaryWriter

    with scratch.Folder("tensorboard") as folder:
        writer = SummaryWriter(folder)
        writer.add_scalar("x", 1.0, 0)
        writer.close()
        sizes = [os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder)]
        need(any(sizes), "TensorBoard's writer writes nothing")


# Module that is imported → the trial. What is nearest to torch's binary interface comes first.
TRIALS = {
    "numpy": numpy,
    "torchvision": torchvision,
    "torchaudio": torchaudio,
    "pandas": pandas,
    "matplotlib": matplotlib,
    "transformers": transformers,
    "jupyterlab": jupyterlab,
    "scipy": scipy,
    "sklearn": sklearn,
    "cv2": cv2,
    "PIL": pil,
    "safetensors": safetensors,
    "einops": einops,
    "accelerate": accelerate,
    "tensorboard": tensorboard,
}
# Where the distribution's name is another than the module's.
DISTRIBUTIONS = {
    "sklearn": ("scikit-learn",),
    "PIL": ("pillow", "pillow-simd"),
    "cv2": ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
}
