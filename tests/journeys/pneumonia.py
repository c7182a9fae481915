"""A network for chest X-rays of 28 × 28 pixels: does a child's lung look inflamed (PneumoniaMNIST, Yang et al. 2023)?

Small enough to be trained in a minute on one core. Its embedding joins two views: what the classifier goes by (the last
hidden layer, pooled), and what the picture looks like (the first layer, pooled to sixteenths). A photograph of food can
excite the last layer just as a lung does; its edges lie elsewhere.

It is made for measuring confidence, not for reading X-rays. This file is a recipe; ``python -m tests.journeys.pneumonia
OUTDIR`` trains the network and lays out what the recipe wants.
"""

import io
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from appliance.bundle.manifest import Label
from export.kinds import ImageInput
from export.recipe import Recipe, Torch

ARRAYS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "pneumoniamnist" / "data" / "pneumoniamnist.npz"
LABELS = ("normal", "pneumonia")
MEAN, STD = 0.57, 0.17
SEED, EPOCHS, ROWS = 3, 16, 64
FORGETTING = 0.99


@dataclass(frozen=True, eq=False)
class Part:
    """``images`` uint8 ``[N, 28, 28, 1]``; ``labels`` int64 ``[N]``: 0 is normal, 1 pneumonia."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def part(name: str) -> Part:
    """``train`` (3,882 images, thinned out), ``val`` (524) or ``test`` (624, of another mix of classes, and harder)."""
    with np.load(ARRAYS) as arrays:
        return Part(arrays[f"{name}_images"][..., None], arrays[f"{name}_labels"].ravel().astype(np.int64))


class Lungs(nn.Module):
    """Float32 ``[N, 1, 28, 28]``, normalised, to logits ``[N, 2]`` and embedding ``[N, 320]``."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.blocks = nn.Sequential(
            _block(16, 32), nn.MaxPool2d(2), _block(32, 48), nn.MaxPool2d(2), _block(48, 64), _block(64, 64)
        )
        self.dropout = nn.Dropout(0.4)
        self.head = nn.Linear(64, len(LABELS))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        edges = functional.relu(self.first(pixels))
        hidden = self.blocks(edges).mean(dim=(2, 3))
        seen = functional.avg_pool2d(edges, 7).flatten(1)
        return self.head(self.dropout(hidden)), torch.cat([hidden, seen], dim=1)


def _block(given: int, made: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(given, made, 3, padding=1, bias=False), nn.BatchNorm2d(made), nn.ReLU())


def normalised(images: NDArray[np.uint8]) -> Tensor:
    """Float32 ``[N, 1, 28, 28]`` of uint8 ``[N, 28, 28, 1]``, as a graph would do it."""
    return (torch.from_numpy(images).float().permute(0, 3, 1, 2) / 255 - MEAN) / STD


def train(given: Part, seed: int = SEED) -> Lungs:
    """Seeded; the classes count alike, and what stays is an average of the weights over the last steps."""
    torch.manual_seed(seed)
    pixels, labels = normalised(given.images), torch.from_numpy(given.labels)
    module = Lungs().train()
    kept = torch.optim.swa_utils.AveragedModel(
        module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(FORGETTING), use_buffers=True
    )
    weight = len(labels) / (2 * torch.bincount(labels).float())
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=0.02)
    steps = EPOCHS * -(-len(pixels) // ROWS)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(pixels)).split(ROWS):
            logits = module(varied(pixels[rows]))[0]
            loss = functional.cross_entropy(logits, labels[rows], weight=weight)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            kept.update_parameters(module)
    trained = kept.module.eval()
    assert isinstance(trained, Lungs)
    return trained


def varied(pixels: Tensor) -> Tensor:
    """The same images as another technician might have taken them: shifted, turned, mirrored, lighter, harder, noisier."""
    n = len(pixels)
    angle = (torch.rand(n) - 0.5) * 0.35
    scale = 1 + (torch.rand(n) - 0.5) * 0.3
    mirror = 1 - 2 * (torch.rand(n) < 0.5).float()
    matrices = torch.zeros(n, 2, 3)
    matrices[:, 0, 0], matrices[:, 0, 1] = mirror * scale * angle.cos(), -scale * angle.sin()
    matrices[:, 1, 0], matrices[:, 1, 1] = mirror * scale * angle.sin(), scale * angle.cos()
    matrices[:, :, 2] = (torch.rand(n, 2) - 0.5) * 0.25
    moved = functional.grid_sample(
        pixels,
        functional.affine_grid(matrices, list(pixels.shape), align_corners=False),
        padding_mode="border",
        align_corners=False,
    )
    gain, offset = 1 + (torch.rand(n, 1, 1, 1) - 0.5) * 0.6, (torch.rand(n, 1, 1, 1) - 0.5) * 0.8
    return moved * gain + offset + torch.randn_like(moved) * 0.05


def prepare(out: Path) -> None:
    """Trains, and lays out what the recipe wants: weights, and ``training`` and ``validation`` images by label."""
    out.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(train(part("train")).state_dict(), out / "weights.safetensors")
    for folder, given in (("training", part("train")), ("validation", part("val"))):
        for i, (image, label) in enumerate(zip(given.images, given.labels.tolist(), strict=True)):
            path = out / folder / LABELS[label] / f"{i:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(image))


def png(image: NDArray[np.uint8]) -> bytes:
    """The file of one grey image, uint8 ``[height, width, 1]``."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0]).save(buffer, "PNG")
    return buffer.getvalue()


def recipe(data: Path) -> Recipe:
    return Recipe(
        id="lungs",
        version=1,
        intended_use="Says whether a child's lung looks inflamed. Made for measuring confidence; not for any other use.",
        network=Torch(module=Lungs, weights=data / "weights.safetensors"),
        input=ImageInput(height=28, width=28, channels=1, mean=(MEAN,), std=(STD,)),
        labels=tuple(Label(name, None) for name in LABELS),
        validation=data / "validation",
        training=data / "training",
        error_among_accepted_max=0.05,
        label_set_coverage=0.97,
    )


@torch.no_grad()
def outputs(module: Lungs, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits float32 ``[N, 2]`` and embeddings float32 ``[N, 320]``."""
    logits, embedding = module.eval()(normalised(images))
    return logits.numpy(), embedding.numpy()


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
