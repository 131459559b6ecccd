"""Draws are keyed: by seed, sample and purpose, and by nothing else."""

import torch

from regen_train import draws


def test_a_draw_is_pinned_for_ever() -> None:
    """A change of these values would break the resume of every run that is under way."""
    assert draws.uniform(0, 7, "sigma") == draws.uniform(0, 7, "sigma")
    assert draws.generator_for(0, 7, "noise").initial_seed() == 1070985493593713763
    assert draws.permutation(8, 0, 0, "order").tolist() == [7, 3, 0, 2, 1, 4, 6, 5]


def test_seed_sample_and_purpose_all_count() -> None:
    keys = [(0, 1, "a"), (1, 1, "a"), (0, 2, "a"), (0, 1, "b"), (0, "1", "a")]
    assert len({draws.generator_for(*key).initial_seed() for key in keys}) == len(keys)


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = draws.uniform(0, 1, "x")
    torch.manual_seed(4)
    assert draws.uniform(0, 1, "x") == first
    torch.manual_seed(3)
    assert torch.equal(before, torch.get_rng_state())


def test_uniform_covers_the_unit_interval() -> None:
    values = torch.tensor([draws.uniform(0, number, "u") for number in range(2000)])
    assert float(values.min()) >= 0
    assert float(values.max()) < 1
    assert abs(float(values.mean()) - 0.5) < 0.02
