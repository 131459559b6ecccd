"""A frozen linear layer that keeps its weight in a byte or half a byte a number, and makes it whenever it computes.

The backward pass makes the weight once more, too. torchao's weight-only layers leave the weight that was made to
autograd, which keeps it until the backward pass: without checkpointing that is more than the quantization saved.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from regen_train.model.block_options import Quantized

_INT8_MAX = 127.0
_FP8 = torch.float8_e4m3fn
_NF4_BLOCK = 64


@dataclass(frozen=True)
class Stored:
    """A weight as it is kept.

    Args:
        numbers: int8 or the bytes of fp8, [o, i]; or two nf4 numbers a byte.
        scale: What the numbers are multiplied by: fp32, one for each row, or for each 64 numbers of nf4.
    """

    numbers: Integer[Tensor, "..."]
    scale: Float[Tensor, "..."]


@dataclass(frozen=True)
class Quantization:
    """What quantizing the base saved and changed, measured in one forward pass of a fixed random sample.

    Args:
        kind: ``int8``, ``fp8`` or ``nf4``.
        bytes_before: Of the frozen weights.
        bytes_after: The same, quantized.
        velocity_error: Root mean square of the velocity's change, as a share of the velocity's own.
        loss_before: Mean squared error of the velocity.
        loss_after: The same, quantized.
    """

    kind: Quantized
    bytes_before: int
    bytes_after: int
    velocity_error: float
    loss_before: float
    loss_after: float

    def describe(self) -> str:
        """Return it in words."""
        change = self.loss_after / self.loss_before - 1
        return (
            f"{self.kind}, {self.bytes_after / 2**30:.2f} GiB frozen instead of {self.bytes_before / 2**30:.2f}; on a "
            f"fixed random sample the velocity moves by {self.velocity_error:.2%}, the loss by {change:+.3%}"
        )


class QuantizedLinear(nn.Module):
    """`torch.nn.Linear` with a frozen weight in fewer bytes; the bias stays as it is.

    Args:
        linear: The layer, whose weight is read and not kept.
        kind: ``int8`` or ``fp8`` (e4m3), symmetric, one scale for each output channel; ``nf4`` by bitsandbytes, one
            scale for each 64 numbers.
    """

    def __init__(self, linear: nn.Linear, kind: Quantized) -> None:
        super().__init__()
        self.in_features, self.out_features, self.kind = linear.in_features, linear.out_features, kind
        stored = quantize(linear.weight.detach(), kind)
        self.weight = nn.Parameter(stored.numbers, requires_grad=False)
        self.weight_scale = nn.Parameter(stored.scale, requires_grad=False)
        self.bias = linear.bias

    @property
    def num_hidden(self) -> int:
        """Numbers of the weight beyond the parameters that hold them."""
        return self.in_features * self.out_features - self.weight.numel() - self.weight_scale.numel()

    def dequantized(self) -> Float[Tensor, "o i"]:
        """Return the weight in fp32."""
        return dequantize(self.weight, self.weight_scale, self.kind, (self.out_features, self.in_features))

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """Multiply with the weight and add the bias."""
        shape = (self.out_features, self.in_features)
        product: Tensor = _FrozenProduct.apply(x, self.weight, self.weight_scale, self.bias, self.kind, shape)
        return product


def quantize(weight: Float[Tensor, "o i"], kind: Quantized) -> Stored:
    """Round a weight.

    Source: int8 and fp8 give what torchao's weight-only configs do; nf4 is Dettmers et al. 2023, arXiv 2305.14314.
    """
    if kind == "nf4":
        numbers, scale = _bitsandbytes().quantize_4bit.default(weight.float(), _NF4_BLOCK, "nf4", torch.uint8)
        return Stored(numbers, scale.float())
    top = _INT8_MAX if kind == "int8" else torch.finfo(_FP8).max
    # an empty row has scale 0 and would divide by it
    scale = (weight.float().abs().amax(dim=1, keepdim=True) / top).clamp_min(torch.finfo(torch.float32).tiny)
    scaled = weight.float() / scale
    numbers = scaled.round().to(torch.int8) if kind == "int8" else scaled.to(_FP8).view(torch.uint8)
    return Stored(numbers, scale)


def dequantize(
    numbers: Integer[Tensor, "..."], scale: Float[Tensor, "..."], kind: Quantized, shape: tuple[int, int]
) -> Float[Tensor, "o i"]:
    """Return the weight in fp32.

    Args:
        numbers: As `Stored` has them.
        scale: As there.
        kind: What they are.
        shape: Of the weight.
    """
    if kind == "nf4":
        made: Tensor = _bitsandbytes().dequantize_4bit.default(
            numbers, scale, _NF4_BLOCK, "nf4", list(shape), torch.float32
        )
        return made
    return (numbers if kind == "int8" else numbers.view(_FP8)).float().mul_(scale)


def stored_bytes(kind: Quantized, shape: tuple[int, int]) -> int:
    """Return what a weight of a shape takes."""
    size = shape[0] * shape[1]
    return size // 2 + 4 * -(-size // _NF4_BLOCK) if kind == "nf4" else size + 4 * shape[0]


def require(kind: Quantized) -> None:
    """Check that what the kind needs is installed.

    Raises:
        ImportError: It is not; says how to install it.
    """
    if kind == "nf4":
        _bitsandbytes()


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes  # noqa: F401 - it registers its operators
    except ImportError as error:
        raise ImportError(
            "blocks.quantize: nf4 needs bitsandbytes: pip install -c constraints.txt '.[quantize]'"
        ) from error
    return torch.ops.bitsandbytes


class _FrozenProduct(torch.autograd.Function):
    """Linear in the input alone; keeps the stored weight for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        numbers: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        kind: Quantized,
        shape: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(numbers, scale)
        ctx.kind, ctx.shape = kind, shape
        weight = dequantize(numbers, scale, kind, shape).to(x.dtype)
        return nn.functional.linear(x, weight, None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        numbers, scale = ctx.saved_tensors
        weight = dequantize(numbers, scale, ctx.kind, ctx.shape).to(gradient.dtype)
        return gradient @ weight, None, None, None, None, None
