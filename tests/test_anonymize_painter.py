"""The painter gives the model what training gave it, and a video does not depend on its batch."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from anonymize_clips import write_lora
from torch import Tensor

from regen_train.anonymize import Painter, Painting, load_painter
from regen_train.anonymize import painter as painter_module
from regen_train.encoders import fold_mask, pack_context
from regen_train.sampling import SamplingSettings, generate
from regen_train.schema import Bucket

SETTINGS = SamplingSettings(num_inference_steps=2)
BUCKET = Bucket(5, 32, 48)


@pytest.fixture(scope="module")
def lora(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lora(tiny_model, tmp_path_factory.mktemp("lora") / "pytorch_lora_weights.safetensors")


@pytest.fixture(scope="module")
def painter(tiny_model: Path, lora: Path) -> Painter:
    return load_painter(str(tiny_model), str(lora.parent), dtype="fp32")


def test_a_lora_is_read_once(tiny_model: Path, lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    load = painter_module.load_adapter
    monkeypatch.setattr(painter_module, "load_adapter", lambda path: read.append(path) or load(path))
    load_painter(str(tiny_model), str(lora), dtype="fp32")
    assert read == [str(lora)]


def painting(seed: int, caption: str = "a person on the street") -> Painting:
    generator = torch.Generator().manual_seed(seed)
    shape = (BUCKET.num_frames, BUCKET.height, BUCKET.width, 3)
    return Painting(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8), caption, seed)


def apart(one: Tensor, other: Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


def test_a_painting_is_what_generate_makes_of_the_training_context(painter):
    wanted = painting(3)
    reactive = painter.encoders.encode_condition(wanted.condition).reactive[None]
    everywhere = fold_mask(torch.ones(*asdict(BUCKET).values(), dtype=torch.bool), painter.geometry)[None]
    prompt, negative = painter.encoders.encode_prompts([wanted.caption, "static"])
    latents = generate(
        painter.model,
        vace_context=pack_context(reactive, painter.encoders.inactive_constant(BUCKET)[None], everywhere),
        prompt_embeds=prompt[None],
        negative_prompt_embeds=negative[None],
        reference=reactive[:, :, :1],
        noise=wanted.seed,
        settings=SETTINGS,
    )
    painted = painter.paint([wanted], settings=SETTINGS, negative_prompt="static")
    assert torch.equal(painted[0], painter.encoders.decode_video(latents[0]))


def test_a_batch_gives_what_one_by_one_gives(painter):
    wanted = [painting(seed, "a man in a shirt" if seed % 2 else "a woman") for seed in range(3)]
    singly = [painter.paint([one], settings=SETTINGS)[0] for one in wanted]
    together = painter.paint(wanted, settings=SETTINGS, batch_size=2)
    assert [tuple(video.shape) for video in together] == [(5, 32, 48, 3)] * 3
    assert max(apart(one, other) for one, other in zip(singly, together, strict=True)) <= 1
    assert apart(singly[0], singly[1]) > 16


def test_seed_caption_lora_and_reference_matter(painter, tiny_model, lora):
    (first,) = painter.paint([painting(1)], settings=SETTINGS)
    others = {
        "seed": painter.paint([replace(painting(1), seed=2)], settings=SETTINGS),
        "caption": painter.paint([replace(painting(1), caption="a red car")], settings=SETTINGS),
        "lora": load_painter(str(tiny_model), None, dtype="fp32").paint([painting(1)], settings=SETTINGS),
        "reference": Painter(painter.model, painter.encoders, reference="none").paint([painting(1)], settings=SETTINGS),
    }
    assert all(apart(first, video) > 0 for (video,) in others.values())
    (again,) = painter.paint([painting(1)], settings=SETTINGS)
    assert torch.equal(first, again)


def test_the_lora_says_whether_it_knows_a_reference(tiny_model, tmp_path, painter):
    assert painter.reference == "first_condition"
    path = write_lora(tiny_model, tmp_path / "lora.safetensors", settings={"reference": "none"})
    assert load_painter(str(tiny_model), str(path), dtype="fp32").reference == "none"
    assert load_painter(str(tiny_model), str(path), dtype="fp32", reference="first_condition").reference != "none"


def test_a_vace_mask_keeps_what_is_outside_as_inactive(painter):
    wanted = painting(1)
    mask = torch.zeros(5, 32, 48, dtype=torch.bool)
    mask[:, 8:24, 8:24] = True
    (everywhere,) = painter.paint([wanted], settings=SETTINGS)
    (inside,) = painter.paint([replace(wanted, vace_mask=mask)], settings=SETTINGS)
    assert apart(everywhere, inside) > 0


def test_progress_counts_the_steps_of_all_batches(painter):
    seen: list[tuple[int, int]] = []
    painter.paint([painting(1), painting(2)], settings=SETTINGS, progress=lambda *step: seen.append(step))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_wrong_shapes_are_refused(painter):
    odd = Painting(torch.zeros(5, 32, 32, 3, dtype=torch.uint8), "", 0)
    with pytest.raises(ValueError, match=r"must share a shape, got 5x32x32, 5x32x48"):
        painter.paint([painting(1), odd])
    with pytest.raises(ValueError, match=r"num_frames must be 4n\+1, got 4"):
        painter.paint([Painting(torch.zeros(4, 32, 32, 3, dtype=torch.uint8), "", 0)])
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        painter.paint([painting(1)], batch_size=0)
    assert painter.paint([]) == []


def test_another_base_is_refused(tiny_model, tmp_path):
    path = write_lora(tiny_model, tmp_path / "lora.safetensors", base_sha256="0" * 64)
    with pytest.raises(ValueError, match="were trained on base"):
        load_painter(str(tiny_model), str(path), dtype="fp32")
