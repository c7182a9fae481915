"""An example recipe: handwritten digits of 8 × 8 pixels. ``train.py`` makes the weights and the images it names.

The embedding joins two views: what the classifier goes by (the last hidden layer), and what the strokes look like (the
first layer, pooled to quarters). A letter can excite the last layer just as a digit does; its strokes lie elsewhere.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from appliance.bundle.manifest import Label
from export.kinds import ImageInput
from export.recipe import Recipe, Torch


class Digits(nn.Module):
    """Float32 ``[N, 1, 8, 8]`` to logits ``[N, 10]`` and embedding ``[N, 96]``."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, kernel_size=3, padding=1)
        self.second = nn.Conv2d(16, 32, kernel_size=3, padding=1)
        self.hidden = nn.Linear(32 * 4 * 4, 32)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(32, 10)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        strokes = functional.relu(self.first(pixels))
        shapes = functional.max_pool2d(functional.relu(self.second(strokes)), 2)
        hidden = functional.relu(self.hidden(shapes.flatten(1)))
        seen = functional.avg_pool2d(strokes, 4).flatten(1)
        return self.head(self.dropout(hidden)), torch.cat([hidden, seen], dim=1)


def recipe(data: Path) -> Recipe:
    return Recipe(
        id="digits",
        version=1,
        intended_use="Reads one handwritten digit. A demonstration; not for any other use.",
        network=Torch(module=Digits, weights=data / "weights.safetensors"),
        input=ImageInput(height=8, width=8, channels=1, mean=(0.3,), std=(0.38,)),
        labels=tuple(Label(str(digit), None) for digit in range(10)),
        validation=data / "validation",
        training=data / "training",
        error_among_accepted_max=0.015,
    )
