"""``regen_train anonymize`` as a user types it."""

import re
from pathlib import Path

import pytest
from anonymize_clips import draw, write_lora

from regen_train.adapter import load_adapter
from regen_train.anonymize import AnonymizeOptions
from regen_train.anonymize.origin import origin_of
from regen_train.anonymize_cli import parse_arguments
from regen_train.cli import main
from regen_train.data import ShardDataModule
from regen_train.model.block_swap import BlockSwap
from regen_train.sampling import FAST
from regen_train.schema import Bucket
from regen_train.toy.world import WorldFiles
from regen_train.video import probe_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> WorldFiles:
    return draw(tmp_path_factory.mktemp("clip"), frames=13, height=66, width=90)


def command(clip: WorldFiles, output: Path, *more: str) -> list[str]:
    return [
        *("anonymize", "--input", str(clip.video), "--output", str(output), "--variant", "structhuman"),
        *("--signals", str(clip.signals), *more),
    ]


def test_the_command_anonymizes_and_says_what_it_covered(clip, tiny_model, tmp_path, capsys):
    dataset = {"settings": {"fps": 8.0, "line_width": 1.5}, "buckets": ["9x64x64"]}
    write_lora(tiny_model, tmp_path / "exported" / "pytorch_lora_weights.safetensors", settings={"dataset": dataset})
    output = tmp_path / "out.mp4"
    more = ("--pretrained", str(tiny_model), "--lora", str(tmp_path / "exported"), "--guard.when_absent", "accept")
    main(command(clip, output, *more, "--sampling.num_inference_steps", "1", "--size", "[48,64]"))
    told = capsys.readouterr().out
    assert f"{output}: 9 frames of 66x90 at 8 frames a second, no sound, no metadata" in told
    assert "covered: frames 0 to 8 of 13 (0.00 to 1.00 s); 4 frames of the input are left out" in told
    assert "painted at 48x64; cut off and filled with the painted edge: 0 rows at the top, 0 at the bottom" in told
    assert "fps 8.0, line_width 1.5, fill gray" in told
    assert "note: painted by the clip's own caption, which describes the real person" in told
    assert "note: the gate: no detector of people looked at the clip" in told
    assert (probe_video(output).height, probe_video(output).width) == (66, 90)


def test_a_model_too_large_for_a_gpu_is_rounded_and_swapped(clip, tiny_model, tmp_path, capsys, monkeypatch):
    more = ("--pretrained", str(tiny_model), "--blocks.quantize", "int8", "--blocks.swap", "3", "--size", "[48,64]")
    more = (*more, "--fps", "8", "--num_frames", "9", "--guard.when_absent", "accept")
    copies, fill = [], BlockSwap._fill
    monkeypatch.setattr(BlockSwap, "_fill", lambda *given: copies.append(given) or fill(*given))
    main(command(clip, tmp_path / "out.mp4", *more, "--sampling.num_inference_steps", "3"))
    assert re.search(r"note: the model is rounded: int8, .* the velocity moves by \d", capsys.readouterr().out)
    assert copies
    assert probe_video(tmp_path / "out.mp4").num_frames == 9


def test_a_users_mistake_ends_in_words(clip, tiny_model, tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"regen_train anonymize: the gate doubts frames"):
        main(command(clip, tmp_path / "out.mp4", "--pretrained", str(tiny_model), "--fps", "8", "--num_frames", "9"))
    with pytest.raises(SystemExit):
        main(["anonymize", "--input", "in.mp4"])
    assert "--output" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(command(clip, tmp_path / "out.mp4", "--sampling.num_inference_steps", "0"))
    assert "num_inference_steps must be at least 1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(command(clip, tmp_path / "out.mp4", "--variant", "pose"))
    assert "structhuman" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_second_opinions_are_named_as_in_data_preparation(clip, tmp_path):
    line = command(clip, tmp_path / "out.mp4", "--people", "TorchvisionPeople", "--faces=YuNetFaces", "--seed", "3")
    options = parse_arguments(line[1:])
    assert type(options.opinions.people).__name__ == "TorchvisionPeople"
    assert type(options.opinions.faces).__name__ == "YuNetFaces"
    assert (options.video.seed, options.model.lora, options.window.size) == (3, None, None)


def test_most_steps_are_predicted_unless_told_otherwise(clip, tmp_path):
    line = command(clip, tmp_path / "out.mp4")[1:]
    options = parse_arguments(line)
    assert options.sampling == FAST == AnonymizeOptions(options.video).sampling
    assert parse_arguments([*line, "--sampling.cache.part", "none"]).sampling.cache.part == "none"


def test_the_command_is_listed(capsys):
    main([])
    assert "  anonymize  " in capsys.readouterr().out


def test_what_training_states_of_its_dataset_is_what_anonymize_reads(tiny_model, tiny_dataset, tmp_path):
    data = ShardDataModule(str(tiny_dataset), "structhuman", global_batch_size=1)
    data.setup("validate")
    lora = load_adapter(write_lora(tiny_model, tmp_path / "lora.safetensors", settings=data.describe()))
    assert lora.metadata is not None
    assert lora.metadata.settings == data.describe()
    origin = origin_of("any/model", lora)
    assert origin.stated
    assert origin.bucket == Bucket(5, 32, 48)
    assert origin.settings == {"fps": 7.5, "skeleton_style": "regenhuman", "vace_mask": "ones"}
