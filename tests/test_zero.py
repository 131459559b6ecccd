"""DeepSpeed's ZeRO: what is learned, saved and resumed is what AdamW alone learns; without it, it is asked for."""

import copy
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from processes import run_processes
from torch import nn

from regen_train.model.sharding import put, whole
from regen_train.training import ZeroStrategy
from regen_train.training.zero import load_zero_state, zero_state

NEEDS_DEEPSPEED = pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs the extra deepspeed")


def test_without_deepspeed_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regen_train.training.zero.find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"pip install 'regen_train\[deepspeed\]'; or take --config strategy_fsdp2.yaml"
    ):
        ZeroStrategy()


class Net(nn.Module):
    """A frozen layer in bf16 and two that learn in fp32."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.frozen = nn.Linear(8, 16, dtype=torch.bfloat16).requires_grad_(False)
        self.learning = nn.Sequential(nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.learning(self.frozen(x.bfloat16()).float()).square().mean()


def start() -> tuple[Net, list[nn.Parameter], torch.optim.Optimizer]:
    net = Net()
    parameters = list(net.learning.parameters())
    return net, parameters, torch.optim.AdamW(parameters, lr=1e-2)


def data(step: int) -> torch.Tensor:
    return torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(step))


def learn(engine, steps: range) -> None:
    for step in steps:
        engine.backward(engine(data(step)[torch.distributed.get_rank()]))
        engine.step()


def compare_with_adamw(stage: int) -> None:
    import deepspeed

    rank = str(torch.distributed.get_rank())
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
    deepspeed.init_distributed("gloo", dist_init_required=False)
    config = ZeroStrategy(stage=stage).config | {"train_micro_batch_size_per_gpu": 1, "gradient_clipping": 0.5}

    def engine():
        net, parameters, optimizer = start()
        return deepspeed.initialize(model=net, optimizer=optimizer, config=config, dist_init_required=False)[
            0
        ], parameters

    alone, expected, adamw = start()
    one, learned = engine()
    for step in range(5):
        if step == 3:
            assert zero_state(engine()[0].optimizer, learned)["state"] == {}, "nothing before the first step"
            saved = zero_state(one.optimizer, learned), [whole(parameter).detach().clone() for parameter in learned]
            own = copy.deepcopy(adamw.state_dict())
        learn(one, range(step, step + 1))
        alone(data(step).flatten(0, 1)).backward()
        torch.nn.utils.clip_grad_norm_(expected, 0.5)
        adamw.step()
        adamw.zero_grad()
    state, weights = saved
    assert state["state"].keys() == own["state"].keys()
    assert state["param_groups"][0].keys() == own["param_groups"][0].keys()
    for number, values in own["state"].items():
        assert values.keys() == state["state"][number].keys()
        for name, value in values.items():
            torch.testing.assert_close(state["state"][number][name], value, atol=1e-7, rtol=1e-4)
    resumed, parameters = engine()
    for parameter, value in zip(parameters, weights, strict=True):
        put(value, parameter)
    load_zero_state(resumed.optimizer, parameters, state)
    learn(resumed, range(3, 5))
    for found, want, ours in zip(learned, expected, parameters, strict=True):
        torch.testing.assert_close(whole(found).detach(), want.detach(), atol=1e-6, rtol=1e-5)
        assert torch.equal(whole(found), whole(ours)), "resumed bit for bit"


@NEEDS_DEEPSPEED
@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_learns_saves_and_resumes_as_adamw(stage: int, tmp_path: Path) -> None:
    run_processes(2, compare_with_adamw, tmp_path, stage)
