"""UMT5: captions to prompt embeddings, as Wan's pipeline makes them."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from regen_train.pretrained import DTYPES, Precision, PretrainedFolder, read_config, read_safetensors, state_sha256
from regen_train.schema import MAX_PROMPT_TOKENS

NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，"  # noqa: RUF001
    "JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，"  # noqa: RUF001
    "手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"  # noqa: RUF001
)
"""Wan's standard negative prompt. Source: Wan-Video/Wan2.1, wan/configs/shared_config.py, ``sample_neg_prompt``."""

_BATCH = 8


class WanTextEncoder:
    """Encodes prompts; loads its weights (11 GiB in bf16 for Wan's UMT5-XXL) on first use.

    Args:
        source: The pipeline folder.
        dtype: Precision.
        device: Where it runs.
    """

    def __init__(self, source: PretrainedFolder, *, dtype: Precision, device: str | torch.device) -> None:
        read_config(source.path / "text_encoder" / "config.json")
        self.source = source
        self.dtype = dtype
        self.device = torch.device(device)

    @cached_property
    def sha256(self) -> str:
        """Hash of the weights, rounded to bf16, from the files: needs reading, not loading."""
        state = read_safetensors(self.source.path / "text_encoder")
        if "shared.weight" in state:
            state.pop("encoder.embed_tokens.weight", None)  # the same tensor, written by some versions only
        return state_sha256(state)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> list[Float[Tensor, "_ d"]]:
        """Encode prompts, each trimmed to its tokens; a prompt of more than 512 tokens is cut off there.

        Returns:
            Embeddings in fp32 on the CPU, equal to the pipeline's once padded with zeros to 512 tokens.
        """
        embeds = []
        for start in range(0, len(prompts), _BATCH):
            embeds += self._encode_batch(list(prompts[start : start + _BATCH]))
        return embeds

    def release(self) -> None:
        """Free the weights; the next use loads them again."""
        self.__dict__.pop("_pipeline", None)

    @cached_property
    def _pipeline(self) -> Any:
        from diffusers import WanVACEPipeline
        from transformers import AutoTokenizer, UMT5EncoderModel

        tokenizer = AutoTokenizer.from_pretrained(self.source.path / "tokenizer", local_files_only=True)
        encoder = UMT5EncoderModel.from_pretrained(
            self.source.path / "text_encoder", dtype=DTYPES[self.dtype], use_safetensors=True, local_files_only=True
        )
        encoder = encoder.to(self.device).eval().requires_grad_(False)
        # The pipeline is used for its own cleaning, padding and cutting only.
        return WanVACEPipeline(tokenizer=tokenizer, text_encoder=encoder, vae=None, scheduler=None)

    def _encode_batch(self, prompts: list[str]) -> list[Tensor]:
        from diffusers.pipelines.wan.pipeline_wan_vace import prompt_clean

        padded, _ = self._pipeline.encode_prompt(
            prompts,
            do_classifier_free_guidance=False,
            max_sequence_length=MAX_PROMPT_TOKENS,
            device=self.device,
        )
        tokens = self._pipeline.tokenizer(
            [prompt_clean(prompt) for prompt in prompts], max_length=MAX_PROMPT_TOKENS, truncation=True
        )
        lengths = [len(ids) for ids in tokens.input_ids]
        return [row[:length].float().cpu() for row, length in zip(padded, lengths, strict=True)]
