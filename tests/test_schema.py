"""Buckets, geometry and batches."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regen_train.schema import Batch, Bucket, ConditionLatents, Geometry

WAN = Geometry(latent_channels=16, spatial_factor=8, temporal_factor=4, patch_size=(1, 2, 2), text_dim=4096)


@given(st.integers(1, 999), st.integers(1, 9999), st.integers(1, 9999))
def test_a_bucket_reads_back_what_it_writes(frames: int, height: int, width: int) -> None:
    bucket = Bucket(frames, height, width)
    assert Bucket.parse(str(bucket)) == bucket


@pytest.mark.parametrize("text", ["49x480", "49x480x832x3", "49x480x-8", "axbxc", "0x16x16"])
def test_other_text_is_no_bucket(text: str) -> None:
    with pytest.raises(ValueError, match="FRAMESxHEIGHTxWIDTH"):
        Bucket.parse(text)


def test_the_papers_clip_has_21840_tokens() -> None:
    bucket = Bucket(49, 480, 832)
    assert WAN.context_channels == 96
    assert WAN.latent_shape(bucket) == (16, 13, 60, 104)
    assert WAN.num_tokens(bucket, reference=True) == 21_840
    assert WAN.num_tokens(Bucket(81, 480, 832), reference=False) == 32_760


def test_all_faults_of_a_size_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"num_frames must be 4n\+1, got 80; nearest are 77 and 81") as caught:
        WAN.latent_shape(Bucket(80, 470, 832))
    assert "height must be a multiple of 16, got 470; nearest: 464 and 480" in str(caught.value)
    assert "width" not in str(caught.value)


def test_a_condition_mask_never_comes_without_its_inactive_latents() -> None:
    latents = torch.zeros(4, 2, 2, 2)
    with pytest.raises(ValueError, match="come together"):
        ConditionLatents(latents, inactive=latents)


def _batch() -> Batch:
    return Batch(
        keys=("a", "b"),
        numbers=(5, 6),
        variants=("structhuman", "structall"),
        bucket=Bucket(5, 16, 16),
        latents=torch.arange(16.0).reshape(2, 1, 2, 2, 2),
        vace_context=torch.zeros(2, 3, 2, 2, 2),
        reference=torch.zeros(2, 1, 1, 2, 2),
        use_reference=torch.tensor([True, False]),
        human_coverage=torch.zeros(2, 2, 2, 2),
        prompt_embeds=torch.zeros(2, 3, 4),
        weight=torch.tensor([1.0, 0.0]),
    )


def test_a_batch_moves_and_selects_with_its_names() -> None:
    batch = _batch().to(torch.device("cpu"))
    second = batch.select([1])
    assert len(second) == 1
    assert (second.keys, second.numbers, second.variants) == (("b",), (6,), ("structall",))
    assert torch.equal(second.latents, batch.latents[1:])
    assert not second.use_reference.any()
