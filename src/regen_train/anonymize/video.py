"""A video file in, an anonymized video file out."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from regen_train.adapter import Adapter, load_adapter
from regen_train.anonymize.options import AnonymizeOptions, PainterOptions
from regen_train.anonymize.origin import check_variant, origin_of
from regen_train.anonymize.painter import Painter, Painting, Progress, load_model, trained_reference
from regen_train.anonymize.request import check_request
from regen_train.anonymize.size import Border, border_of, restore_size
from regen_train.anonymize.window import PassedWindow, take_window
from regen_train.encoders import WanEncoders, load_encoders
from regen_train.guard import GuardReport
from regen_train.model import LoraSpec
from regen_train.model.blocks import check_blocks
from regen_train.preparation import DatasetSettings
from regen_train.preparation.command_line import pick_device
from regen_train.preparation.probe import Probed, ProbeStage, fit_video
from regen_train.pretrained import Precision
from regen_train.schema import Bucket, Geometry
from regen_train.video import CropPlan, plan_crop, read_times, write_video
from regen_train.video.encode import Codec

log = logging.getLogger(__name__)

_OWN_CAPTION = "painted by the clip's own caption, which describes the real person; --caption says how new people look"


@dataclass(frozen=True)
class AnonymizeReport:
    """What was anonymized, and what was not.

    Args:
        output: The file that was written.
        first_frame: Number of the first source frame that it shows.
        last_frame: Number of the last.
        source_frames: Frames of the input.
        start: Seconds from the input's first frame to ``first_frame``.
        end: Seconds from the input's first frame to ``last_frame``.
        size: Height and width of the output, which are the input's.
        bucket: The shape that the model painted.
        fps: Frames per second of the output.
        border: What the crop left out of the picture.
        settings: How the condition was composed.
        guard: What the gate found.
        notes: What else a person should know.
    """

    output: Path
    first_frame: int
    last_frame: int
    source_frames: int
    start: float
    end: float
    size: tuple[int, int]
    bucket: Bucket
    fps: float
    border: Border
    settings: DatasetSettings
    guard: GuardReport
    notes: tuple[str, ...]


def anonymize_video(options: AnonymizeOptions, *, progress: Progress | None = None) -> AnonymizeReport:
    """Anonymize the first window of a video: its first 49 frames at 7.5 frames a second, with the paper's model.

    The gate judges the window as data preparation does, and nothing is written of one that it does not let pass. The
    output has the input's size, no sound and no metadata; it appears under its name only when whole.

    Args:
        options: What becomes of which file, and how.
        progress: Called after every sampling step with the steps done and those to do.

    Raises:
        FileNotFoundError: The input, its signals, the model or the LoRA are missing.
        GateRefusedError: The gate does not let the window pass.
        ValueError: Anything else that cannot be done; says what, where and what would do.
        ImportError: A quantization needs a package that is not installed.
    """
    check_request(options)
    video, model = options.video, options.model
    adapter = None if model.lora is None else load_adapter(model.lora)
    check_variant(adapter, video.variant)
    check_blocks(model.blocks, lora=None if adapter is None else LoraSpec(use_dora=adapter.use_dora))
    if video.caption is None:
        log.warning(_OWN_CAPTION)
    video_info = fit_video(video.input, options.probe)
    device = pick_device(model.device)
    encoders = load_encoders(
        model.pretrained,
        dtype=_precision(model, device),
        device=device,
        revision=model.revision,
        tiling=model.tiling,
    )
    settings = _settings(options, adapter, (video_info.height, video_info.width), encoders.geometry)
    probed = _probe(options, settings)
    passed = take_window(options, probed, settings, encoders.geometry, device)
    painter = _load_painter(options, encoders, adapter, device)  # the largest part, once all else is settled
    (painted,) = painter.paint(
        [_painting(passed, settings, video.seed)],
        settings=options.sampling,
        negative_prompt=video.negative_prompt,
        progress=progress,
    )
    crop = plan_crop(*passed.plan.size, *painted.shape[1:3])
    codec = _write(options, restore_size(painted, crop), settings.fps)
    return _report(
        options, probed, passed, settings, crop, [*_notes(options, passed, crop, codec), *_rounding(painter)]
    )


def _settings(
    options: AnonymizeOptions, adapter: Adapter | None, source: tuple[int, int], geometry: Geometry
) -> DatasetSettings:
    origin = origin_of(options.model.pretrained, adapter)
    if adapter is not None and not origin.stated:
        log.warning("the LoRA does not say how its conditions were composed; taken to be as is usual for the model")
    return options.window.settings(origin, options.video.variant, source, geometry)


def _load_painter(options: AnonymizeOptions, encoders: WanEncoders, adapter: Adapter | None, device: str) -> Painter:
    model = options.model
    dtype = _precision(model, device)
    transformer = load_model(
        model.pretrained,
        model.lora,
        dtype=dtype,
        device=device,
        revision=model.revision,
        adapter=adapter,
        blocks=model.blocks,
    )
    reference = trained_reference(adapter) if model.reference is None else model.reference
    return Painter(transformer, encoders, reference=reference)


def _write(options: AnonymizeOptions, frames: UInt8[Tensor, "t h w 3"], fps: float) -> Codec:
    """Write the output whole or not at all; return how it was coded."""
    video, odd = options.video, bool(frames.shape[1] % 2 or frames.shape[2] % 2)
    codec: Codec = "h264_444" if odd and video.codec == "h264" else video.codec
    video.output.parent.mkdir(parents=True, exist_ok=True)
    write_video(video.output, frames, fps, codec=codec)
    return codec


def _painting(passed: PassedWindow, settings: DatasetSettings, seed: int) -> Painting:
    clip = passed.window.clip
    (condition,) = clip.conditions.values()
    return Painting(condition, passed.plan.caption, seed, clip.mask if settings.vace_mask == "human" else None)


def _probe(options: AnonymizeOptions, settings: DatasetSettings) -> Probed:
    log.info("looking at %s: length, and cuts between scenes", options.video.input.name)
    result = ProbeStage(options.probe, settings.num_frames / settings.fps).process(options.video.input).value
    assert isinstance(result, Probed)
    return result


def _precision(model: PainterOptions, device: str) -> Precision:
    if model.dtype != "auto":
        return model.dtype
    return "fp32" if torch.device(device).type == "cpu" else "bf16"


def _report(
    options: AnonymizeOptions,
    probed: Probed,
    passed: PassedWindow,
    settings: DatasetSettings,
    crop: CropPlan,
    notes: Sequence[str],
) -> AnonymizeReport:
    first, last = passed.window.frames[0], passed.window.frames[-1]
    times = read_times(options.video.input, max_frames=last + 1)
    return AnonymizeReport(
        output=options.video.output,
        first_frame=first,
        last_frame=last,
        source_frames=probed.num_frames,
        start=float(times[first] - times[0]),
        end=float(times[last] - times[0]),
        size=passed.plan.size,
        bucket=passed.plan.bucket,
        fps=settings.fps,
        border=border_of(crop),
        settings=settings,
        guard=passed.report,
        notes=tuple(notes),
    )


def _notes(options: AnonymizeOptions, passed: PassedWindow, crop: CropPlan, codec: Codec) -> Iterator[str]:
    if options.video.caption is None:
        yield _OWN_CAPTION
    if passed.plan.cuts:
        yield f"{len(passed.plan.cuts) + 1} scenes; this is the first window that lies within one"
    if crop.scale > 1:
        yield f"the input is smaller than what the model paints, and was enlarged {crop.scale:.2f} times"
    if passed.released:
        yield f"the gate doubted it and a person released it: {'; '.join(passed.report.reasons)}"
    for finding in passed.report.findings:
        if finding.severity == "note":
            yield f"the gate: {finding}"
    if codec == "h264_444":
        yield "an odd size needs H.264 with whole colour (yuv444p), which some players do not show"


def _rounding(painter: Painter) -> Iterator[str]:
    if painter.model.quantization is not None:
        yield f"the model is rounded: {painter.model.quantization.describe()}"
