"""Safetensors files of weights: read within limits, written whole or not at all."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from regen_train.files import sync

MAX_HEADER_BYTES: Final = 16 * 2**20
MAX_ADAPTER_BYTES: Final = 16 * 2**30
MAX_ADAPTER_TENSORS: Final = 20_000
_FLOATS: Final = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class WeightFile:
    """The content of a safetensors file.

    Args:
        tensors: By the names in the file.
        metadata: The file's text metadata, without safetensors' own ``format``.
    """

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def read_adapter_file(path: Path) -> WeightFile:
    """Read a file of LoRA weights. Nothing but safetensors is read, and nothing beyond the limits.

    Args:
        path: The file; at most 16 GiB, 20,000 tensors of floating-point numbers and a header of 16 MiB.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Not a whole safetensors file, beyond the limits, or some tensors are not finite floating-point
            numbers.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix != ".safetensors":
        raise ValueError(
            f"{path}: must be a .safetensors file; pickled weights (.pt, .bin, .ckpt) are not read as adapters: "
            "convert them to safetensors with the tool that wrote them"
        )
    size = path.stat().st_size
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > MAX_HEADER_BYTES or size > MAX_ADAPTER_BYTES:
        raise ValueError(
            f"{path}: must be a safetensors file of at most {MAX_ADAPTER_BYTES} bytes with a header of at most "
            f"{MAX_HEADER_BYTES}, got {size} bytes and a header of {header}"
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = list(file.keys())
            faults = [] if len(names) <= MAX_ADAPTER_TENSORS else [f"{len(names)} tensors, limit {MAX_ADAPTER_TENSORS}"]
            dtypes = {} if faults else {name: file.get_slice(name).get_dtype() for name in names}
            faults += [
                f"{name} is {dtype}, not floating-point" for name, dtype in dtypes.items() if dtype not in _FLOATS
            ]
            tensors = {} if faults else {name: file.get_tensor(name) for name in names}
            metadata = {key: value for key, value in (file.metadata() or {}).items() if key != "format"}
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error}); copy or download it again") from error
    bad = [name for name, value in tensors.items() if not value.isfinite().all()]
    if bad:
        more = f", and so do {len(bad) - 1} more tensors" if len(bad) > 1 else ""
        faults.append(f"{bad[0]} holds NaN or infinity{more}: the run diverged; take earlier weights")
    if faults:
        raise ValueError(f"{path}: {'; '.join(faults)}")
    return WeightFile(tensors, metadata)


def write_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whole or not at all: temporary name, fsync, rename, fsync of the folder.

    Args:
        path: The file; its folder is made. What was there stays until the new file is complete.
        tensors: What to write; copied to the CPU and made contiguous where they are not.
        metadata: Text stored beside the tensors.

    Raises:
        OSError: The file could not be written, such as on a full disk; nothing is left of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    ready = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    # A folder of its own keeps the unfinished file out of the sight of readers that list `*.safetensors`.
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        temporary = Path(folder, path.name)
        temporary.touch()
        mode = temporary.stat().st_mode
        with as_os_error(path):
            save_file(ready, temporary, {"format": "pt", **metadata})
        temporary.chmod(mode)  # safetensors makes files that only their owner can read
        sync(temporary)
        temporary.replace(path)
    sync(path.parent)


@contextmanager
def as_os_error(path: str | Path) -> Iterator[None]:
    """Turn safetensors' own error, such as on a full disk, into an OSError that names the file."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(
            f"{path}: could not be written ({error}); nothing was left of it: free some space and try again"
        ) from error


def to_float32(tensor: Tensor) -> Tensor:
    """Return the tensor in fp32, contiguous, on the CPU, sharing nothing with a mapped file."""
    return tensor.to(device="cpu", dtype=torch.float32, copy=True).contiguous()
