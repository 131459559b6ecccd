"""Make the toy's text encoder: a UMT5 of two layers that knows the drawn world's words and reads them in context.

A word's vector must say what stands beside it: cross-attention has no positions of text, so that only a vector that is
"red, of a shirt, of the person who waves" can paint the right thing. The encoder is trained to tell, from each word's
vector alone, the word, its neighbours, and which words share its sentence.
"""

import csv
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from regen_train.draws import generator_for
from regen_train.toy.form import TOY_FORM, TOY_PEOPLE
from regen_train.toy.world import VOCABULARY, draw_clip
from regen_train.toy.world.caption import describe

TEXT_DIM = 64
_NEIGHBOURS = (-3, -2, -1, 0, 1, 2, 3)
_PADDING = 0


@dataclass(frozen=True)
class TextTraining:
    """How the text encoder is trained.

    Args:
        steps: Of AdamW.
        batch_size: Captions a step.
        num_captions: Captions to draw.
        lr: Peak learning rate; falls linearly to zero.
        bag_weight: Weight of the sentence's words against the neighbours.
        seed: Of weights, captions and draws.
    """

    steps: int = 2500
    batch_size: int = 32
    num_captions: int = 8000
    lr: float = 3e-3
    bag_weight: float = 1.0
    seed: int = 0


def make_text_encoder(folder: Path, log: Path, settings: TextTraining) -> float:
    """Train and save ``tokenizer/`` and ``text_encoder/``.

    Args:
        folder: Of the pipeline.
        log: CSV file of the loss.
        settings: How.

    Returns:
        The share of held-out words whose next neighbour can be read off their vector.
    """
    tokenizer = build_tokenizer()
    captions = [describe(draw_clip(303 + settings.seed, n, TOY_FORM, TOY_PEOPLE)) for n in range(settings.num_captions)]
    tokens = tokenizer(captions, padding=True, return_tensors="pt").input_ids
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(settings.seed)
        encoder = _build_encoder(len(tokenizer))
        reader = _Reader(len(tokenizer))
    held_out = tokens[:256]
    _train(encoder, reader, tokens[256:], _full_stop(tokenizer), log, settings)
    with torch.no_grad():
        found = reader.neighbours(encode(encoder, held_out))[..., _NEIGHBOURS.index(1), :].argmax(-1)[:, :-1]
    real = held_out[:, 1:] != _PADDING
    tokenizer.save_pretrained(folder / "tokenizer")
    encoder.save_pretrained(folder / "text_encoder")
    return float((found == held_out[:, 1:])[real].float().mean())


def build_tokenizer() -> Any:
    """Return a tokenizer of whole words of the world, and of printable ASCII for all other words."""
    from transformers import T5Tokenizer

    words = [f"▁{word}" for word in VOCABULARY if word not in (".", ",")]
    known = {*words}
    characters = [sign for sign in (*string.ascii_letters, *string.digits, *string.punctuation) if sign not in known]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -6.0)]
    pieces = [*special, *((word, -2.0) for word in words), *((sign, -8.0) for sign in characters)]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def encode(encoder: Any, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b l d"]:
    """Return every word's vector."""
    vectors: Tensor = encoder(tokens, attention_mask=(tokens != _PADDING).long()).last_hidden_state
    return vectors


def _build_encoder(vocabulary: int) -> Any:
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=TEXT_DIM,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        use_cache=False,
    )
    return UMT5EncoderModel(config)


class _Reader(nn.Module):
    """Reads off a word's vector what stands beside it; thrown away after training."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.beside = nn.Linear(TEXT_DIM, len(_NEIGHBOURS) * vocabulary)
        self.sentence = nn.Linear(TEXT_DIM, vocabulary)

    def neighbours(self, vectors: Float[Tensor, "b l d"]) -> Float[Tensor, "b l n v"]:
        """Return scores of the words at each offset."""
        scores: Tensor = self.beside(vectors).unflatten(-1, (len(_NEIGHBOURS), self.vocabulary))
        return scores

    def loss(self, vectors: Tensor, tokens: Int[Tensor, "b l"], stop: int, bag_weight: float) -> Float[Tensor, ""]:
        """Return how badly neighbours and sentences are told."""
        scores, total = self.neighbours(vectors), vectors.new_zeros(())
        for place, offset in enumerate(_NEIGHBOURS):
            wanted = torch.full_like(tokens, _PADDING)
            here, there = slice(max(0, -offset), tokens.shape[1] - max(0, offset)), slice(max(0, offset), None)
            wanted[:, here] = tokens[:, there][:, : wanted[:, here].shape[1]]
            wanted[tokens == _PADDING] = _PADDING
            total = total + nn.functional.cross_entropy(
                scores[:, :, place].flatten(0, 1), wanted.flatten(), ignore_index=_PADDING
            )
        number = (tokens == stop).cumsum(1) - (tokens == stop).long()
        one_hot = nn.functional.one_hot(tokens, self.vocabulary).float()
        same = (number[:, :, None] == number[:, None, :]).float()
        bags = (same @ one_hot).clamp(max=1)
        real = tokens != _PADDING
        error = nn.functional.binary_cross_entropy_with_logits(self.sentence(vectors)[real], bags[real])
        return total / len(_NEIGHBOURS) + 20 * bag_weight * error


def _train(
    encoder: Any, reader: _Reader, tokens: Int[Tensor, "n l"], stop: int, log: Path, settings: TextTraining
) -> None:
    weights = [*encoder.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=settings.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 100) * (1 - step / settings.steps)
    )
    generator = generator_for(settings.seed, 0, "toy text encoder")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "loss"])
        for step in range(1, settings.steps + 1):
            batch = tokens[torch.randint(len(tokens), (settings.batch_size,), generator=generator)]
            loss = reader.loss(encode(encoder, batch), batch, stop, settings.bag_weight)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            if step % 100 == 0 or step == settings.steps:
                writer.writerow([step, round(loss.item(), 4)])
                file.flush()


def _full_stop(tokenizer: Any) -> int:
    return int(tokenizer.convert_tokens_to_ids("."))
