"""Find people and their body points in toy videos, also in soft, generated ones: an eye that has not painted them.

A small convolutional network trained on the drawn world (see `regen_train.toy.making.observer`). It measures the toy
and nothing else: of real video it knows nothing.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor, nn
from torch.nn import functional

from regen_train.adapter.files import read_adapter_file

BODY_POINTS = (0, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
"""Of the 133: nose, then shoulders, elbows, wrists, hips, knees and ankles, the left one first."""

WEIGHTS = Path(__file__).with_name("observer.safetensors")
FORM = "regen_train toy observer 1"
"""What the weights' metadata says under ``form``."""

HEATMAP_STRIDE = 2
_COARSEST = 8
_AT_ONCE = 64
_LEAST_LIKELY = 0.2
"""A peak of a heatmap below this is nobody's."""
_APART = 5
"""Side of the window, in cells of a heatmap, in which there is one peak."""


@dataclass(frozen=True)
class Seen:
    """What is seen in a clip.

    Args:
        mask: Where people are.
        heatmaps: How likely each of `BODY_POINTS` is in each cell, 0 to 1; cell (i, j) is centred on pixel
            (2i + 0.5, 2j + 0.5).
    """

    mask: Bool[Tensor, "t h w"]
    heatmaps: Float[Tensor, "t 13 i j"]

    def points(self, people: int, *, least: int | float = _LEAST_LIKELY) -> Float[Tensor, "t p 13 2"]:
        """Return the likeliest places of each point, at most one a person; in no order of people.

        Args:
            people: How many there are, at least 1.
            least: Likelihood below which a place is left out.

        Returns:
            (x, y) in pixels; NaN where fewer places are likely.

        Raises:
            ValueError: ``people`` is below 1.
        """
        if people < 1:
            raise ValueError(f"people must be at least 1, got {people}")
        highest = functional.max_pool2d(self.heatmaps, _APART, stride=1, padding=_APART // 2)
        peaks = torch.where((self.heatmaps == highest) & (self.heatmaps >= least), self.heatmaps, -1.0)
        columns = self.heatmaps.shape[-1]
        found, cells = rearrange(peaks, "t k i j -> t k (i j)").topk(min(people, peaks[0, 0].numel()), dim=-1)
        refined = _offsets(self.heatmaps)
        row, column = cells // columns, cells % columns
        frame, kind = torch.arange(len(peaks))[:, None, None], torch.arange(len(BODY_POINTS))[None, :, None]
        places = HEATMAP_STRIDE * (torch.stack([column, row], dim=-1) + refined[frame, kind, row, column]) + 0.5
        places = torch.where(found[..., None] > 0, places, torch.nan)
        return rearrange(places, "t k p c -> t p k c")


class ObserverNet(nn.Module):
    """A U-Net of three levels, of 1/2, 1/4 and 1/8 of the sides; 2 x 2 pixels go in, and come out, as one cell."""

    def __init__(self) -> None:
        super().__init__()
        self.level1 = nn.Sequential(nn.PixelUnshuffle(2), _conv(12, 32), _Residual(32))
        self.level2 = nn.Sequential(_conv(32, 48, stride=2), _Residual(48))
        self.level3 = nn.Sequential(_conv(48, 64, stride=2), _Residual(64))
        self.up2 = _conv(64 + 48, 48, size=1)
        self.up1 = nn.Sequential(_conv(48 + 32, 32), _Residual(32))
        self.points = nn.Conv2d(32, len(BODY_POINTS), 1)
        self.people = nn.Sequential(nn.Conv2d(32, 4, 1), nn.PixelShuffle(2))

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b 13 i j"]]:
        """Return the logits of the mask and of the heatmaps.

        Args:
            pixels: RGB in [-1, 1]; sides are multiples of 8.
        """
        level1 = self.level1(pixels)
        level2 = self.level2(level1)
        level2 = self.up2(torch.cat([_twice(self.level3(level2)), level2], dim=1))
        level1 = self.up1(torch.cat([_twice(level2), level1], dim=1))
        return self.people(level1)[:, 0], self.points(level1)


class Observer:
    """Looks at clips.

    Args:
        network: With its weights.
    """

    def __init__(self, network: ObserverNet) -> None:
        self.network = network.eval().requires_grad_(requires_grad=False)

    @torch.no_grad()
    def look(self, frames: Shaped[Tensor, "..."]) -> Seen:
        """Find people in a clip, frame by frame.

        Args:
            frames: uint8 [t, h, w, 3]; RGB, people as large as in the toy's clips. Of any size; 80 x 80 is what the
                network knows.

        Raises:
            ValueError: ``frames`` has the wrong type or shape.
        """
        if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
            raise ValueError(f"frames must be uint8 [t, h, w, 3], got {frames.dtype} {list(frames.shape)}")
        height, width = frames.shape[1:3]
        found = [self.network(_padded(to_pixels(some))) for some in torch.split(frames, _AT_ONCE)]
        masks, heatmaps = (torch.cat(parts) for parts in zip(*found, strict=True))
        rows, columns = -(-height // HEATMAP_STRIDE), -(-width // HEATMAP_STRIDE)
        return Seen(masks[:, :height, :width] > 0, heatmaps[..., :rows, :columns].sigmoid())


def load_observer(path: Path = WEIGHTS) -> Observer:
    """Load the observer.

    Args:
        path: Weights as `regen_train.toy.making.observer` writes them; the shipped ones by default.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Not a whole safetensors file, or weights of something else; names what differs.
    """
    file = read_adapter_file(path)
    network = ObserverNet()
    wanted = weights_of(network)
    faults = [] if file.metadata.get("form") == FORM else [f"form is {file.metadata.get('form')!r}, not {FORM!r}"]
    faults += [f"{name} is missing" for name in wanted.keys() - file.tensors.keys()]
    faults += [f"{name} is not known" for name in file.tensors.keys() - wanted.keys()]
    for name in wanted.keys() & file.tensors.keys():
        if wanted[name].shape != file.tensors[name].shape:
            faults.append(f"{name} is {list(file.tensors[name].shape)}, not {list(wanted[name].shape)}")
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise ValueError(
            f"{path}: not weights of the toy's observer: {'; '.join(sorted(faults)[:5])}{more}; "
            "make them with `python -m regen_train.toy.making.observer`"
        )
    # The number of batches seen is no weight: it is not in the file.
    network.load_state_dict({name: tensor.float() for name, tensor in file.tensors.items()}, strict=False)
    return Observer(network)


def weights_of(network: ObserverNet) -> dict[str, Tensor]:
    """Return what a file of weights holds."""
    return {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}


def to_pixels(frames: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 h w"]:
    """Return frames as the network reads them."""
    return rearrange(frames, "b h w c -> b c h w").float() / 127.5 - 1


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv(width, width), _conv(width, width)

    def forward(self, features: Tensor) -> Tensor:
        changed: Tensor = features + self.second(self.first(features))
        return changed


def _conv(inputs: int, outputs: int, *, size: int = 3, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _twice(features: Tensor) -> Tensor:
    return functional.interpolate(features, scale_factor=2, mode="bilinear")


def _padded(pixels: Tensor) -> Tensor:
    height, width = pixels.shape[-2:]
    return functional.pad(pixels, (0, -width % _COARSEST, 0, -height % _COARSEST), mode="replicate")


def _offsets(heatmaps: Tensor) -> Tensor:
    """Return how far (right, down) of each cell the peak is, in cells: exact where the peak is a bell."""
    logs = functional.pad(heatmaps.clamp(min=1e-6).log(), (1, 1, 1, 1), mode="replicate")
    centre = logs[..., 1:-1, 1:-1]
    sides = ((logs[..., 1:-1, :-2], logs[..., 1:-1, 2:]), (logs[..., :-2, 1:-1], logs[..., 2:, 1:-1]))
    shifts = [(after - before) / (2 * (2 * centre - after - before)).clamp(min=1e-6) for before, after in sides]
    return torch.stack(shifts, dim=-1).clamp(-0.5, 0.5)
