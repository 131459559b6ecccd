"""What a user can say of an anonymization."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from regen_train.anonymize.origin import Origin
from regen_train.anonymize.painter import Reference
from regen_train.anonymize.size import nearest_size
from regen_train.conditions import default_dilation
from regen_train.encoders import NEGATIVE_PROMPT
from regen_train.guard import GuardSettings
from regen_train.model import BlockOptions
from regen_train.preparation import DatasetSettings
from regen_train.preparation.options import SecondOpinions
from regen_train.preparation.probe import ProbeSettings
from regen_train.pretrained import Precision
from regen_train.sampling import FAST, SamplingSettings
from regen_train.schema import Geometry

Variant = Literal["structhuman", "structall"]


@dataclass(frozen=True)
class VideoOptions:
    """What becomes of which file.

    Args:
        input: The video file.
        output: The anonymized video: .mp4, .mov or .mkv. An older file of this name is replaced once the new one is
            whole.
        variant: The condition that people are painted from: structhuman keeps the background, structall its depth.
        signals: The folder with mask, skeletons, caption and maybe depth of this very file; no caption is needed where
            one is given here.
        caption: What to paint: other clothes, other people. Default: the signals' caption, which describes the real
            person.
        negative_prompt: What not to paint; Wan's standard one by default.
        seed: Another seed, other people.
        codec: h264 for every player; ffv1, in .mkv, for who measures the pictures: it loses nothing.
        quarantine: Put a window that the gate doubts aside in this folder, with a picture and a list, review.csv, in
            which you release it: enter yes and give the same command again. As private as the clip. Default: do not.
    """

    input: Path
    output: Path
    variant: Variant
    signals: Path
    caption: str | None = None
    negative_prompt: str = NEGATIVE_PROMPT
    seed: int = 0
    codec: Literal["h264", "ffv1"] = "h264"
    quarantine: Path | None = None


@dataclass(frozen=True)
class PainterOptions:
    """The model that paints.

    Args:
        pretrained: A diffusers folder or a hub id.
        revision: Branch, tag or commit of a hub id.
        lora: A LoRA file, or the folder that regen_train export wrote. Default: none; the base model alone does not
            know the conditions.
        dtype: Precision of the transformer and the text encoder; auto is bf16 on a GPU and fp32 on a CPU.
        device: Where it runs; auto takes a GPU if there is one.
        tiling: Have the VAE work in tiles, for GPUs with little memory; slower, and not quite the same picture.
        reference: Whether VACE gets the first condition frame as its reference image. Default: as the LoRA was trained.
        blocks: Whether the transformer's blocks are compiled, quantized or swapped, for speed or for GPUs with little
            memory.
    """

    pretrained: str = "Wan-AI/Wan2.1-VACE-1.3B-diffusers"
    revision: str | None = None
    lora: str | None = None
    dtype: Precision | Literal["auto"] = "auto"
    device: str = "auto"
    tiling: bool = False
    reference: Reference | None = None
    blocks: BlockOptions = field(default_factory=BlockOptions)


@dataclass(frozen=True)
class WindowOptions:
    """How the clip becomes a condition video. What is not said is as the LoRA was trained, if it tells.

    Args:
        fps: Frames per second that the model paints; the clip is resampled by its timestamps.
        num_frames: Frames that the model paints; 4n+1 for Wan.
        size: Height and width in pixels that the model paints. Default: about as many pixels as in training, in nearly
            the clip's proportions.
        dilation: Radius in source pixels by which person masks grow. Default: as in training, but no less than
            max(8 px, 1.5 % of the short side); for sources under 256 px 1.5 % and at least 1 px.
        line_width: Width in source pixels of the skeleton's lines.
        fill: What replaces people in structhuman.
        depth_fill: What replaces people in structall.
        depth_normalization: Depth becomes 8 bits by statistics of the clip's non-human pixels, or of each frame's.
        skeleton_style: How skeletons are drawn.
        vace_mask: The mask that VACE is given: all ones, or the dilated person mask.
        standin_depth: What stands in for missing depth in structall: a vertical ramp, which knows nothing of the scene.
            Never by itself.
        allow_slow_source: Accept a source slower than fps, whose frames are then repeated.
        min_frames: Paint a shorter clip than num_frames, trimmed to the largest 4n+1, if it has so many frames.
    """

    fps: float | None = None
    num_frames: int | None = None
    size: tuple[int, int] | None = None
    dilation: int | None = None
    line_width: float | None = None
    fill: Literal["gray", "background_mean"] | None = None
    depth_fill: Literal["gray", "depth_mean"] | None = None
    depth_normalization: Literal["clip", "frame"] | None = None
    skeleton_style: Literal["regenhuman", "vace", "controlnet"] | None = None
    vace_mask: Literal["ones", "human"] | None = None
    standin_depth: Literal["vertical_gradient"] | None = None
    allow_slow_source: bool = False
    min_frames: int | None = None

    def settings(
        self, origin: Origin, variant: Variant, source: tuple[int, int], geometry: Geometry
    ) -> DatasetSettings:
        """Return the settings of a preparation that makes one window of a clip.

        Args:
            origin: What the model was trained on.
            variant: The condition to make.
            source: Height and width of the clip.
            geometry: The model's.

        Raises:
            ValueError: A setting is out of range, or the model cannot take the shape; names all faults.
        """
        area = origin.bucket.height * origin.bucket.width
        asked = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "size"}
        chosen: dict[str, Any] = {
            "num_frames": origin.bucket.num_frames,
            **_composing(origin, source),
            **{name: value for name, value in asked.items() if value is not None},
            "sizes": (nearest_size(source, area, geometry) if self.size is None else self.size,),
        }
        settings = DatasetSettings(**chosen, conditions=(variant,), max_windows_per_clip=1)
        settings.check_geometry(geometry)
        return settings


def _composing(origin: Origin, source: tuple[int, int]) -> dict[str, Any]:
    """Return how conditions were composed in training; no LoRA makes masks grow less than is safe for the clip."""
    trained = dict(origin.settings)
    dilation = trained.pop("dilation", None)
    grows_more = isinstance(dilation, int) and dilation > default_dilation(*source)
    return trained | ({"dilation": dilation} if grows_more else {})


@dataclass(frozen=True)
class AnonymizeOptions:
    """All of it.

    Args:
        video: What becomes of which file.
        model: The model that paints.
        window: How the clip becomes a condition video.
        sampling: How the video is sampled; `FAST` unless told otherwise.
        guard: How strict the gate is.
        opinions: Detectors for the gate.
        probe: What videos may be, and how scenes are cut.
    """

    video: VideoOptions
    model: PainterOptions = field(default_factory=PainterOptions)
    window: WindowOptions = field(default_factory=WindowOptions)
    sampling: SamplingSettings = FAST
    guard: GuardSettings = field(default_factory=GuardSettings)
    opinions: SecondOpinions = field(default_factory=SecondOpinions)
    probe: ProbeSettings = field(default_factory=ProbeSettings)
