"""What a run needs and costs, told before and after ten steps of it."""

import re
from pathlib import Path

import pytest
import torch

from regen_train.cli import main
from regen_train.model import LoraSpec, Upkeep, estimate_bytes, load_wan_vace
from regen_train.model.memory import ModelBytes, model_bytes
from regen_train.model.outline import outline_wan_vace
from regen_train.profiling import Needs, needs_of
from regen_train.schema import Bucket
from regen_train.training.flops import training_flops

GIB = 2**30
OPTIONS = {
    "lora": {"lora": LoraSpec(rank=4), "dtype": "bf16"},
    "vace": {"lora": None, "trainable": "vace", "dtype": "bf16"},
    "all": {"lora": None, "trainable": "all", "dtype": "fp32"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_an_outline_is_the_model_without_its_weights(tiny_model: Path, options: dict) -> None:
    model, outline = load_wan_vace(str(tiny_model), **options), outline_wan_vace(str(tiny_model), **options)
    described = [
        {name: (p.shape, p.dtype, p.requires_grad) for name, p in wan.named_parameters()} for wan in (model, outline)
    ]
    assert described[0] == described[1]
    assert all(parameter.is_meta for parameter in outline.parameters())
    assert outline.geometry == model.geometry
    for policy in ("none", "selective", "full"):
        assert estimate_bytes(outline, policy, tokens=100, batch=2) == estimate_bytes(
            model, policy, tokens=100, batch=2
        )


def test_a_single_file_is_outlined_from_its_header(tiny_model: Path) -> None:
    (file,) = (tiny_model / "transformer").glob("*.safetensors")
    shapes = [
        {name: p.shape for name, p in outline_wan_vace(str(source), dtype="fp32").named_parameters()}
        for source in (file, tiny_model)
    ]
    assert shapes[0] == shapes[1]
    with pytest.raises(ValueError, match="holds no VACE blocks"):
        outline_wan_vace(str(next((tiny_model / "vae").glob("*.safetensors"))))


def test_needs_add_up_and_offloading_on_a_cpu_is_none() -> None:
    model = outline_wan_vace("random:tiny", lora=LoraSpec(rank=4))
    needs = needs_of(model, 100, batch_size=2, device_type="cuda")
    assert list(needs.activations) == ["none", "selective", "full", "offload"]
    assert needs.total("full") == estimate_bytes(model, "full", tokens=100, batch=2)
    assert "offload" not in needs_of(model, 100, batch_size=2, device_type="cpu").activations


def test_spread_weights_are_a_part_each_and_a_few_whole() -> None:
    model = outline_wan_vace("random:wan2.1-vace-1.3b", lora=LoraSpec())
    alone, spread = model_bytes(model), model_bytes(model, upkeep=Upkeep(num_shards=8))
    assert alone.gathered == 0
    assert spread.frozen == pytest.approx(alone.frozen / 8)
    assert spread.learning == pytest.approx(alone.learning / 8)
    block = sum(p.numel() * p.element_size() for p in model.transformer.vace_blocks[0].parameters())
    assert 4 * block < spread.gathered < 4 * block + 0.1 * alone.frozen
    whole, part = (needs_of(model, 100, batch_size=1, device_type="cuda", upkeep=Upkeep(num_shards=n)) for n in (1, 8))
    assert part.activations == whole.activations
    assert part.total("full") < 0.5 * whole.total("full")
    assert " whole at a time of those that are spread" in part.describe(free=99, device="cuda:0", policy="full")
    assert "whole at a time" not in whole.describe(free=99, device="cuda:0", policy="full")


def test_the_fastest_policy_that_fits_is_named() -> None:
    stored, activations = ModelBytes(frozen=10, learning=5), {"none": 75, "selective": 30, "full": 20}
    needs = Needs(100, 1, torch.float32, stored, activations)
    assert needs.fitting(100) == ["none", "selective", "full"]
    assert needs.fitting(99) == ["selective", "full"]
    assert needs.fitting(38) == []
    assert "selective is the fastest that fits; what fits: selective, full" in needs.describe(
        free=99, device="cuda:0", policy="full"
    )
    assert needs.describe(free=38, device="cuda:0", policy="full").endswith("full is set; none fits")
    unknown = needs.describe(free=None, device="no GPU here", policy="full")
    assert "in float32, GiB of one process" in unknown
    assert unknown.endswith("  device       no GPU here\n  checkpointing full is set")


def test_how_much_is_lacking_is_told_where_nothing_fits() -> None:
    stored, activations = ModelBytes(frozen=10 * GIB, learning=0), {"none": 80 * GIB, "full": 20 * GIB}
    needs = Needs(100, 1, torch.float32, stored, activations)
    assert needs.shortage(99 * GIB) is None
    assert needs.shortage(30 * GIB) == (
        "by estimate no checkpointing policy fits 27.00 GiB, nine tenths of what is free: full, the least, takes 30.00"
    )


def _profiled(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    """Run the command and return the seconds of each part; the other figures are checked here."""
    main(["profile", *arguments])
    shown = capsys.readouterr().out
    assert shown.index("before the run, by shapes alone") < shown.index("measured over 3 steps")
    assert re.search(r"checkpointing none is set; none is the fastest that fits", shown)
    assert re.search(r"tokens/s +[\d,]+ over all processes", shown)
    assert re.search(r"MFU +[\d.]+% of [\d.]+ TFLOP/s", shown)
    assert re.search(r"peak memory +[\d.]+ GiB", shown)
    rows = re.findall(
        r"^  (data wait|forward|backward|optimizer|other|step) +([\d.]+) s +[\d.]+%$", shown, re.MULTILINE
    )
    return {name: float(seconds) for name, seconds in rows}


@pytest.mark.parametrize("random_clips", [True, False])
def test_the_command_tells_where_the_time_goes(
    quick_arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    random_clips: bool,
) -> None:
    monkeypatch.setattr("regen_train.callbacks.Checkpoints._save", lambda *given: pytest.fail("it wrote a checkpoint"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "temporary").mkdir()
    if random_clips:
        place = quick_arguments.index("--data.path")
        quick_arguments = [*quick_arguments[:place], *quick_arguments[place + 2 :], "--bucket", "5x32x48"]
    seconds = _profiled([*quick_arguments, "--steps", "3"], capsys)
    parts = ["data wait", "forward", "backward", "optimizer", "other"]
    assert list(seconds) == [*parts, "step"]
    assert sum(seconds[part] for part in parts) == pytest.approx(seconds["step"], abs=1e-3)
    assert seconds["backward"] > 0.1 * seconds["forward"] > 0
    assert seconds["optimizer"] > 0
    assert not (tmp_path / "run").exists(), "it left a run behind"
    assert not list((tmp_path / "temporary").glob("regen_train_profile_*"))


def test_what_cannot_be_profiled_is_told(quick_arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="height must be a multiple of 16, got 40; nearest: 32 and 48"):
        main(["profile", *quick_arguments, "--bucket", "5x40x48"])
    with pytest.raises(SystemExit, match="steps must be at least 1, or 0 for the memory alone, got -1"):
        main(["profile", *quick_arguments, "--steps", "-1"])
    with pytest.raises(SystemExit, match=r"free_gib must be more than 0, got 0\.0"):
        main(["profile", *quick_arguments, "--free_gib", "0"])
    with pytest.raises(SystemExit, match="a card that is not here, where no steps can be measured; got steps 3"):
        main(["profile", *quick_arguments, "--free_gib", "80", "--steps", "3"])
    main(["profile", "--help"])
    shown = capsys.readouterr().out
    assert "--bucket 49x480x832" in shown
    assert "--free_gib 80" in shown


def test_a_shipped_configuration_of_two_gpus_is_profiled_on_one_device_without_a_dataset(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--config", "structhuman.yaml", "--model.pretrained", str(tiny_model)]
    given += ["--bucket", "5x32x48", "--trainer.devices", "1", "--trainer.accumulate_grad_batches", "2"]
    main(["profile", *given, "--steps", "2", "--trainer.accelerator", "cpu"])
    shown = capsys.readouterr().out
    assert "measured over 2 steps" in shown
    assert re.search(r"checkpointing \w+ is set", shown)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            ["--config", "strategy_fsdp2.yaml"],
            "the following arguments are required: model.pretrained, data.variant, data.global_batch_size; give a "
            "whole configuration, such as --config structhuman.yaml, to which others may be added",
        ),
        (["--config", "structhuman.yaml", "--modle.dtype", "fp32"], "unrecognized arguments: --modle.dtype fp32"),
        (
            ["--config", "structhuman.yaml", "--modle", "at/outfit.yaml"],
            "unrecognized arguments: --modle at/outfit.yaml",
        ),
    ],
)
def test_a_command_line_that_cannot_be_read_is_told_in_one_line(
    given: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["profile", *given, "--bucket", "5x32x48"])
    assert str(refused.value).splitlines()[0] == f"regen_train profile: {told}"
    assert "usage" not in "".join(capsys.readouterr())


def test_profile_asks_for_a_dataset_or_a_shape(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("model:\n  pretrained: random:tiny\ndata:\n")
    for config in ("structhuman.yaml", str(own)):
        with pytest.raises(SystemExit, match=r"regen_train profile: give --data\.path or --bucket: ") as told:
            main(["profile", f"--config={config}", "--model.pretrained", "random:tiny"])
        assert len(str(told.value).splitlines()) == 2, "the fault, and how to see more"


def test_the_real_models_are_told_without_their_gigabytes() -> None:
    small, large = (outline_wan_vace(name, lora=LoraSpec()) for name in ("random:wan2.1-vace-1.3b", "random:14b"))
    assert small.num_parameters().total == 2_153_972_032 + small.num_parameters().trainable
    assert large.num_parameters().total > 17e9
    tokens = small.geometry.num_tokens(Bucket(49, 480, 832), reference=True)
    assert tokens == 21_840
    assert training_flops(small, tokens) == pytest.approx(564e12, rel=0.002)  # counted once by PyTorch on shapes alone
