"""DeepSpeed's ZeRO on CPUs, in whole runs: what is learned, saved and resumed is what one process alone learns."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from processes import run_processes
from test_strategies import fit, hold_equal, state_of

from regen_train.checkpoint_io import read_checkpoint
from regen_train.model import load_wan_vace
from regen_train.model.sharding import own_part
from regen_train.training import ZeroStrategy

NEEDS_DEEPSPEED = pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs the extra deepspeed")
STEPS = 2
COMMON = ["--checkpoint.every_n_steps", "1", "--model.checkpointing", "full"]
# a sample with and one without reference frame in a batch make two forward passes of a process
TWO_BY_TWO = ["--trainer.devices", "2", "--data.per_device_batch_size", "2"]


def test_without_deepspeed_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regen_train.training.zero.find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"pip install -c constraints.txt '\.\[deepspeed\]'; or take --config strategy_fsdp2.yaml"
    ):
        ZeroStrategy()


class ZeroOnCpu(ZeroStrategy):
    """ZeRO without the GPUs that Lightning asks for, over processes that have joined already."""

    def __init__(self, stage: int) -> None:
        super().__init__(stage)
        self.config["zero_optimization"]["stage3_param_persistence_threshold"] = 1000  # else a tiny model stays whole

    @property
    def root_device(self) -> torch.device:
        return torch.device("cpu", 0)  # DeepSpeed asks for a number

    def join(self) -> None:
        import deepspeed

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # would be compiled here and now
        self.set_world_ranks()
        deepspeed.init_distributed("gloo", dist_init_required=False)


def fit_with_zero(stage: int, arguments: list[str], folder: Path) -> None:
    """Train in one go; go on with its first step; go on with the first step of one process alone."""
    rank = str(torch.distributed.get_rank())
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": "0", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"}
    os.environ |= {"DS_ACCELERATOR": "cpu", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    options = [*TWO_BY_TWO, "--trainer.strategy", "test_zero.ZeroOnCpu"]
    options += ["--trainer.strategy.init_args.stage", str(stage), "--ema.decay", "0" if stage == 3 else "0.9"]
    for name, start, clip in (
        ("through", "last", 0),
        ("resumed", folder / "through/step-000001.ckpt", 0),
        ("taken over", folder.parent / "alone/step-000001.ckpt", 0.01),
    ):
        print(name, flush=True)  # of the one that fails
        begun = [*options, "--ckpt_path", str(start)]
        wan = fit(arguments, folder / name, *begun, accumulate=1, steps=STEPS, clip=clip).model.wan
        count = wan.num_parameters()
        parts = torch.tensor(sum(own_part(value).numel() for value in wan.trained_parameters().values()))
        torch.distributed.all_reduce(parts)  # waits for the checkpoint, too
        assert parts == count.trainable * (1 if stage == 3 else 2), "all is looked at for NaN, once"
        assert count == load_wan_vace("random:tiny", lora=wan.lora).num_parameters()


@pytest.fixture(scope="module")
def arguments(tiny_model: Path, tiny_dataset: Path) -> list[str]:
    given = ["--config", str(Path(__file__).parent / "tiny.yaml"), *COMMON]
    return [*given, "--model.pretrained", str(tiny_model), "--data.path", str(tiny_dataset)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, arguments: list[str]) -> Path:
    """Folder of a run of one process, and of one that goes on with its first step and clips."""
    folder = tmp_path_factory.mktemp("zero")
    fit(arguments, folder / "alone", accumulate=4, steps=STEPS, clip=0)
    begun = ["--ckpt_path", str(folder / "alone/step-000001.ckpt")]
    fit(arguments, folder / "clipped", *begun, accumulate=4, steps=STEPS, clip=0.01)
    return folder


@NEEDS_DEEPSPEED
@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("stage", [2, 3])
def test_learns_saves_and_resumes_as_one_process(
    stage: int, alone: Path, arguments: list[str], tiny_model: Path
) -> None:
    folder = alone / f"zero{stage}"
    run_processes(2, fit_with_zero, folder.parent, stage, arguments, folder)
    begun = ["--ckpt_path", str(folder / "through/step-000001.ckpt")]
    fit(arguments, folder / "given back", *begun, accumulate=4, steps=STEPS, clip=0)

    through = state_of(folder / "through")
    assert any(name.startswith("average") for name in through) == (stage == 2)
    for name, expected in (("through", "alone"), ("taken over", "clipped"), ("given back", "alone")):
        found, want = state_of(folder / name), state_of(alone / expected)
        if stage == 3:  # keeps no average, so one that goes on has none of the first step
            found, want = ({n: v for n, v in state.items() if not n.startswith("average")} for state in (found, want))
        hold_equal(found, want)
    for name, value in state_of(folder / "resumed").items():
        assert torch.equal(value, through[name]), f"{name} does not go on bit for bit"

    for name in ("through", "resumed", "taken over"):
        stated = read_checkpoint(folder / name / "last.ckpt")["regen_train"]
        assert stated["base_sha256"] == load_wan_vace(str(tiny_model), dtype="fp32").base.sha256
        assert list((folder / name / "previews").glob("*.mp4")), "previews need all processes that share the model"
        assert (folder / name / f"adapter-step-{STEPS:06d}.safetensors").is_file()
