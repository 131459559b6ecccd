"""Train the toy's observer: ``python -m regen_train.toy.making.observer``, about 8 minutes of one CPU core."""

import argparse
import csv
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from regen_train.adapter.files import write_weights
from regen_train.draws import generator_for
from regen_train.toy.making.observer_pictures import HIDDEN, SHOWN, Pictures, Softening, draw_pictures, soften
from regen_train.toy.observer import FORM, HEATMAP_STRIDE, WEIGHTS, ObserverNet, to_pixels, weights_of

_SPREAD = 1.2
"""Of a point in its heatmap, cells."""
_RARE = 15.0
"""How much more a cell at a point weighs than one without."""
_NO_SOFTENING = Softening(blur=0, shrink=1, noise=0, wobble=0, colour=0, other_room=0, jpeg=0)


@dataclass(frozen=True)
class ObserverTraining:
    """How the observer is trained.

    Args:
        num_clips: Drawn clips, of five frames each.
        num_steps: Of the optimizer.
        batch_size: Pictures in a step.
        lr: Largest learning rate; rises for a tenth of the steps, then falls to 0 as a cosine.
        num_held_out: Drawn clips that only the log sees.
        seed: Of pictures, weights and order.
    """

    num_clips: int = 2400
    num_steps: int = 1900
    batch_size: int = 32
    lr: float = 4e-3
    num_held_out: int = 80
    seed: int = 0


def train_observer(weights: Path, settings: ObserverTraining) -> None:
    """Train and save an observer, with a log beside it.

    Args:
        weights: Safetensors file to write, fp16; the log gets its name, with ``.csv``.
        settings: How.
    """
    clips = draw_pictures(settings.num_clips, seed=303 + settings.seed)
    held_out = draw_pictures(settings.num_held_out, seed=404 + settings.seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(settings.seed)
        network = ObserverNet().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_cosine(step / settings.num_steps))
    started, losses = time.process_time(), []
    with weights.with_suffix(".csv").open("w", newline="") as file:
        log = csv.writer(file)
        log.writerow(["step", "cpu_minutes", "loss", "held_out_loss", "held_out_soft_loss"])
        for step, batch in enumerate(_batches(clips, settings)):
            network.train()
            loss = _loss(network, soften(batch, Softening(), seed=settings.seed, step=step), batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if (step + 1) % 100 == 0 or step + 1 == settings.num_steps:
                sharp, soft = (_held_out_loss(network, held_out, how) for how in (_NO_SOFTENING, Softening()))
                minutes, mean = (time.process_time() - started) / 60, sum(losses) / len(losses)
                log.writerow([step + 1, *(f"{value:.4f}" for value in (minutes, mean, sharp, soft))])
                file.flush()
                losses = []
    halves = {name: tensor.half() for name, tensor in weights_of(network).items()}
    write_weights(weights, halves, {"form": FORM, **{name: str(value) for name, value in asdict(settings).items()}})


def heatmaps_of(pictures: Pictures, state: int) -> Float[Tensor, "n 13 i j"]:
    """Return bells of height 1 around the points in a state."""
    height, width = (-(-side // HEATMAP_STRIDE) for side in pictures.mask.shape[1:])
    cells = (pictures.points - 0.5) / HEATMAP_STRIDE
    across = (torch.arange(width) - cells[..., 0, None]) ** 2
    down = (torch.arange(height) - cells[..., 1, None]) ** 2
    bells = torch.exp(-(down[..., :, None] + across[..., None, :]) / (2 * _SPREAD**2))
    return (bells * (pictures.states == state)[..., None, None]).amax(1)


def _loss(network: ObserverNet, frames: Tensor, truth: Pictures) -> Tensor:
    pixels = to_pixels(frames).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        mask, heatmaps = network(pixels)
    wanted, ignored = heatmaps_of(truth, SHOWN), heatmaps_of(truth, HIDDEN)
    weight = (1 + _RARE * wanted) * (1 - ignored * (ignored > wanted))
    points = functional.binary_cross_entropy_with_logits(heatmaps.float(), wanted, weight)
    # A bell's own entropy cannot be learned away: it is taken off, so that 0 is perfect.
    points = points - functional.binary_cross_entropy(wanted, wanted, weight)
    people = functional.binary_cross_entropy_with_logits(mask.float(), truth.mask.float())
    return people + 4 * points


@torch.no_grad()
def _held_out_loss(network: ObserverNet, pictures: Pictures, softening: Softening) -> float:
    network.eval()
    parts = torch.split(torch.arange(len(pictures)), 80)
    batches = [pictures.pick(numbers) for numbers in parts]
    losses = [_loss(network, soften(some, softening, seed=1, step=step), some) for step, some in enumerate(batches)]
    return float(torch.stack(losses).mean())


def _batches(pictures: Pictures, settings: ObserverTraining) -> Iterator[Pictures]:
    for step in range(settings.num_steps):
        generator = generator_for(settings.seed, step, "observer batch")
        yield pictures.pick(torch.randint(len(pictures), (settings.batch_size,), generator=generator))


def _warm_cosine(progress: float) -> float:
    return min(1.0, progress / 0.1 + 0.01) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, progress)))


def main() -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=WEIGHTS, help="file of the weights; the log lies beside it")
    parser.add_argument("--num_steps", type=int, default=ObserverTraining.num_steps)
    parser.add_argument("--seed", type=int, default=ObserverTraining.seed)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train_observer(arguments.output, ObserverTraining(num_steps=arguments.num_steps, seed=arguments.seed))


if __name__ == "__main__":
    main()
