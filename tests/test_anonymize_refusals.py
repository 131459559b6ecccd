"""What cannot be done is refused before anything heavy is loaded, in words that say what would do."""

import re
import shlex
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest
from anonymize_clips import UNCHECKED, ask, draw, write_lora

from regen_train.adapter import load_adapter
from regen_train.anonymize import anonymize_video
from regen_train.anonymize.origin import Origin, check_variant, origin_of
from regen_train.model import BlockOptions
from regen_train.preparation.command_line import STAGES, parse_options
from regen_train.preparation.extract import Extractors
from regen_train.sampling import SamplingSettings, StepCache
from regen_train.schema import Bucket
from regen_train.toy.world import WorldFiles

NO_MODEL = Path("/nowhere/model")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> WorldFiles:
    return draw(tmp_path_factory.mktemp("clip"))


def without(clip: WorldFiles, folder: Path, *names: str) -> WorldFiles:
    shutil.copytree(clip.signals, folder / "signals")
    for name in names:
        (folder / "signals" / name).unlink()
    return replace(clip, signals=folder / "signals")


def extract_options(message: str) -> dict[str, object]:
    """Parse the command that a message tells, as data_prep.extract would; only the signals it makes."""
    (command,) = re.findall(r"python -m data_prep\.extract (.*)", message)
    extractors = parse_options("extract", "", STAGES, shlex.split(command))[Extractors]
    return {kind: type(source).__name__ for kind, source in extractors.by_kind().items()}


def test_missing_signals_are_told_with_the_command_that_makes_them(clip, tmp_path):
    lost = replace(clip, signals=tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"--signals .*nothing does not exist") as refused:
        anonymize_video(ask(lost, tmp_path / "out.mp4", NO_MODEL))
    assert f"cp {clip.video} work/clips/" in str(refused.value)
    assert "give --signals work/.work/signals/clip-00000" in str(refused.value)
    assert set(extract_options(str(refused.value))) == {"mask", "pose", "caption"}
    with pytest.raises(FileNotFoundError) as refused:
        anonymize_video(ask(lost, tmp_path / "out.mp4", NO_MODEL, variant="structall"))
    assert set(extract_options(str(refused.value))) == {"mask", "pose", "depth", "caption"}


def test_one_missing_signal_is_made_beside_the_others(clip, tmp_path):
    lost = without(clip, tmp_path, "pose.safetensors")
    with pytest.raises(FileNotFoundError, match=r"lacks pose\.safetensors") as refused:
        anonymize_video(ask(lost, tmp_path / "out.mp4", NO_MODEL))
    assert f"cp -r {lost.signals} work/clips/signals/clip-00000" in str(refused.value)
    assert extract_options(str(refused.value)) == {"pose": "DwPose"}


def test_a_caption_given_needs_no_caption_among_the_signals(clip, tmp_path, tiny_model):
    lost = without(clip, tmp_path, "caption.txt")
    with pytest.raises(FileNotFoundError, match=r"lacks caption\.txt"):
        anonymize_video(ask(lost, tmp_path / "out.mp4", NO_MODEL))
    with pytest.raises(ValueError, match="--caption is empty"):
        anonymize_video(ask(lost, tmp_path / "out.mp4", NO_MODEL, caption=" "))
    words = "A woman's coat is red."
    anonymize_video(ask(lost, tmp_path / "out.mkv", tiny_model, caption=words, codec="ffv1"))
    anonymize_video(ask(clip, tmp_path / "same.mkv", tiny_model, caption=words, codec="ffv1"))
    assert (tmp_path / "out.mkv").read_bytes() == (tmp_path / "same.mkv").read_bytes()
    (lost.signals / "signals.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks signals\.json") as refused:
        anonymize_video(ask(lost, tmp_path / "out.mp4", NO_MODEL, caption=words))
    assert set(extract_options(str(refused.value))) == {"mask", "pose"}
    assert f"printf %s {shlex.quote(words)} > work/clips/signals/clip-00000/caption.txt" in str(refused.value)


def test_structall_without_depth_is_refused_and_a_stand_in_must_be_named(clip, tmp_path, tiny_model):
    flat = without(clip, tmp_path, "depth.mkv")
    with pytest.raises(FileNotFoundError, match=r"lacks depth\.mkv") as refused:
        anonymize_video(ask(flat, tmp_path / "out.mp4", NO_MODEL, variant="structall"))
    assert "--standin_depth vertical_gradient" in str(refused.value)
    assert extract_options(str(refused.value)) == {"depth": "DepthAnythingV2"}
    ramp = {"standin_depth": "vertical_gradient"}
    anonymize_video(ask(flat, tmp_path / "out.mp4", tiny_model, variant="structall", window=ramp))
    assert (tmp_path / "out.mp4").is_file()


def test_the_input_is_never_the_output(clip, tmp_path):
    alias = tmp_path / "alias.mkv"
    alias.hardlink_to(clip.video)
    before = clip.video.read_bytes()
    for output in (clip.video, alias, clip.video.parent / "signals" / ".." / clip.video.name):
        with pytest.raises(ValueError, match="is the input itself, which is never changed"):
            anonymize_video(ask(clip, output, NO_MODEL))
    assert clip.video.read_bytes() == before


def test_outputs_that_cannot_be_are_told_at_once(clip, tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    for output, message in (
        (tmp_path / "out.gif", r"--output must end with \.mp4, \.mov, \.mkv, got 'out\.gif'"),
        (tmp_path / "folder.mp4", "is a folder; give a file"),
        (clip.signals / "mask.mkv", "lies among the signals"),
    ):
        with pytest.raises(ValueError, match=message):
            anonymize_video(ask(clip, output, NO_MODEL))
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file/in/out\.mp4 cannot be written, for .*file takes no files \(Not a dir"):
        anonymize_video(ask(clip, tmp_path / "file" / "in" / "out.mp4", NO_MODEL))
    with pytest.raises(ValueError, match=r"--codec ffv1 needs an --output that ends with \.mkv"):
        anonymize_video(ask(clip, tmp_path / "out.mp4", NO_MODEL, codec="ffv1"))
    blur = replace(UNCHECKED, text="blur")
    with pytest.raises(ValueError, match=r"must end with .*; --guard\.text blur needs something that finds text"):
        anonymize_video(ask(clip, tmp_path / "out.gif", NO_MODEL, guard=blur))
    with pytest.raises(FileNotFoundError, match=r"there is no input at .*gone\.mp4"):
        anonymize_video(ask(replace(clip, video=tmp_path / "gone.mp4"), tmp_path / "out.mp4", NO_MODEL))


def test_what_does_not_go_with_the_blocks_is_told_at_once(clip, tmp_path):
    for blocks, message in (
        (BlockOptions(swap=-1), "blocks.swap must be at least 0, got -1"),
        (BlockOptions(compile=True), "cache.part attention predicts a part of a block"),
    ):
        asked = ask(clip, tmp_path / "out.mp4", NO_MODEL, blocks=blocks)
        with pytest.raises(ValueError, match=message):
            anonymize_video(replace(asked, sampling=SamplingSettings(cache=StepCache("attention"))))


def test_a_dora_on_a_rounded_base_is_told_at_once(clip, tmp_path, tiny_model, monkeypatch):
    lora = write_lora(tiny_model, tmp_path / "lora.safetensors")
    monkeypatch.setattr(
        "regen_train.anonymize.video.load_adapter", lambda path: replace(load_adapter(path), use_dora=True)
    )
    asked = ask(clip, tmp_path / "out.mp4", NO_MODEL, lora=str(lora), blocks=BlockOptions(quantize="int8"))
    with pytest.raises(ValueError, match=r"use_dora learns from the base's own weights, and blocks\.quantize: int8"):
        anonymize_video(asked)


def test_clips_that_are_too_short_or_slow_are_refused(clip, tiny_model, tmp_path):
    for window, message in (
        ({"num_frames": 13}, r"gives 9 frames at 8 fps within its signals, needs 13; --min_frames 9 takes it so short"),
        ({"fps": 16.0}, r"runs at 8\.00 fps, too slow for 16 fps"),
        ({"num_frames": 8}, r"num_frames must be 4n\+1, got 8"),
        ({"size": (60, 64)}, "height must be a multiple of 16, got 60"),
        ({"dilation": -1}, "dilation must be 0 or more source pixels"),
    ):
        with pytest.raises(ValueError, match=message):
            anonymize_video(ask(clip, tmp_path / "out.mp4", tiny_model, window=window))
    assert list(tmp_path.iterdir()) == []


def test_pixels_that_are_not_square_are_refused_before_the_model_is_read(clip, tmp_path):
    wide = tmp_path / "wide.mkv"
    with av.open(str(clip.video)) as source, av.open(str(wide), "w") as copy:
        stream = copy.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for frame in source.decode(video=0):
            copy.mux(stream.encode(av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), format="rgb24")))
        copy.mux(stream.encode())
    with pytest.raises(ValueError, match=r"sample aspect ratio 4/3.*ffmpeg -i wide\.mkv -vf 'scale=trunc"):
        anonymize_video(ask(replace(clip, video=wide), tmp_path / "out.mp4", NO_MODEL))


def test_signals_of_another_clip_are_refused(clip, tiny_model, tmp_path):
    other = draw(tmp_path, width=80)
    with pytest.raises(ValueError, match="were made from another file"):
        anonymize_video(ask(replace(clip, signals=other.signals), tmp_path / "out.mp4", tiny_model))


def test_a_lora_for_another_variant_or_base_is_refused(clip, tiny_model, tmp_path):
    lora = write_lora(tiny_model, tmp_path / "structall.safetensors", variant="structall")
    with pytest.raises(ValueError, match=r"was trained on structall, not on structhuman.*--variant structall"):
        anonymize_video(ask(clip, tmp_path / "out.mp4", NO_MODEL, lora=str(lora)))
    lora = write_lora(tiny_model, tmp_path / "other.safetensors", base_sha256="0" * 64, base_name="other/base")
    with pytest.raises(ValueError, match="were trained on base other/base"):
        anonymize_video(ask(clip, tmp_path / "out.mp4", tiny_model, lora=str(lora)))
    assert not (tmp_path / "out.mp4").exists()


def test_a_lora_of_both_variants_serves_both(tiny_model, tmp_path, caplog):
    mix = load_adapter(write_lora(tiny_model, tmp_path / "a.safetensors", variant="0.5 structall + 0.5 structhuman"))
    for variant in ("structhuman", "structall"):
        check_variant(mix, variant)
    assert not caplog.records
    unknown = load_adapter(write_lora(tiny_model, tmp_path / "b.safetensors", variant=None))
    check_variant(unknown, "structall")
    check_variant(None, "structall")
    assert "does not say which condition" in caplog.text
    assert "no --lora: a model into which none was merged" in caplog.text


def test_a_lora_tells_how_its_conditions_were_composed(tiny_model, tmp_path):
    settings = {"fps": 8.0, "dilation": 3, "line_width": 1.5, "skeleton_style": "vace", "standin_depth": "ramp"}
    dataset = {"settings": settings | {"guard": {}}, "buckets": ["9x80x80", "5x96x64"]}
    told = load_adapter(write_lora(tiny_model, tmp_path / "a.safetensors", settings={"dataset": dataset}))
    known = {"fps": 8.0, "dilation": 3, "line_width": 1.5, "skeleton_style": "vace"}
    assert origin_of("any/model", told) == Origin(Bucket(9, 80, 80), known, stated=True)
    silent = load_adapter(write_lora(tiny_model, tmp_path / "b.safetensors"))
    assert origin_of("any/model", silent) == Origin(Bucket(49, 480, 832), {}, stated=False)
    broken = replace(told, metadata=replace(told.metadata, settings={"dataset": dataset | {"settings": {"fps": "x"}}}))
    with pytest.raises(ValueError, match="settings of its dataset that are none: fps 'x'"):
        origin_of("any/model", broken)
    assert origin_of("toy", None).bucket == Bucket(9, 80, 80)


def test_a_models_folder_may_tell_what_its_base_was_trained_on(tiny_model, tmp_path):
    (tmp_path / "model").mkdir()
    assert origin_of(str(tmp_path / "model"), None) == Origin()
    form = tmp_path / "model" / "regen_train.json"
    form.write_text('{"bucket": "9x80x80", "settings": {"fps": 8.0, "line_width": 1.5, "other": 1}}')
    told = Origin(Bucket(9, 80, 80), {"fps": 8.0, "line_width": 1.5})
    assert origin_of(str(tmp_path / "model"), None) == told
    silent = load_adapter(write_lora(tiny_model, tmp_path / "silent.safetensors"))
    assert origin_of(str(tmp_path / "model"), silent) == told
    for broken in ("{", "[]", '{"bucket": "9x80", "settings": {}}', '{"bucket": "9x80x80", "settings": {"fps": "x"}}'):
        form.write_text(broken)
        with pytest.raises(ValueError, match=r"regen_train\.json must be like \{.*\}: "):
            origin_of(str(tmp_path / "model"), None)
