"""Captions by Qwen3-VL: one dense paragraph, as the published weights were trained on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from regen_train.guard.detectors import Detector, NameFinder
from regen_train.guard.text import TextFinding
from regen_train.pretrained import DTYPES, Precision, PretrainedFolder, model_revision, resolve_model
from regen_train.signals.caption.filter import CaptionFilter, plain
from regen_train.signals.caption.frames import spread_frames

_VERSION = 1
"""Raise it with any change of prompt, frames or decoding: captions made before are then made anew."""
_NUM_FRAMES = 8
"""As many as ReGenHuman (2026) shows the model."""
_LONG_SIDE = 768
"""Pixels: clothing and objects are still told apart, and eight frames stay below 4,000 tokens."""
_MAX_NEW_TOKENS = 400
"""About 300 words: enough to see that an answer is too long, and an end to one that never ends."""
_PROMPT = (
    "You see {frames} frames of a video clip, in order. Describe the clip in one dense paragraph of {low} to {high} "
    "words. Cover where it takes place and what stands there; the people, each as a man, a woman, a child or a person, "
    "with their clothing and what they hold; what they do, from the first frame to the last; and how the camera is "
    "placed and moves. Tell only what can be seen. Never name a person, even one you recognise, and never guess who "
    "somebody is. Never quote, spell out or translate text, numbers, logos or signs in the picture. Start with the "
    "description itself, without a heading or a remark of your own."
)
_AGAIN = "That cannot be used: {reasons}. Write the whole paragraph again, {low} to {high} words, without that."
_WHAT = {
    "name": "it names {text}",
    "readable": "it repeats text of the picture, {text}",
    "plate": "it spells out what looks like a licence plate, {text}",
}


@dataclass
class Qwen3VlCaptions:
    """Captions by Qwen3-VL (Apache-2.0) from eight evenly spread frames; greedy, so that they come out the same again.

    An answer of the wrong length, or one that identifies somebody, is asked for again with the reason. If none is fit,
    the first that is fit once names and the like are taken out of it is used; else there is no caption.

    Args:
        pretrained: Hub id or folder of a Qwen3-VL model; Qwen/Qwen3-VL-2B-Instruct needs a quarter of the memory and
            misses the length more often.
        revision: Branch, tag or commit on the hub.
        precision: Of the weights; fp32 is for tests on a CPU.
        words: Least and most words of a caption; shorter ones make the published weights worse.
        max_attempts: How often to ask.
        names: Finds names of persons in the answers.
        text: Reads text in the frames, which answers must not repeat.
    """

    pretrained: str = "Qwen/Qwen3-VL-8B-Instruct"
    revision: str | None = None
    precision: Precision = "bf16"
    words: tuple[int, int] = (120, 160)
    max_attempts: int = 3
    names: NameFinder | None = None
    text: Detector | None = None
    _model: Any = field(default=None, init=False, repr=False, compare=False)
    _processor: Any = field(default=None, init=False, repr=False, compare=False)

    def setup(self, device: str) -> None:
        """Load the weights; see `CaptionSource`.

        Raises:
            FileNotFoundError: The weights cannot be had; says what to do, and what else there is.
            ValueError: The settings make no sense.
        """
        low, high = self.words
        if not 0 < low <= high or self.max_attempts < 1:
            raise ValueError(
                f"words must be (least, most) from 1 up and max_attempts at least 1, got {self.words} and "
                f"{self.max_attempts}"
            )
        from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

        folder = self._folder().path
        self._processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        model = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=DTYPES[self.precision], local_files_only=True, use_safetensors=True
        )
        ends, padding = model.generation_config.eos_token_id, model.generation_config.pad_token_id
        # in place of the model's own settings, which draw at random
        model.generation_config = GenerationConfig(do_sample=False, eos_token_id=ends, pad_token_id=padding)
        self._model = model.to(device).eval()
        self._filter.setup(device)

    def identity(self) -> dict[str, Any]:
        """Return what decides the result; see `CaptionSource`."""
        folder = self._folder()
        return {
            "extractor": type(self).__name__,
            "version": _VERSION,
            "weights": folder.name,
            "revision": model_revision(folder),
            "precision": self.precision,
            "words": list(self.words),
            "max_attempts": self.max_attempts,
            **self._filter.identity(),
        }

    def caption(self, clip: Path, *, max_frames: int | None = None) -> str:
        """Describe a clip; see `CaptionSource`.

        Raises:
            FileNotFoundError: There is no such clip.
            ValueError: The clip cannot be decoded, or no answer was fit.
        """
        frames = spread_frames(clip, _NUM_FRAMES, max_frames=max_frames)
        read = self._filter.read(frames)
        messages = self._question(frames)
        answers: list[str] = []
        for _ in range(self.max_attempts):
            answer, whole = self._answer(messages)
            faults = self._length_faults(answer, whole=whole)
            findings = self._filter.faults(answer, read)
            if not faults and not findings:
                return answer
            answers += [answer] if whole else []
            messages = [*messages, *self._complaint(answer, faults + [_complain(finding) for finding in findings])]
        for answer in answers:
            cleaned = self._filter.clean(answer, read)
            if cleaned is not None and not self._length_faults(cleaned):
                return cleaned
        raise ValueError(
            f"{self.pretrained} gave no fit caption in {self.max_attempts} attempts: each was not {self.words[0]} to "
            f"{self.words[1]} words long, or told who somebody is; write one by hand as caption.txt"
        )

    @property
    def _filter(self) -> CaptionFilter:
        return CaptionFilter(self.names, self.text)

    def _folder(self) -> PretrainedFolder:
        try:
            return resolve_model(self.pretrained, self.revision)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}; or use MetadataCaptions or CaptionFiles") from error

    def _question(self, frames: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[dict[str, Any]]:
        low, high = self.words
        words = _PROMPT.format(frames=len(frames), low=low, high=high)
        pictures = [{"type": "image", "image": _shrink(frame)} for frame in frames]
        return [{"role": "user", "content": [*pictures, {"type": "text", "text": words}]}]

    def _complaint(self, answer: str, reasons: Sequence[str]) -> list[dict[str, Any]]:
        low, high = self.words
        words = _AGAIN.format(reasons="; ".join(dict.fromkeys(reasons)), low=low, high=high)
        return [
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
            {"role": "user", "content": [{"type": "text", "text": words}]},
        ]

    @torch.inference_mode()
    def _answer(self, messages: Sequence[dict[str, Any]]) -> tuple[str, bool]:
        """Return what the model says, and whether it came to an end."""
        inputs = self._processor.apply_chat_template(
            list(messages), add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        ).to(self._model.device)
        tokens = self._model.generate(**inputs, max_new_tokens=_MAX_NEW_TOKENS)[0, inputs["input_ids"].shape[1] :]
        ends = _token_ids(self._model.generation_config.eos_token_id)
        text = self._processor.decode(tokens, skip_special_tokens=True)
        return plain(text), len(tokens) < _MAX_NEW_TOKENS or int(tokens[-1]) in ends

    def _length_faults(self, answer: str, *, whole: bool = True) -> list[str]:
        (low, high), count = self.words, len(answer.split())
        faults = [] if low <= count <= high else [f"it has {count} words"]
        return faults + ([] if whole else ["it was cut off"])


def _complain(finding: TextFinding) -> str:
    return _WHAT.get(finding.kind, "it spells out {text}").format(text=repr(finding.text))


def _token_ids(ids: int | Sequence[int] | None) -> list[int]:
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


def _shrink(frame: UInt8[np.ndarray, "h w 3"]) -> Any:
    from PIL import Image

    picture = Image.fromarray(frame)
    picture.thumbnail((_LONG_SIDE, _LONG_SIDE))
    return picture
