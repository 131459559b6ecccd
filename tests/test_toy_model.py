"""The model that comes with the package: whole, small, safe to read, and as good as its card says."""

import json

import torch

from regen_train.encoders import load_encoders
from regen_train.evaluation import mask_iou, psnr
from regen_train.model import load_wan_vace
from regen_train.pretrained import resolve_folder
from regen_train.toy.form import TOY_FORM
from regen_train.toy.heldout import ALONE
from regen_train.toy.observer import load_observer
from regen_train.toy.world import draw_clip, render

TOY = resolve_folder("toy", revision=None, parts=()).path
MEGABYTE = 1_000_000


def test_toy_is_a_whole_pipeline_of_at_most_8_megabytes_and_no_pickle() -> None:
    parts = json.loads((TOY / "model_index.json").read_text())
    for part in ("vae", "transformer", "text_encoder", "tokenizer", "scheduler"):
        assert part in parts
        assert any((TOY / part).iterdir())
    files = [path for path in TOY.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 8 * MEGABYTE
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md", ".csv", ".yaml"}


def test_diffusers_loads_it() -> None:
    from diffusers import WanVACEPipeline

    pipeline = WanVACEPipeline.from_pretrained(TOY)
    assert pipeline.transformer.config.vace_in_channels == 2 * pipeline.vae.config.z_dim + 64


def test_its_name_is_what_adapters_and_exports_carry() -> None:
    assert load_wan_vace("toy", dtype="fp32").base.name == "toy"


def test_it_knows_every_word_of_the_world() -> None:
    encoders = load_encoders("toy", dtype="fp32")
    captions = [render(draw_clip(7, number, TOY_FORM)).caption for number in range(4)]
    for caption, embeds in zip(captions, encoders.encode_prompts(captions), strict=True):
        # One vector a word or sign, and one for the end.
        assert len(embeds) == len(caption.replace(",", " ,").replace(".", " .").split()) + 1


def test_its_vae_gives_back_people_it_never_saw() -> None:
    encoders = load_encoders("toy", dtype="fp32")
    everywhere = torch.ones(TOY_FORM.num_frames, TOY_FORM.height, TOY_FORM.width, dtype=torch.bool)
    clips = [render(draw_clip(8, number, TOY_FORM, ALONE)) for number in range(4)]
    back = [encoders.decode_video(encoders.encode_video(clip.frames)) for clip in clips]
    values = [psnr(video, clip.frames, everywhere) for video, clip in zip(back, clips, strict=True)]
    assert sum(values) / len(values) > 21.0


def test_its_observer_finds_drawn_people() -> None:
    observer = load_observer()
    clips = [render(draw_clip(9, number, TOY_FORM, ALONE)) for number in range(4)]
    found = [mask_iou(observer.look(clip.frames).mask, clip.mask > 0) for clip in clips]
    assert sum(found) / len(found) > 0.8
