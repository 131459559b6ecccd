"""What `regen_train profile` says of memory before anything is loaded, or in its place."""

import re
from pathlib import Path

import pytest

from regen_train.cli import main
from regen_train.profiling.room import number_of


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever loads the model or begins to train fails."""
    begins = [f"regen_train.{name}" for name in ("training.module.load_wan_vace", "profile_cli.write_random_dataset")]
    begins.append("lightning.pytorch.strategies.launchers.subprocess_script._SubprocessScriptLauncher.launch")
    for name in begins:
        monkeypatch.setattr(name, lambda *given, **options: pytest.fail("it went on"))


LARGE = ("--config", "structhuman_14b.yaml", "--model.pretrained", "random:14b", "--bucket", "49x480x832")


@pytest.mark.usefixtures("no_weights")
def test_a_large_configuration_is_estimated_where_there_is_no_gpu(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    main(["profile", *LARGE, "--steps", "0"])
    shown = capsys.readouterr().out
    assert "by shapes alone, in bfloat16, GiB of one process" in shown
    assert "no GPU here; --free_gib 80" in shown
    assert shown.endswith("checkpointing auto is set\n")
    main(["profile", *LARGE, "--free_gib", "80"])
    shown = capsys.readouterr().out
    assert re.search(r"together +none 26\d\.\d\d  selective 7\d\.\d\d  full 5\d\.\d\d  offload 4\d\.\d\d", shown)
    assert "a card that is not here, 80.00 free" in shown
    assert "full is the fastest that fits; what fits: full, offload" in shown


@pytest.mark.usefixtures("no_weights")
def test_the_estimate_is_the_same_for_eight_processes_that_share_weights(capsys: pytest.CaptureFixture[str]) -> None:
    main(["profile", *LARGE, "--config", "strategy_fsdp2.yaml", "--free_gib", "80"])
    shown = capsys.readouterr().out
    assert re.search(r"weights +4\.0\d frozen, and [\d.]+ whole at a time", shown), "an eighth each"


@pytest.mark.usefixtures("no_weights")
def test_a_dataset_is_estimated_without_a_step(
    quick_arguments: list[str], tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["profile", *quick_arguments, "--steps", "0"])
    shown = capsys.readouterr().out
    assert "in float32" in shown
    assert "  device       cpu, " in shown
    assert "what fits: none, selective, full\n" in shown, "a CPU has nowhere to offload to"
    main(["profile", *quick_arguments, "--free_gib", "1"])
    assert "what fits: none, selective, full, offload\n" in capsys.readouterr().out


@pytest.mark.usefixtures("no_weights")
def test_what_does_not_fit_is_refused_before_anything_is_loaded(
    tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=r"no checkpointing policy fits 43\.20 GiB") as told:
        main(["profile", *LARGE, "--free_gib", "48", "--model.checkpointing", "none"])
    assert "what fits, in GiB: full with --model.checkpointing full --model.blocks.swap" in str(told.value)
    assert "; full with --model.checkpointing full --config strategy_fsdp2.yaml on 8 GPUs: " in str(told.value)
    assert "; smaller buckets\n" in str(told.value)
    assert "none is set; none fits" in capsys.readouterr().out
    monkeypatch.setattr("regen_train.profiling.room.free_bytes", lambda device, *, processes: 2**20)
    given = ["--config", "structhuman.yaml", "--model.pretrained", str(tiny_model), "--bucket", "5x32x48"]
    given += ["--trainer.devices", "1", "--trainer.accelerator", "cpu"]
    with pytest.raises(SystemExit, match=r"no checkpointing policy fits 0\.00 GiB"):
        main(["profile", *given, "--steps", "2"])
    for tried in (("--model.checkpointing", "offload"), ("--model.blocks.compile", "true")):
        with pytest.raises(pytest.fail.Exception, match="it went on"):
            main(["profile", *given, "--trainer.accumulate_grad_batches", "2", "--steps", "2", *tried])
        assert "tried all the same, as it is set: by estimate no check" in capsys.readouterr().out


@pytest.mark.usefixtures("no_weights")
def test_a_policy_that_is_set_is_tried_while_others_would_fit(
    quick_arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(pytest.fail.Exception, match="it went on"):  # a CPU keeps for offload what it keeps for full
        main(["profile", *quick_arguments, "--steps", "2", "--model.checkpointing", "offload"])
    assert "offload is set; none is the fastest that fits" in capsys.readouterr().out


def test_devices_are_counted_as_the_trainer_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    asked = (8, "8", [0, 2], "0,2", "3,")
    assert [number_of(devices, accelerator="gpu") for devices in asked] == [8, 8, 2, 2, 1]
    assert [number_of(devices, accelerator="auto") for devices in ("auto", -1, "-1", "")] == [4, 4, 4, 4]
    assert number_of("auto", accelerator="cpu") == 1
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert number_of("auto", accelerator="gpu") == 1
