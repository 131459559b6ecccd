"""Latents, contexts and prompts are those of diffusers' own pipeline, and the facts of the VAE that we rely on."""

import json
import shutil
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from regen_train.encoders import (
    NEGATIVE_PROMPT,
    WanEncoders,
    add_reference,
    add_reference_context,
    fold_mask,
    load_encoders,
    load_vae,
    pack_context,
    pad_prompts,
)
from regen_train.schema import Bucket, Geometry

WAN = Geometry(16, 8, 4, (1, 2, 2), 4096)
PROMPTS = ["A man,  in the   street&amp;road", "", "a " * 600]


@pytest.fixture(scope="module")
def encoders(tiny_model) -> WanEncoders:
    return load_encoders(str(tiny_model), dtype="fp32")


@pytest.fixture(scope="module")
def pipeline(tiny_model):
    from diffusers import WanVACEPipeline

    loaded = WanVACEPipeline.from_pretrained(tiny_model)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def video(num_frames: int = 9, height: int = 64, width: int = 48, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_frames, height, width, 3), generator=generator, dtype=torch.uint8)


def human_mask() -> Tensor:
    mask = torch.zeros(9, 64, 48, dtype=torch.bool)
    for frame in range(9):
        mask[frame, 10 + frame : 41, 7 + 2 * frame : 22 + 3 * frame] = True
    return mask


@torch.no_grad()
def pipeline_context(pipeline, frames: Tensor, mask: Tensor, reference: Tensor | None) -> Tensor:
    clip, masks, images = pipeline.preprocess_conditions(
        [Image.fromarray(frame) for frame in frames.numpy()],
        [Image.fromarray(frame) for frame in (mask.to(torch.uint8) * 255).numpy()],
        None if reference is None else [[Image.fromarray(reference.numpy())]],
        *(1, frames.shape[1], frames.shape[2], frames.shape[0], torch.float32, torch.device("cpu")),
    )
    latents = pipeline.prepare_video_latents(clip, masks, images, device=torch.device("cpu"))
    return torch.cat([latents, pipeline.prepare_masks(masks, images)], dim=1)


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("mask", [None, human_mask()], ids=["all-ones", "human"])
def test_context_is_the_pipelines(encoders, pipeline, mask, with_reference):
    frames = video()
    condition = encoders.encode_condition(frames, mask)
    inactive, folded, reference = condition.inactive, condition.mask, condition.reference
    if mask is None:
        assert (inactive, folded, reference) == (None, None, None)
        inactive = encoders.inactive_constant(Bucket(9, 64, 48))
        mask = torch.ones(9, 64, 48, dtype=torch.bool)
        folded, reference = fold_mask(mask, encoders.geometry), condition.reactive[:, :1]
    context = pack_context(condition.reactive[None], inactive[None], folded[None])
    if with_reference:
        context = add_reference_context(context, reference[None], encoders.geometry)
    expected = pipeline_context(pipeline, frames, mask, frames[0] if with_reference else None)
    torch.testing.assert_close(context, expected, atol=1e-5, rtol=0)


@given(num_frames=st.integers(1, 81), data=st.data())
@settings(max_examples=20, deadline=None)
def test_fold_keeps_every_pixel_of_the_nearest_frame(num_frames, data):
    rows, columns = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    mask = torch.rand(num_frames, 8 * rows, 8 * columns) > 0.5
    folded = fold_mask(mask, WAN)
    frames = (num_frames - 1) // 4 + 1
    cells = mask.reshape(num_frames, rows, 8, columns, 8).permute(2, 4, 0, 1, 3).flatten(0, 1)
    size = (frames, rows, columns)
    expected = torch.nn.functional.interpolate(cells[None].float(), size=size, mode="nearest-exact")[0]
    assert torch.equal(folded, expected.bool())


def test_first_frame_alone_is_the_clips_first_latent(encoders):
    clip = encoders.encode_video(video())
    assert clip.shape == (16, 3, 8, 6)
    assert torch.equal(encoders.encode_video(video()[:1]), clip[:, :1])
    assert torch.equal(encoders.encode_video(video()[:5]), clip[:, :2])


def test_encoding_is_repeatable_and_normalised(encoders):
    latents = encoders.encode_video(video())
    assert torch.equal(latents, encoders.encode_video(video()))
    assert latents.dtype == torch.float32
    assert latents.mean().abs() < 0.5
    assert 0.3 < latents.std() < 3


def test_decoding_is_the_pipelines(encoders, pipeline):
    latents = encoders.encode_video(video())
    config = pipeline.vae.config
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (config.latents_mean, config.latents_std))
    with torch.no_grad():
        decoded = pipeline.vae.decode(latents[None] * std + mean).sample
    expected = pipeline.video_processor.postprocess_video(decoded, output_type="np")[0]
    frames = encoders.decode_video(latents)
    assert frames.shape == (9, 64, 48, 3)
    assert (frames.float() - 255 * torch.from_numpy(expected)).abs().max() < 0.51


def test_prompts_are_the_pipelines_once_padded(encoders, pipeline):
    embeds = encoders.encode_prompts(PROMPTS)
    with torch.no_grad():
        expected, _ = pipeline.encode_prompt(PROMPTS, do_classifier_free_guidance=False, max_sequence_length=512)
    assert [embed.shape[0] for embed in embeds][1:] == [1, 512]
    assert all(embed[-1].any() for embed in embeds)
    assert torch.equal(pad_prompts(embeds), expected)
    with pytest.raises(ValueError, match="a prompt has 512 tokens, more than 226"):
        pad_prompts(embeds, length=226)


def test_prompts_do_not_depend_on_their_company(encoders):
    many = [*PROMPTS, NEGATIVE_PROMPT, "video"] * 2
    together = encoders.encode_prompts(many)
    encoders.text.release()
    torch.testing.assert_close(encoders.encode_prompts(many[-1:])[0], together[-1])
    assert encoders.encode_prompts([]) == []


def test_reference_comes_first():
    latents, context = torch.randn(2, 16, 3, 4, 4), torch.randn(2, 96, 3, 4, 4)
    reference = torch.randn(2, 16, 1, 4, 4)
    joined = add_reference(latents, context, reference, WAN)
    assert torch.equal(joined.latents, torch.cat([reference, latents], dim=2))
    assert torch.equal(joined.vace_context[:, :, 1:], context)
    assert torch.equal(joined.vace_context[:, :16, :1], reference)
    assert not joined.vace_context[:, 16:, 0].any()
    with pytest.raises(ValueError, match=r"must have \(16, 96\) channels, got \(16, 16\)"):
        add_reference(latents, latents, reference, WAN)


def test_fingerprint_is_of_content(encoders, tiny_model, tmp_path):
    copied = tmp_path / "copy"
    shutil.copytree(tiny_model, copied)
    fingerprint = encoders.fingerprint()
    assert load_encoders(str(copied), dtype="fp32").fingerprint() == fingerprint
    differing = load_encoders(str(copied), dtype="bf16", vae_dtype="bf16", tiling=True).fingerprint()
    changed = {name for name, value in differing.items() if value != fingerprint[name]}
    assert changed == {"text_encoder_dtype", "vae_dtype", "vae_tiling"}
    assert encoders.name == tiny_model.name
    assert encoders.revision is None


def test_clips_that_do_not_fit_are_refused_with_all_faults(encoders):
    message = r"num_frames must be 4n\+1, got 8; nearest are 5 and 9; width must be a multiple of 16, got 40"
    for encode in (encoders.encode_video, encoders.encode_condition):
        with pytest.raises(ValueError, match=message):
            encode(video(8, 64, 40))
    with pytest.raises(ValueError, match=message):
        encoders.encode_condition(video(8, 64, 40), torch.ones(8, 64, 40, dtype=torch.bool))
    with pytest.raises(ValueError, match="must be multiples of 8, got 12x8"):
        fold_mask(torch.ones(5, 12, 8, dtype=torch.bool), WAN)


def test_pipelines_that_do_not_belong_together_are_refused(tiny_model, tmp_path):
    for part in ("vae", "transformer"):
        shutil.copytree(tiny_model / part, tmp_path / part)
    path = tmp_path / "transformer" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"in_channels": 48, "vace_in_channels": 352}))
    with pytest.raises(ValueError, match=r"in_channels must be 16, got 48; .*vace_in_channels must be 96, got 352"):
        load_vae(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="text_encoder"):
        load_encoders(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="hub id"):
        load_vae("no such folder")


class PeakMemory(TorchDispatchMode):
    """Adds up the storages that operations make, for as long as something holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage())._cdata not in self.live:
                self.live[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.live.pop, storage._cdata)
        self.peak = max(self.peak, sum(self.live.values()))
        return result


@pytest.mark.slow
@pytest.mark.parametrize(("part", "gibibytes"), [("encode", 5.6), ("decode", 7.6)])
def test_a_long_clip_fits_a_small_gpu(part, gibibytes):
    from diffusers import AutoencoderKLWan

    with FakeTensorMode(), torch.no_grad():
        vae = AutoencoderKLWan()
        given = torch.empty(1, 3, 81, 480, 832) if part == "encode" else torch.empty(1, 16, 21, 60, 104)
        with PeakMemory() as memory:
            getattr(vae, part)(given)
    assert memory.peak / 2**30 == pytest.approx(gibibytes, abs=0.3)
