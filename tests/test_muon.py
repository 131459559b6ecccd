"""Muon: what it does to a matrix, that AdamW's part is AdamW, and that it goes on from its state bit for bit."""

import copy

import pytest
import torch
from torch import nn

from regen_train.training import OptimizerSpec
from regen_train.training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
def test_singular_values_become_about_one_and_vectors_stay(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    made = orthogonal(matrix)
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.3
    assert values.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    turned = left.T @ made @ right.T
    torch.testing.assert_close(turned, torch.diag(turned.diagonal()), atol=1e-4, rtol=0)


def test_all_but_matrices_move_as_under_adamw() -> None:
    ours, theirs = (nn.Parameter(torch.linspace(-1, 1, 7)) for _ in range(2))
    muon = Muon([], [ours], other_lr=0.1, weight_decay=0.01)
    adamw = torch.optim.AdamW([theirs], lr=0.1, betas=(0.9, 0.98), weight_decay=0.01)
    for step in range(5):
        for weight, optimizer in ((ours, muon), (theirs, adamw)):
            optimizer.zero_grad()
            ((weight - step) ** 3).sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_it_goes_on_from_its_state_bit_for_bit() -> None:
    network = nn.Linear(5, 4)
    inputs = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    optimizer = Muon([network.weight], [network.bias])
    _step(network, optimizer, inputs)
    later = copy.deepcopy(network)
    resumed = Muon([later.weight], [later.bias])
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for model, used in ((network, optimizer), (later, resumed)):
        _step(model, used, inputs)
        _step(model, used, inputs)
    assert torch.equal(network.weight, later.weight)
    assert torch.equal(network.bias, later.bias)


def test_matrices_of_blocks_are_told_from_the_rest() -> None:
    hidden = ("blocks.0.ffn.net.2.weight", "vace_blocks.0.proj_in.weight")
    names = (*hidden, "blocks.0.scale_shift_table", "proj_out.weight")
    parameters = {name: nn.Parameter(torch.zeros(2, 2)) for name in names}
    built = OptimizerSpec(name="muon", lr=1e-3, muon_lr=0.02).build(parameters)
    assert [len(group["params"]) for group in built.param_groups] == [2, 2]
    assert [group["lr"] for group in built.param_groups] == [0.02, 1e-3]


def _step(network: nn.Linear, optimizer: torch.optim.Optimizer, inputs: torch.Tensor) -> None:
    optimizer.zero_grad()
    network(inputs).square().sum().backward()
    optimizer.step()
