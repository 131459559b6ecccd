from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regen_train.data import Place, Stream
from regen_train.schema import Bucket

BUCKETS = (Bucket(5, 32, 32), Bucket(9, 32, 32), Bucket(9, 32, 64))


def make_stream(counts: list[int], size: int, seed: int = 0) -> Stream:
    samples, first = {}, 100
    for bucket, count in zip(BUCKETS, counts, strict=False):
        samples[bucket] = list(range(first, first + count))
        first += count
    return Stream(samples, global_batch_size=size, seed=seed)


streams = st.tuples(
    st.lists(st.integers(0, 30), min_size=1, max_size=3), st.integers(1, 9), st.integers(0, 1000)
).filter(lambda drawn: max(drawn[0]) >= drawn[1])


@settings(max_examples=50, deadline=None)
@given(drawn=streams, epoch=st.integers(0, 5))
def test_an_epoch_repeats_no_sample_and_each_batch_has_one_bucket(
    drawn: tuple[list[int], int, int], epoch: int
) -> None:
    counts, size, seed = drawn
    stream = make_stream(counts, size, seed)
    first = epoch * stream.batches_per_epoch
    batches = [stream.global_batch(first + number) for number in range(stream.batches_per_epoch)]
    seen = [sample for batch in batches for sample in batch.samples]
    assert len(seen) == len(set(seen)) == stream.samples_per_epoch
    assert stream.samples_per_epoch + stream.samples_left_out == sum(counts)
    for batch in batches:
        assert len(batch.samples) == size
        assert set(batch.samples) <= set(stream.samples[batch.bucket].tolist())
    assert Counter(batch.bucket for batch in batches) == {
        bucket: len(samples) // size for bucket, samples in stream.samples.items() if len(samples) >= size
    }


@settings(max_examples=50, deadline=None)
@given(drawn=streams, start=st.integers(0, 50))
def test_numbers_count_on_and_the_order_can_be_entered_anywhere(drawn: tuple[list[int], int, int], start: int) -> None:
    counts, size, seed = drawn
    whole, late = make_stream(counts, size, seed), make_stream(counts, size, seed)
    for number in range(start + 1):
        batch = whole.global_batch(number)
        assert batch.numbers() == range(number * size, (number + 1) * size)
    assert late.global_batch(start) == batch


@settings(max_examples=100, deadline=None)
@given(
    world_size=st.integers(1, 8), per_device=st.integers(1, 4), accumulate=st.integers(1, 4), number=st.integers(0, 20)
)
def test_processes_share_a_global_batch_and_its_order(
    world_size: int, per_device: int, accumulate: int, number: int
) -> None:
    size = world_size * per_device * accumulate
    batch = make_stream([size + 3], size).global_batch(number)
    places = [Place(rank, world_size, per_device) for rank in range(world_size)]
    places[0].check_factors(size, accumulate)
    taken = [list(place.offsets(microbatch)) for microbatch in range(accumulate) for place in places]
    assert [offset for offsets in taken for offset in offsets] == list(range(size))
    assert {len(offsets) for offsets in taken} == {per_device}
    # What one process with accumulation sees, microbatch by microbatch, is the same order.
    alone = Place(0, 1, per_device)
    assert [list(alone.offsets(part)) for part in range(world_size * accumulate)] == taken
    assert len(batch.samples) == size


def test_other_epochs_and_seeds_order_and_leave_out_differently() -> None:
    stream = make_stream([20, 7], 4)
    epochs = [
        [stream.global_batch(epoch * stream.batches_per_epoch + k).samples for k in range(stream.batches_per_epoch)]
        for epoch in range(8)
    ]
    assert len({str(epoch) for epoch in epochs}) == 8
    left_out = {frozenset(range(100, 127)) - {s for batch in epoch for s in batch} for epoch in epochs}
    assert len(left_out) > 1
    assert stream.samples_left_out == 3
    assert make_stream([20, 7], 4, seed=1).global_batch(0) != stream.global_batch(0)


def test_batches_of_all_buckets_are_mixed() -> None:
    stream = make_stream([40, 40], 4)
    order = [stream.global_batch(number).bucket for number in range(stream.batches_per_epoch)]
    assert order != sorted(order)
    assert order != sorted(order, reverse=True)


def test_the_order_of_a_seed_is_fixed_for_all_time() -> None:
    """Changing it would break the resume of runs that were started before."""
    stream = make_stream([5, 3], 2, seed=7)
    found = [stream.global_batch(number).samples for number in range(4)]
    assert found == [(102, 101), (100, 104), (106, 107), (101, 102)]


def test_a_bucket_smaller_than_a_batch_is_told() -> None:
    assert make_stream([8, 3], 4).untrained_buckets == (BUCKETS[1],)


def test_fewer_samples_than_the_global_batch_are_refused() -> None:
    message = r"global_batch_size is 8, but no bucket.*\(5x32x32: 3, 9x32x32: 7\); set it to at most 7"
    with pytest.raises(ValueError, match=message):
        make_stream([3, 7], 8)
    with pytest.raises(ValueError, match=r"\(none\)"):
        make_stream([], 8)


@pytest.mark.parametrize(
    ("size", "place", "accumulate", "message"),
    [
        (
            8,
            Place(0, 2, 1),
            1,
            "8, but 2 processes x per_device_batch_size 1 x accumulate_grad_batches 1 = 2; "
            "set --trainer.accumulate_grad_batches 4",
        ),
        (8, Place(0, 2, 3), 1, "set --data.per_device_batch_size to 1 or 2 or 4, and accumulate to match"),
        (8, Place(0, 3, 1), 2, "no accumulate_grad_batches fits: use 1 or 2 or 4 or 8 processes"),
        (2, Place(0, 2, 2), 1, "set --data.per_device_batch_size to 1, and"),
    ],
)
def test_a_global_batch_that_does_not_factor_says_what_would(
    size: int, place: Place, accumulate: int, message: str
) -> None:
    with pytest.raises(ValueError, match="global_batch_size is") as caught:
        place.check_factors(size, accumulate)
    assert message in str(caught.value)


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(0, 12), min_size=3, max_size=3),
    world_size=st.integers(1, 5),
    per_device=st.integers(1, 4),
)
def test_every_held_out_sample_counts_once_on_every_number_of_processes(
    counts: list[int], world_size: int, per_device: int
) -> None:
    buckets = [bucket for bucket, count in zip(BUCKETS, counts, strict=True) for _ in range(count)]
    ranks = [Place(rank, world_size, per_device).held_out_steps(buckets) for rank in range(world_size)]
    assert len({len(steps) for steps in ranks}) == 1
    counted: Counter[int] = Counter()
    for step in zip(*ranks, strict=True):
        assert len({buckets[number] for numbers, _ in step for number in numbers}) == 1
        for numbers, weights in step:
            assert len(numbers) == len(weights) == per_device
            counted.update(number for number, weight in zip(numbers, weights, strict=True) if weight == 1)
            assert set(weights) <= {0.0, 1.0}
    assert counted == Counter(range(len(buckets)))
