"""What the functions of conditions accept; every fault in one error."""

from collections.abc import Mapping

import torch
from torch import Tensor

_KINDS = {
    "video": ("uint8 [t, h, w, 3]", (torch.uint8,)),
    "gray": ("uint8 [t, h, w]", (torch.uint8,)),
    "depth": ("uint8 [t, h, w] or [t, h, w, 3]", (torch.uint8,)),
    "raw depth": ("uint8, uint16 or float [t, h, w]", (torch.uint8, torch.uint16, torch.float32, torch.float64)),
    "mask": ("bool [t, h, w]", (torch.bool,)),
}


def check_tensors(tensors: Mapping[str, tuple[Tensor, str]]) -> None:
    """Raise one ValueError with all faults, unless every tensor is of its kind and all are of one size."""
    faults = []
    for name, (tensor, kind) in tensors.items():
        expected, dtypes = _KINDS[kind]
        ranks = {"video": (4,), "depth": (3, 4)}.get(kind, (3,))
        if tensor.dtype not in dtypes or tensor.ndim not in ranks or (tensor.ndim == 4 and tensor.shape[-1] != 3):
            faults.append(f"{name} must be {expected}, got {_describe(tensor)}")
        elif kind == "depth" and tensor.ndim == 4 and not bool((tensor == tensor[..., :1]).all()):
            faults.append(f"{name} must have three equal channels; give normalised depth, not a colour map of it")
        elif tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            faults.append(f"{name} must be finite, but {int((~torch.isfinite(tensor)).sum())} values are not")
    if len({tuple(tensor.shape[:3]) for tensor, _ in tensors.values()}) > 1:
        sizes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, (tensor, _) in tensors.items())
        faults.append(f"all must have the same frames, height and width, got {sizes}")
    if faults:
        raise ValueError("; ".join(faults))


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
