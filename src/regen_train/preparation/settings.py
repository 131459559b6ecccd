"""The settings of a dataset: everything that decides what its samples hold, and that it then states."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from regen_train.schema import Bucket, Geometry

ConditionName = Literal["structhuman", "structall", "background", "depth", "pose", "edges"]
DEFAULT_CONDITIONS: tuple[ConditionName, ...] = ("structhuman", "structall")
DEPTH_CONDITIONS = frozenset({"structall", "depth"})
# These choose which clips and windows are taken, not what a sample holds: changing them re-encodes nothing.
_CHOOSING_FIELDS = ("sizes", "num_frames", "min_frames", "max_windows_per_clip", "allow_slow_source")
_MAX_NAMED_CLIPS = 5


@dataclass(frozen=True)
class DatasetSettings:
    """How clips become samples. The defaults are the paper's recipe, made safe where its release leaks.

    Args:
        fps: Frames per second of a sample; the source is resampled by its timestamps.
        num_frames: Frames of a sample; 4n+1 for Wan.
        sizes: Height and width of the buckets in pixels; each clip goes to the one with the closest aspect ratio.
        conditions: Condition videos to make: structhuman, structall, or a part of them: background (people filled, no
            skeleton), depth, pose; or edges. None holds a human pixel. Default: structhuman, and structall if every
            clip has depth or a stand-in is named.
        dilation: Radius in source pixels by which person masks grow. Default: max(8 px, 1.5 % of the short side); for
            sources under 256 px 1.5 % and at least 1 px.
        line_width: Width in source pixels of the skeleton's lines, scaled with the picture. Default: the style's own.
        fill: What replaces people in structhuman: gray 128, or the mean of each frame's background.
        depth_fill: What replaces people in structall: gray 128, or the mean depth of each frame's background.
        depth_normalization: Depth becomes 8 bits by statistics of the clip's non-human pixels, or of each frame's.
        skeleton_style: How skeletons are drawn: as in the paper's release, in VACE's pretraining or by ControlNet.
        vace_mask: The mask that VACE is given: all ones, or the dilated person mask.
        standin_depth: What stands in for missing depth files: a vertical ramp, near at the bottom, which knows nothing
            of the scene. The dataset states it. Default: none, so that depth must come from files.
        allow_slow_source: Accept sources slower than fps, whose frames are then repeated.
        min_frames: A clip shorter than num_frames is trimmed to the largest 4n+1, but not below this. Default:
            num_frames, so that short clips are refused.
        max_windows_per_clip: Take at most this many consecutive windows of a clip. Default: all.
    """

    fps: float = 7.5
    num_frames: int = 49
    sizes: tuple[tuple[int, int], ...] = ((480, 832),)
    conditions: tuple[ConditionName, ...] | None = None
    dilation: int | None = None
    line_width: float | None = None
    fill: Literal["gray", "background_mean"] = "gray"
    depth_fill: Literal["gray", "depth_mean"] = "gray"
    depth_normalization: Literal["clip", "frame"] = "clip"
    skeleton_style: Literal["regenhuman", "vace", "controlnet"] = "regenhuman"
    vace_mask: Literal["ones", "human"] = "ones"
    standin_depth: Literal["vertical_gradient"] | None = None
    allow_slow_source: bool = False
    min_frames: int | None = None
    max_windows_per_clip: int | None = None

    def __post_init__(self) -> None:
        faults = [*self._number_faults(), *self._choice_faults(), *self._list_faults()]
        if faults:
            raise ValueError("; ".join(faults))

    @property
    def shortest(self) -> int:
        """The fewest frames a sample may have."""
        return self.num_frames if self.min_frames is None else self.min_frames

    def check_geometry(self, geometry: Geometry) -> None:
        """Raise ValueError, naming every bucket's faults, unless the model can take what the settings ask for."""
        faults = []
        for height, width in self.sizes:
            bucket = Bucket(self.num_frames, height, width)
            try:
                geometry.check(bucket)
            except ValueError as error:
                faults.append(f"{bucket}: {error}")
        if faults:
            raise ValueError("the model cannot take these buckets: " + "; ".join(faults))

    def resolve(self, *, lacking_depth: Sequence[str]) -> tuple[ConditionName, ...]:
        """Return the conditions that the whole dataset gets.

        Args:
            lacking_depth: Names of the clips without depth files; they need none if a stand-in is named.

        Raises:
            ValueError: A condition that needs depth was asked for by name, and depth is missing.
        """
        wanted = DEFAULT_CONDITIONS if self.conditions is None else self.conditions
        has_depth = not lacking_depth or self.standin_depth is not None
        possible = tuple(name for name in wanted if has_depth or name not in DEPTH_CONDITIONS)
        if self.conditions is not None and possible != wanted:
            missing = ", ".join(name for name in wanted if name not in possible)
            clips, more = ", ".join(lacking_depth[:_MAX_NAMED_CLIPS]), len(lacking_depth) - _MAX_NAMED_CLIPS
            clips += f" and {more} more" if more > 0 else ""
            raise ValueError(
                f"{missing}: needs depth for every clip, and there is none for {clips}; bring their depth.mkv, leave "
                "the condition out of --conditions, or ask for a stand-in by name: --standin_depth vertical_gradient"
            )
        return possible

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as plain values, for dataset.json."""
        return {name: _plain(value) for name, value in dataclasses.asdict(self).items()}

    def sample_dict(self) -> dict[str, Any]:
        """Return the settings that decide what a given window of a clip looks like: the ones a sample answers for."""
        return {name: value for name, value in self.to_dict().items() if name not in _CHOOSING_FIELDS}

    def _number_faults(self) -> list[str]:
        checks = {
            "fps": (math.isfinite(self.fps) and self.fps > 0, "a positive number"),
            "num_frames": (self.num_frames > 0, "positive"),
            "dilation": (self.dilation is None or self.dilation >= 0, "0 or more source pixels"),
            "line_width": (self.line_width is None or 0 < self.line_width < math.inf, "a positive number"),
            "min_frames": (
                self.min_frames is None or 0 < self.min_frames <= self.num_frames,
                f"between 1 and num_frames, which is {self.num_frames}",
            ),
            "max_windows_per_clip": (self.max_windows_per_clip is None or self.max_windows_per_clip > 0, "positive"),
        }
        return [
            f"{name} must be {wanted}, got {getattr(self, name)}"
            for name, (holds, wanted) in checks.items()
            if not holds
        ]

    def _choice_faults(self) -> list[str]:
        faults = []
        for field in dataclasses.fields(self):
            choices = [choice for part in (field.type, *get_args(field.type)) for choice in get_args(part)]
            names = [choice for choice in choices if isinstance(choice, str)]
            value = getattr(self, field.name)
            if names and isinstance(value, str) and value not in names:
                faults.append(f"{field.name} must be one of {', '.join(names)}, got {value!r}")
        return faults

    def _list_faults(self) -> list[str]:
        faults = [f"sizes must be positive, got {h}x{w}" for h, w in self.sizes if min(h, w) < 1]
        known = get_args(ConditionName)
        names = self.conditions if self.conditions is not None else DEFAULT_CONDITIONS
        faults += [f"conditions must be among {', '.join(known)}, got {name!r}" for name in names if name not in known]
        for field, values in (("sizes", self.sizes), ("conditions", names)):
            if not values:
                faults.append(f"{field} must not be empty")
            if len(set(values)) < len(values):
                faults.append(f"{field} must not repeat themselves, got {values}")
        return faults


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, tuple | list) else value
