"""What a batch holds, and how batches are prepared ahead."""

import gc
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from toy_dataset import GEOMETRY, SMALL, make_constants, make_sample

from regen_train.data import Choice, HeldOutLoader, Loading, StreamLoader, Variants, collate
from regen_train.encoders import pack_context
from regen_train.schema import Batch


@pytest.mark.parametrize("masked", [False, True])
def test_a_batch_holds_what_the_model_reads(masked: bool) -> None:
    samples = [make_sample(number, masked=masked, prompt_tokens=3 + number) for number in range(3)]
    names = ("structhuman", "structall", "structhuman")
    choices = [Choice(10 + i, name, use_reference=i != 1, drop_prompt=i == 2) for i, name in enumerate(names)]
    constants = make_constants()
    batch = collate(samples, choices, constants, GEOMETRY)
    assert batch.keys == tuple(sample.key for sample in samples)
    assert (batch.numbers, batch.variants, batch.bucket) == ((10, 11, 12), names, SMALL)
    assert batch.use_reference.tolist() == [True, False, True]
    assert batch.weight.tolist() == [1, 1, 1]
    assert batch.latents.dtype == batch.vace_context.dtype == batch.prompt_embeds.dtype == torch.float16
    for i, (sample, name) in enumerate(zip(samples, names, strict=True)):
        condition = sample.conditions[name]
        inactive = constants.inactive[SMALL].half() if condition.inactive is None else condition.inactive
        mask = torch.ones(64, 3, 4, 6).bool() if condition.mask is None else condition.mask
        expected = pack_context(condition.reactive[None], inactive[None], mask[None])
        assert torch.equal(batch.vace_context[i : i + 1], expected)
        first = condition.reactive[:, :1] if condition.reference is None else condition.reference
        assert torch.equal(batch.reference[i], first)
        assert torch.equal(batch.latents[i], sample.latents)
        assert torch.equal(batch.human_coverage[i], sample.human_coverage / 255)
    assert batch.prompt_embeds.shape == (3, 512, 8)
    assert torch.equal(batch.prompt_embeds[1, :4], samples[1].prompt_embeds)
    assert not batch.prompt_embeds[1, 4:].any()
    assert torch.equal(batch.prompt_embeds[2, :1].float(), constants.empty_prompt)
    assert not batch.prompt_embeds[2, 1:].any()


def test_a_mix_is_drawn_by_its_shares() -> None:
    mix = Variants.parse({"structhuman": 1.0, "structall": 3.0, "depth": 0.0})
    assert mix.shares == {"structall": 0.75, "structhuman": 0.25}
    assert str(mix) == "0.75 structall + 0.25 structhuman"
    drawn = Counter(mix.draw(0, number) for number in range(2000))
    assert 1400 < drawn["structall"] < 1600
    assert drawn.total() == 2000
    assert [mix.draw(0, n) for n in range(20)] == [mix.draw(0, n) for n in range(20)]
    assert str(Variants.parse("structall")) == Variants.parse("structall").draw(0, 3) == "structall"


@pytest.mark.parametrize("variant", [{}, {"a": 0.0}, {"a": -1.0, "b": 2.0}, {"a": float("nan")}])
def test_a_mix_without_shares_is_refused(variant: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="variant must be"):
        Variants.parse(variant)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_batch_for_a_gpu_lies_in_page_locked_memory() -> None:
    choices = [Choice(0, "structhuman", use_reference=True)]
    batch = collate([make_sample(0)], choices, make_constants(), GEOMETRY, pin=True)
    tensors = [value for value in vars(batch).values() if isinstance(value, torch.Tensor)]
    assert all(tensor.is_pinned() for tensor in tensors)


def make_batch(number: int) -> Batch:
    return collate(
        [make_sample(number)], [Choice(number, "structhuman", use_reference=True)], make_constants(), GEOMETRY
    )


def num_threads() -> int:
    return sum(thread.name.startswith("regen_train-data") for thread in threading.enumerate())


def wait_for_no_threads() -> None:
    deadline = time.monotonic() + 10
    while num_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not num_threads()


def test_batches_come_in_order_though_later_ones_are_done_first() -> None:
    def load(number: int) -> Batch:
        time.sleep(0.03 if number % 3 == 0 else 0)
        return make_batch(number)

    loader = StreamLoader(load, lambda: 5, Loading(prefetch=4, num_threads=3))
    iterator = iter(loader)
    assert [next(iterator).numbers for _ in range(9)] == [(5 + i,) for i in range(9)]
    assert loader.wait_seconds > 0.01
    del iterator
    gc.collect()
    wait_for_no_threads()


def test_an_error_is_raised_where_its_batch_would_have_come() -> None:
    def load(number: int) -> Batch:
        if number == 3:
            raise ValueError("sample 3 is damaged")
        return make_batch(number)

    iterator = iter(StreamLoader(load, lambda: 0, Loading(prefetch=8)))
    time.sleep(0.05)
    assert [next(iterator).numbers for _ in range(3)] == [(0,), (1,), (2,)]
    with pytest.raises(ValueError, match="sample 3 is damaged"):
        next(iterator)
    wait_for_no_threads()


def test_no_more_is_prepared_than_asked() -> None:
    asked: list[int] = []

    def load(number: int) -> Batch:
        asked.append(number)
        return make_batch(number)

    iterator: Iterator[Batch] = iter(StreamLoader(load, lambda: 0, Loading(prefetch=2, num_threads=2)))
    assert not asked  # Lightning makes iterators it never uses
    next(iterator)
    time.sleep(0.05)
    assert sorted(asked) == [0, 1]


def test_a_held_out_loader_ends_and_begins_again() -> None:
    loader = HeldOutLoader(make_batch, 3, Loading())
    for _ in range(2):
        assert [batch.numbers for batch in loader] == [(0,), (1,), (2,)]
    assert len(loader) == 3
    assert list(HeldOutLoader(make_batch, 0, Loading())) == []
    wait_for_no_threads()


def test_what_was_not_begun_is_dropped_with_the_iterator() -> None:
    begun: list[int] = []

    def load(number: int) -> Batch:
        begun.append(number)
        time.sleep(0.05)
        return make_batch(number)

    iterator = iter(StreamLoader(load, lambda: 0, Loading(prefetch=40, num_threads=1)))
    next(iterator)
    del iterator
    gc.collect()
    wait_for_no_threads()
    assert len(begun) < 10
