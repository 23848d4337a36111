"""Owns the matrix products that are timed: their operands, how each precision multiplies, and how its result is proved.

The proof: after every round some rows of what the timed steps have left behind are put aside and the rest is made
worthless; at the end the rows are compared with float64 of the same operands. A step that did nothing leaves nothing.

Must not know how long a product takes.
"""

from __future__ import annotations

from . import numerics, precisions

SEED = 20240503
ROWS = 4  # that are verified, after each round
_COLUMNS = 2048  # of the right operand that are converted to float64 at a time
_CPU_COLUMNS = 64  # of the reference that the CPU computes, too
_FP64_AGREEMENT = 1e-12  # relative Frobenius error between the reference and the CPU's
_FP8_TARGET = 4.0  # the operands' standard deviation after scaling: far from overflow and from subnormal numbers


class Product:
    """A square product `left @ right` in one precision; `step()` computes it once."""

    exact = False

    def __init__(self, torch, device, size: int):
        self._torch = torch
        torch.manual_seed(SEED)
        # Drawn on the device: the host would take seconds. The reference uses the very operands that lie there.
        self.left = self._operand(size, device)
        self.right = self._operand(size, device)
        self._right_used = self._laid_out(self.right)
        self._picked = torch.randperm(size)[:ROWS].to(device)
        self.rows = []  # ROWS rows of the product, once for every call of `put_aside`
        self.product = None
        self.ran_on = str(self.left.device)

    def step(self) -> None:
        """Multiply once."""
        raise NotImplementedError

    def put_aside(self) -> None:
        """Keep the rows to verify, and make worthless what the next round has to compute anew."""
        if self.product is None:
            self.rows.append(None)
            return
        self.ran_on = str(self.product.device)
        self.rows.append(self.product[self._picked.to(self.product.device)].clone())
        self._spoil()

    def errors(self):
        """The worst (F, M) of the rows put aside; infinite where there is none, or a value is not finite."""
        if not self.rows or any(rows is None for rows in self.rows):
            return float("inf"), float("inf")
        reference = self._reference()
        found = [numerics.errors(rows, reference) for rows in self.rows]
        return max(each[0] for each in found), max(each[1] for each in found)

    def _operand(self, size, device):
        raise NotImplementedError

    def _laid_out(self, right):
        return right

    def _spoil(self):
        self.product = None

    def _rows_of_left(self):
        return self.left[self._picked]

    def _wide(self, operand):
        """An operand as float64, with what its scale makes of it."""
        return operand.double()

    def _reference(self):
        """The rows in float64 on the device, whose float64 products must agree with the CPU's on some columns."""
        torch = self._torch
        left = self._wide(self._rows_of_left())
        parts = [left @ self._wide(part) for part in self.right.split(_COLUMNS, dim=1)]
        reference = torch.cat(parts, dim=1)
        on_cpu = left.cpu() @ self._wide(self.right[:, :_CPU_COLUMNS].cpu())
        frobenius, _ = numerics.errors(reference[:, :_CPU_COLUMNS].cpu(), on_cpu)
        if not frobenius <= _FP64_AGREEMENT:
            raise RuntimeError(f"float64 on {reference.device} differs from the CPU's: F = {frobenius:.3g}")
        return reference


class FloatProduct(Product):
    """torch.matmul of fp32, TF32, fp16 or bfloat16."""

    def __init__(self, torch, device, size, name):
        self._dtype = precisions.dtype(torch, name)
        super().__init__(torch, device, size)
        self.product = torch.full((size, size), float("nan"), dtype=self._dtype, device=device)

    def step(self):
        self._torch.matmul(self.left, self.right, out=self.product)

    def _operand(self, size, device):
        return self._torch.randn(size, size, device=device).to(self._dtype)

    def _spoil(self):
        self.product.fill_(float("nan"))


class Fp8Product(Product):
    """torch._scaled_mm of float8_e4m3fn operands into bfloat16, with one scale per operand and fast accumulation."""

    def __init__(self, torch, device, size):
        scale = torch.tensor(1.0 / _FP8_TARGET, device=device)
        self._options = {"scale_a": scale, "scale_b": scale, "out_dtype": torch.bfloat16, "use_fast_accum": True}
        super().__init__(torch, device, size)
        try:
            self.step()
        except TypeError:  # torch 2.1 has one way to accumulate
            del self._options["use_fast_accum"]
        self._spoil()

    def step(self):
        found = self._torch._scaled_mm(self.left, self._right_used, **self._options)
        self.product = found[0] if isinstance(found, tuple) else found  # with the largest element, before torch 2.5

    def _operand(self, size, device):
        values = self._torch.randn(size, size, device=device).mul_(_FP8_TARGET)
        return values.clamp_(-precisions.FP8_LARGEST, precisions.FP8_LARGEST).to(self._torch.float8_e4m3fn)

    def _laid_out(self, right):
        return by_columns(right)

    def _rows_of_left(self):
        # As bytes: an older torch cannot index float8.
        return self.left.view(self._torch.uint8)[self._picked].view(self.left.dtype)

    def _wide(self, operand):
        return operand.float().double() / _FP8_TARGET


class Int8Product(Product):
    """torch._int_mm: int8 operands, int32 sums, exact."""

    exact = True

    def step(self):
        self.product = self._torch._int_mm(self.left, self._right_used)

    def _operand(self, size, device):
        return self._torch.randint(-127, 128, (size, size), dtype=self._torch.int8, device=device)

    def _laid_out(self, right):
        return by_columns(right)


def made(torch, device, size: int, name: str) -> Product:
    """The product of one precision."""
    if name == "fp8":
        return Fp8Product(torch, device, size)
    if name == "int8":
        return Int8Product(torch, device, size)
    return FloatProduct(torch, device, size, name)


def by_columns(matrix):
    """The same matrix, stored column by column: what tensor cores want for 8-bit operands."""
    return matrix.t().contiguous().t()
