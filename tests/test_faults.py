"""Machines that do not fit the configuration: told in a line that says what to do, at exit status 1."""

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from regen_train.cli import main
from regen_train.training import VaceModule

COMPILED = ["--model.blocks.compile", "true"]


def fault(arguments: list[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    told = str(caught.value.code)  # text, which Python prints and exits with 1
    assert told.startswith("regen_train fit: ")
    assert told.endswith("\n(REGEN_TRAIN_DEBUG=1 shows the traceback)")
    assert told.count("\n") == 1
    return told


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_machine_without_a_gpu_is_told_how_to_do_without() -> None:
    told = fault(["fit", "--config", "structhuman.yaml", "--data.path", "nowhere"])
    assert "No supported gpu backend found! trainer.accelerator is gpu, trainer.devices 2" in told
    assert "has no GPUs that PyTorch can use: take --trainer.accelerator cpu, " in told


def test_a_wrong_number_of_devices_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["fit", "--config", "quickstart.yaml", "--trainer.devices", "0"]
    told = fault(arguments)
    assert "`Trainer(devices='0')` value is not a valid input using cpu accelerator. trainer.accelerator is cpu" in told
    assert "--trainer.devices 1 or more" in told
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert "this machine has 4 GPUs that PyTorch can use" in (told := fault(arguments))
    assert "--trainer.devices up to 4" in told


def test_what_a_strategy_finds_wrong_when_it_starts_is_told(
    quick_arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(faulty: str) -> None:
        raise MisconfigurationException(faulty)

    as_deepspeed = "DeepSpeed strategy is only supported on GPU but `CPUAccelerator` is used."
    monkeypatch.setattr(VaceModule, "configure_model", lambda module: refuse(as_deepspeed))
    told = fault(["fit", *quick_arguments])
    assert f"{as_deepspeed} trainer.accelerator is cpu, trainer.devices 1" in told
    assert "or --trainer.strategy auto" in told
    monkeypatch.setattr(VaceModule, "configure_model", lambda module: refuse("No `training_step()`\n  method defined."))
    assert "regen_train fit: No `training_step()` method defined.\n" in fault(["fit", *quick_arguments])


@pytest.mark.parametrize(
    ("options", "told", "left_out"),
    [
        (
            ["--model.checkpointing", "selective"],
            "less: --model.checkpointing full or offload, --model.blocks.quantize int8, --model.blocks.swap 4, "
            "--config strategy_fsdp2.yaml on several GPUs, --config strategy_context_parallel.yaml on several GPUs, or",
            "batch_size",
        ),
        (["--model.checkpointing", "offload"], "less: --model.blocks.quantize int8", "--model.checkpointing"),
        (["--model.trainable", "all", "--model.lora", "null"], "--config strategy_fsdp2.yaml on several", "blocks"),
        (["--config", "strategy_fsdp2.yaml"], "offload, --config strategy_context_parallel.yaml", "blocks, fsdp2"),
        (["--config", "strategy_fsdp2.yaml", *COMPILED, "--model.checkpointing", "offload"], "less: smaller b", "--"),
        (["--model.optimizer.name", "muon"], "swap 4, --config strategy_context_parallel.yaml", "fsdp2"),
        (
            ["--model.blocks.swap", "4", "--model.blocks.quantize", "int8", *COMPILED],
            "less: --model.checkpointing full or offload, or smaller b",
            "selective, blocks, strategy",
        ),
        (
            ["--data.per_device_batch_size", "2", "--trainer.accumulate_grad_batches", "1"],
            "or smaller buckets or a smaller data.per_device_batch_size than 2;",
            "1 x",
        ),
    ],
    ids=["selective", "offload", "all", "fsdp2", "fsdp2 to its end", "muon", "blocks", "batch"],
)
def test_a_full_gpu_is_told_what_takes_less(
    quick_arguments: list[str], monkeypatch: pytest.MonkeyPatch, options: list[str], told: str, left_out: str
) -> None:
    def fill(module: VaceModule, batch: object, batch_idx: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to\nallocate 2.00 GiB.")

    monkeypatch.setattr(VaceModule, "training_step", fill)
    shown = fault(["fit", *quick_arguments, *options, "--trainer.max_steps", "1"])
    assert "18 tokens a pass (bucket 5x32x48)" in shown
    assert shown.split("\n")[0].endswith("PyTorch says: CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert told in shown
    assert not any(one in shown for one in left_out.split(", "))
