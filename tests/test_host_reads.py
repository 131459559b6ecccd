"""A training step gives the device its work without once reading from it: a GPU is never waited for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from regen_train.callbacks import LoraEma, Meter, SigmaLosses, StepProgress
from regen_train.callbacks import progress as progress_module
from regen_train.data import ShardDataModule
from regen_train.model import LoraSpec
from regen_train.schema import Batch
from regen_train.training import VaceModule

READS = (
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.is_nonzero.default,
)


class Device(TorchDispatchMode):
    """Refuses to read what lies on the device, which here are given tensors and all that is computed from them."""

    def __init__(self, tensors: list[Tensor]) -> None:
        super().__init__()
        self.held = {id(tensor): tensor for tensor in tensors}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inside = any(id(leaf) in self.held for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        assert not (inside and func in READS), f"{func} reads from the device"
        out = func(*args, **(kwargs or {}))
        if inside:
            self.held |= {id(leaf): leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)}
        return out


@pytest.fixture
def batch(tiny_dataset: Path) -> Batch:
    data = ShardDataModule(str(tiny_dataset), "structhuman", global_batch_size=3)
    data.setup("validate")
    rows = data.data.reader.dataset.rows
    same = [i for i, row in enumerate(rows) if row.bucket == rows[1].bucket][:3]
    return data._collate(data.data.reader, same, [data.conditioning.fixed(i, rows[i].key, weight=1.0) for i in same])


@pytest.fixture
def module(tiny_model: Path) -> VaceModule:
    # in fp32, prompts beside so short a video would be measured, to leave out their padding
    module = VaceModule(str(tiny_model), dtype="bf16", lora=LoraSpec(rank=4), checkpointing="none")
    callbacks = [LoraEma(0.9), Meter(), SigmaLosses(), StepProgress()]
    quiet = {"logger": False, "enable_checkpointing": False, "log_every_n_steps": 10}
    module.trainer = L.Trainer(accelerator="cpu", max_steps=100, callbacks=callbacks, **quiet)
    module.configure_model()
    return module


def device_of(module: VaceModule, batch: Batch) -> Device:
    flags = id(batch.use_reference)
    tensors = [value for value in vars(batch).values() if isinstance(value, Tensor) and id(value) != flags]
    return Device([*tensors, *module.parameters(), *module.buffers()])


@pytest.fixture
def at_step(module: VaceModule, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be in the third step of a run, where nothing is shown; a terminal's bar is there."""
    monkeypatch.setattr(progress_module.sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(Meter, "_restart", lambda meter, trainer: None)
    for callback in module.trainer.callbacks:
        callback.on_train_start(module.trainer, module)
    monkeypatch.setattr(L.Trainer, "global_step", 3)
    yield
    for callback in module.trainer.callbacks:
        callback.on_train_end(module.trainer, module)


@pytest.mark.parametrize("uses", [(True, True, True), (True, False, True)], ids=["alike", "mixed"])
@pytest.mark.usefixtures("at_step")
def test_a_step_reads_nothing_from_the_device(module: VaceModule, batch: Batch, uses: tuple[bool, ...]) -> None:
    batch = Batch(**{**vars(batch), "use_reference": torch.tensor(uses)})
    module.trainer.callback_metrics["val/loss"] = metric = torch.ones(())
    with device_of(module, batch) as device:
        device.held[id(metric)] = metric
        outputs = module.training_step(batch, 2)
        outputs["loss"].backward()
        for callback in module.trainer.callbacks:
            if not isinstance(callback, LoraEma):  # whose weights have not moved
                callback.on_train_batch_end(module.trainer, module, outputs, batch, 2)
        with pytest.raises(AssertionError, match="reads from the device"):
            float(outputs["loss"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_sees_no_wait_in_a_step(module: VaceModule, batch: Batch) -> None:
    module.to("cuda")
    batch = Batch(**{**vars(batch), "use_reference": torch.tensor([True, False, True])})
    batch = batch.pin_memory().to(module.device, non_blocking=True)
    module.training_step(batch, 0)["loss"].backward()  # kernels are loaded at their first use
    torch.cuda.set_sync_debug_mode("error")
    try:
        module.training_step(batch, 1)["loss"].backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_what_decides_what_is_computed_stays_with_the_host(batch: Batch) -> None:
    moved = batch.to(torch.device("meta"))
    assert moved.use_reference is batch.use_reference
    assert {value.device.type for name, value in vars(moved).items() if isinstance(value, Tensor)} == {"meta", "cpu"}
    assert moved.latents.is_meta
    assert moved.select([0]).use_reference.tolist() == [True]
    with torch.autocast("cpu", dtype=torch.bfloat16):  # as in a step; latents are stored in fp16
        picked = batch.select([2, 0])
    for name, value in vars(batch).items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(vars(picked)[name], value[[2, 0]], rtol=0, atol=0)
