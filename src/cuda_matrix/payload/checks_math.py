"""Owns the checks of the mathematical libraries beside BLAS and cuDNN: transforms, linear algebra, sparse, random.

Each library is used once and verified without itself: by a transform's own definition, by residuals, by the dense
product, by statistics. Must not know the limits (the table has them).
"""

from __future__ import annotations

import math

from . import numerics, precisions
from .context import exception_line, failed, passed, ran_elsewhere, skipped

SEED = 20240511
FFT_ROWS = 4  # transforms in a batch
FFT_LENGTHS = (512, 360, 251)  # a power of two, a smooth length, a prime
FFT_PLANE = (48, 80)  # rows, columns
ORDER = {"cpu": 96, "cuda": 256}  # of the matrices that are solved and factorised
RIGHT_SIDES = 5
SPARSE_SHAPE = {"cpu": (300, 200, 40), "cuda": (1500, 1000, 64)}  # rows, inner, columns
SPARSE_DENSITY = 0.05
DRAWS = {"cpu": 1 << 16, "cuda": 1 << 20}
BINS = 64
DROPPED = 0.25  # share of what dropout sets to zero
# What a CPU build of torch says that was made without a library. A card's own library is never missing like this.
_NOT_BUILT = ("compiled without", "requires compiling", "not compiled with", "not implemented for", "MKL", "LAPACK")


def fft(context):
    """Transforms by cuFFT: one and two dimensions, real, and back, against the definition in float64."""
    import torch

    precisions.set_strict(torch)
    return _run(context, "transforms", lambda: _transforms(torch, context.device))


def linalg(context):
    """Cusolver: a system solved; Cholesky, symmetric eigenvalues and singular values, multiplied together again."""
    import torch

    precisions.set_strict(torch)
    return _run(context, "solutions and factorisations", lambda: _factorisations(torch, context.device))


def sparse(context):
    """Cusparse: a CSR matrix times a dense one, and the gradients of a sparse product, against the dense product."""
    import torch

    precisions.set_strict(torch)
    return _run(context, "sparse products", lambda: _sparse_products(torch, context.device))


def rng(context):
    """Random numbers of the device: their distribution, and that a seed, and only that seed, repeats them."""
    import torch

    found = _draw(torch, context.device)
    ran_on = found.pop("ran_on")
    wrong = judge_random(found, context.thresholds)
    keys = {"device": ran_on, "numbers": found}
    elsewhere = ran_elsewhere(context.device, **keys)
    if elsewhere:
        return elsewhere
    if wrong:
        return failed("random numbers are not random", evidence="\n".join(wrong), cause="numerics-wrong", **keys)
    summary = (
        "{draws} draws on {}: mean {uniform_mean:.4f}, chi-square {chi_square:.0f}, {bins} bins; a seed repeats them"
    )
    return passed(summary.format(ran_on, bins=BINS, **found), **keys)


def _run(context, what, measure):
    """Measure, and judge; a CPU build without the library is skipped."""
    try:
        found, ran_on = measure()
    except RuntimeError as error:
        if context.on_gpu or not any(text in str(error) for text in _NOT_BUILT):
            raise
        return skipped(f"this torch is built without {what} on the CPU", device="cpu", evidence=exception_line(error))
    return judge(what, found, context.thresholds, (context.device, ran_on))


def judge(what: str, found: dict, thresholds: dict, devices) -> dict:
    """The verdict on `found`: what was computed → (F, M). `devices`: (asked for, where the results lie)."""
    limits = numerics.Limits(thresholds["frobenius"], thresholds["max_over_mean"])
    numbers = {}
    for name, (frobenius, max_over_mean) in found.items():
        numbers[name + "_frobenius"] = frobenius
        numbers[name + "_max_over_mean"] = max_over_mean
    keys = {"device": devices[1], "numbers": numbers}
    elsewhere = ran_elsewhere(devices[0], **keys)
    if elsewhere:
        return elsewhere
    wrong = [(name, numerics.beyond(*pair, limits)) for name, pair in found.items()]
    wrong = [f"{name}: {text}" for name, text in wrong if text]
    if wrong:
        return failed(f"{what} are wrong", evidence="\n".join(wrong), cause="numerics-wrong", **keys)
    worst = max(frobenius for frobenius, _ in found.values())
    return passed(f"{len(found)} {what} on {devices[1]}: F at most {worst:.2g}", **keys)


def _transforms(torch, device):
    generator = torch.Generator().manual_seed(SEED)
    found = {}
    for length in FFT_LENGTHS:
        real = torch.randn(FFT_ROWS, length, generator=generator)
        signal = torch.complex(real, torch.randn(FFT_ROWS, length, generator=generator))
        on_device = signal.to(device)
        spectrum = torch.fft.fft(on_device)
        defined = signal.to(torch.complex128) @ _fourier(torch, length)
        found[f"fft_{length}"] = _complex_errors(torch, spectrum, defined)
        found[f"ifft_{length}"] = _complex_errors(torch, torch.fft.ifft(spectrum), signal.to(torch.complex128))
        half = torch.fft.rfft(real.to(device))
        defined = (real.to(torch.complex128) @ _fourier(torch, length))[:, : length // 2 + 1]
        found[f"rfft_{length}"] = _complex_errors(torch, half, defined)
        found[f"irfft_{length}"] = numerics.errors(torch.fft.irfft(half, n=length), real.double())
    rows, columns = FFT_PLANE
    plane = torch.complex(
        torch.randn(rows, columns, generator=generator), torch.randn(rows, columns, generator=generator)
    )
    spectrum = torch.fft.fft2(plane.to(device))
    defined = _fourier(torch, rows) @ plane.to(torch.complex128) @ _fourier(torch, columns)
    found["fft2"] = _complex_errors(torch, spectrum, defined)
    found["ifft2"] = _complex_errors(torch, torch.fft.ifft2(spectrum), plane.to(torch.complex128))
    return found, str(spectrum.device)


def _fourier(torch, length):
    """The matrix of the transform's definition, in complex128: every angle is reduced to one turn before it is used."""
    steps = torch.arange(length)
    turns = (steps[:, None] * steps[None, :] % length).double() / length
    return torch.complex(torch.cos(2 * math.pi * turns), -torch.sin(2 * math.pi * turns))


def _complex_errors(torch, product, reference):
    """As `numerics.errors`, over real and imaginary parts."""
    if product.shape != reference.shape:  # before both are seen as real numbers
        return float("inf"), float("inf")
    return numerics.errors(torch.view_as_real(product.cpu().to(torch.complex128)), torch.view_as_real(reference))


def _factorisations(torch, device):
    order = ORDER[device.partition(":")[0]]
    generator = torch.Generator().manual_seed(SEED)
    square = torch.randn(order, order, generator=generator)
    known = torch.randn(order, RIGHT_SIDES, generator=generator)
    definite = square @ square.t() / order + torch.eye(order)
    symmetric = square + square.t()
    on_device = square.to(device)
    found = {}
    solution = torch.linalg.solve(on_device, known.to(device))
    # Judged by what it solves: the solution's own error depends on the matrix, its backward error does not.
    wide = max(1.0, float(square.double().norm() * solution.cpu().double().norm() / known.double().norm()))
    frobenius, largest = numerics.errors(square.double() @ solution.cpu().double(), known.double())
    found["solve"] = frobenius / wide, largest / wide
    lower = torch.linalg.cholesky(definite.to(device)).cpu().double()
    found["cholesky"] = numerics.errors(lower.tril() @ lower.tril().t(), definite.double())
    values, vectors = (each.cpu().double() for each in torch.linalg.eigh(symmetric.to(device)))
    found["eigh"] = numerics.errors(vectors @ torch.diag(values) @ vectors.t(), symmetric.double())
    found["eigh_orthogonality"] = _orthogonality(torch, vectors)
    left, sizes, right = (each.cpu().double() for each in torch.linalg.svd(on_device))
    found["svd"] = numerics.errors(left @ torch.diag(sizes) @ right, square.double())
    found["svd_orthogonality"] = max(_orthogonality(torch, left), _orthogonality(torch, right.t()))
    return found, str(solution.device)


def _orthogonality(torch, vectors):
    """(F, largest deviation) of QᵀQ from the identity, whose mean is no measure for its elements."""
    order = vectors.shape[1]
    difference = vectors.t() @ vectors - torch.eye(order, dtype=torch.float64)
    if not bool(difference.isfinite().all()):
        return float("inf"), float("inf")
    return float(difference.norm()) / math.sqrt(order), float(difference.abs().max())


def _sparse_products(torch, device):
    rows, inner, columns = SPARSE_SHAPE[device.partition(":")[0]]
    generator = torch.Generator().manual_seed(SEED)
    kept = torch.rand(rows, inner, generator=generator) < SPARSE_DENSITY
    kept[torch.arange(rows), torch.arange(rows) % inner] = True  # no row is empty, so that none can be lost unseen
    matrix = torch.randn(rows, inner, generator=generator) * kept
    dense = torch.randn(inner, columns, generator=generator)
    upstream = torch.randn(rows, columns, generator=generator)
    product = matrix.to(device).to_sparse_csr() @ dense.to(device)
    defined = matrix.double() @ dense.double()
    found = {"csr_product": numerics.errors(product, defined)}
    coordinates = matrix.to(device).to_sparse().requires_grad_()
    other = dense.to(device).requires_grad_()
    product = torch.sparse.mm(coordinates, other)
    product.backward(upstream.to(device))
    found["coo_product"] = numerics.errors(product.detach(), defined)
    found["dense_gradient"] = numerics.errors(other.grad, matrix.double().t() @ upstream.double())
    gradient = coordinates.grad.to_dense().cpu()  # of the elements that are there; what it says of others is not used
    found["sparse_gradient"] = numerics.errors(gradient[kept], (upstream.double() @ dense.double().t())[kept])
    return found, str(product.device)


def _draw(torch, device):
    """The figures that random numbers are judged by."""
    draws = DRAWS[device.partition(":")[0]]
    torch.manual_seed(SEED)
    uniform = torch.rand(draws, device=device)
    normal = torch.randn(draws, device=device)
    ones = torch.nn.functional.dropout(torch.ones(draws, device=device), p=DROPPED)
    following = torch.rand(draws, device=device)
    torch.manual_seed(SEED)
    same = bool(torch.equal(torch.rand(draws, device=device), uniform))
    torch.manual_seed(SEED + 1)
    other = bool(torch.equal(torch.rand(draws, device=device), uniform))
    found = {"draws": draws, "ran_on": str(uniform.device), "same_seed_same": same, "other_seed_other": not other}
    uniform, normal, ones, following = (each.cpu().double() for each in (uniform, normal, ones, following))
    found["next_draw_other"] = not bool(torch.equal(following, uniform))
    found["finite"] = bool(uniform.isfinite().all() and normal.isfinite().all() and ones.isfinite().all())
    found["in_range"] = bool((uniform >= 0).all() and (uniform < 1).all())
    if not (found["finite"] and found["in_range"]):
        return found
    expected = draws / BINS
    counts = torch.bincount((uniform * BINS).long(), minlength=BINS).double()
    found["chi_square"] = float(((counts - expected) ** 2 / expected).sum())
    found["distinct"] = float(len(torch.unique(uniform))) / draws
    found["uniform_mean"] = float(uniform.mean())
    found["normal_mean"] = float(normal.mean())
    found["normal_variance"] = float(normal.var())
    found["correlation"] = float((normal[:-1] * normal[1:]).mean())
    found["dropped"] = float((ones == 0).double().mean())
    found["kept_value"] = float(ones.max())
    return found


def judge_random(found: dict, thresholds: dict) -> list:
    """What is wrong with random numbers. Every statistic may be off by `sigmas` standard deviations of its own."""
    wrong = []
    for name, text in (
        ("finite", "NaN or infinity among the numbers"),
        ("in_range", "uniform numbers outside [0, 1)"),
        ("same_seed_same", "the same seed gives other numbers"),
        ("other_seed_other", "another seed gives the same numbers"),
        ("next_draw_other", "the next draw repeats the first"),
    ):
        if not found[name]:
            wrong.append(text)
    if not (found["finite"] and found["in_range"]):
        return wrong
    root = math.sqrt(found["draws"])
    for name, right, deviation in (
        ("uniform_mean", 0.5, math.sqrt(1 / 12) / root),
        ("normal_mean", 0.0, 1 / root),
        ("normal_variance", 1.0, math.sqrt(2) / root),
        ("correlation", 0.0, 1 / root),
        ("dropped", DROPPED, math.sqrt(DROPPED * (1 - DROPPED)) / root),
    ):
        if not abs(found[name] - right) <= thresholds["sigmas"] * deviation:
            wrong.append(f"{name} is {found[name]:.5g}, not {right:g} ± {thresholds['sigmas'] * deviation:.2g}")
    if not thresholds["chi_square_least"] <= found["chi_square"] <= thresholds["chi_square_most"]:
        wrong.append("chi-square of {chi_square:.4g} over {bins} bins: not uniform".format(bins=BINS, **found))
    if not found["distinct"] >= thresholds["distinct"]:
        wrong.append("only {distinct:.3g} of the numbers are distinct: the generator repeats".format(**found))
    if not abs(found["kept_value"] - 1 / (1 - DROPPED)) <= 1e-6:
        wrong.append("dropout scales what it keeps by {kept_value:.6g}".format(**found))
    return wrong
