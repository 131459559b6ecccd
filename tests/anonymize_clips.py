"""Clips, signals and options for the tests of anonymization."""

import json
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from regen_train.adapter import AdapterMetadata, save_adapter
from regen_train.anonymize import AnonymizeOptions, PainterOptions, VideoOptions, WindowOptions
from regen_train.files import file_sha256
from regen_train.guard import GuardSettings
from regen_train.model import LoraSpec, load_wan_vace
from regen_train.sampling import SamplingSettings
from regen_train.signals import load_signals
from regen_train.toy.world import ClipFormat, WorldFiles, WorldOptions, write_world
from regen_train.video import read_video, write_video

UNCHECKED = GuardSettings(when_absent="accept")
QUICK = SamplingSettings(num_inference_steps=1)


def draw(folder: Path, *, frames: int = 9, height: int = 64, width: int = 64, fps: float = 8.0) -> WorldFiles:
    """Draw one clip."""
    people = WorldOptions(max_people=2, min_size=0.6, max_size=0.95)
    return write_world(folder, count=1, form=ClipFormat(frames, height, width, fps), options=people)[0]


def ask(
    clip: WorldFiles, output: Path, model: Path, *, window: dict[str, Any] | None = None, **changed: Any
) -> AnonymizeOptions:
    """Return options to anonymize nine frames of a drawn clip; what is said goes to the video's or model's options."""
    window = {"fps": 8.0, "num_frames": 9, "size": (64, 64), "line_width": 1.5} | (window or {})
    model_fields = {name: changed.pop(name) for name in list(changed) if name in PainterOptions.__dataclass_fields__}
    top = {name: changed.pop(name) for name in list(changed) if name in ("guard", "sampling", "opinions", "probe")}
    video = {"input": clip.video, "signals": clip.signals, "variant": "structhuman"} | changed
    return AnonymizeOptions(
        video=VideoOptions(output=output, **video),
        model=PainterOptions(str(model), **model_fields),
        window=WindowOptions(**window),
        **({"guard": UNCHECKED, "sampling": QUICK} | top),
    )


def restate_source(signals: Path, video: Path) -> None:
    """Have signals say that they were made from this file."""
    path = signals / "signals.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"source_sha256": file_sha256(video)}))


def with_other_people(clip: WorldFiles, folder: Path) -> WorldFiles:
    """Return a copy of a lossless clip in which every pixel under the mask is noise; the signals stay."""
    folder.mkdir()
    video = read_video(clip.video)
    people = load_signals(clip.signals).people
    noise = torch.randint(0, 256, video.frames.shape, generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    frames = torch.where(people[..., None], noise, video.frames)
    assert not torch.equal(frames, video.frames)
    write_video(folder / "noise.mkv", frames, video.fps, codec="ffv1")
    shutil.copytree(clip.signals, folder / "signals")
    restate_source(folder / "signals", folder / "noise.mkv")
    return WorldFiles(folder / "noise.mkv", folder / "signals", ())


def recode(clip: WorldFiles, path: Path, *, rotate: int = 0, tags: dict[str, str] | None = None) -> WorldFiles:
    """Return the clip as a telephone would write it: H.264 with sound, perhaps turned, with tags.

    Args:
        clip: The clip.
        path: The new file, .mp4; its signals come beside it.
        rotate: Degrees counter-clockwise by which a player turns the coded picture; the pictures are turned back.
        tags: For the file and each of its streams.
    """
    frames = read_video(clip.video).frames.numpy()
    coded = np.ascontiguousarray(np.rot90(frames, -rotate // 90, axes=(1, 2)))
    with av.open(str(path), "w", container_options={"movflags": "use_metadata_tags"}) as container:
        container.metadata.update(tags or {})
        stream = container.add_stream("libx264", rate=8, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = *coded.shape[1:3], "yuv444p"
        sound = container.add_stream("aac", rate=8000)
        for told in (stream, sound):
            told.metadata.update(tags or {})
        if rotate:
            stream.set_display_rotation(rotate)
        container.set_chapters(
            [{"id": 1, "start": 0, "end": 1000, "time_base": Fraction(1, 1000), "metadata": tags or {}}]
        )
        for picture in coded:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate, silence.pts = 8000, 0
        container.mux(sound.encode(silence))
        container.mux(stream.encode())
        container.mux(sound.encode())
    signals = path.with_suffix("")
    shutil.copytree(clip.signals, signals)
    restate_source(signals, path)
    return WorldFiles(path, signals, clip.identities)


def write_lora(model: Path, path: Path, **stated: Any) -> Path:
    """Write a LoRA that changes what the tiny model paints."""
    wan = load_wan_vace(str(model), dtype="fp32", lora=LoraSpec(rank=4, alpha=8.0))
    generator = torch.Generator().manual_seed(2)
    state = {name: 0.2 * torch.randn(t.shape, generator=generator) for name, t in wan.lora_state().items()}
    base = {"base_name": wan.base.name, "base_revision": wan.base.revision, "base_sha256": wan.base.sha256}
    known = base | {"variant": "structhuman", "settings": {"reference": "first_condition"}}
    metadata = AdapterMetadata(rank=4, alpha=8.0, **known | stated)
    save_adapter(path, state, metadata)
    return path
