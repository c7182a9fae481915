"""A recipe for a network that somebody else trained: ResNet-20 on CIFAR-10 (He et al. 2015, section 4.2).

No CIFAR-10 image is at hand offline, so ``prepare`` lays out photographs of food, each in the folder of the class that
the torch module itself sees in it. Such labels say nothing about accuracy, and what counts as unknown is what looks
unlike food: this recipe proves that a stranger's checkpoint goes through conversion, parity and sealing, and no more.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from appliance.bundle.manifest import Label
from export.kinds import ImageInput
from export.recipe import Recipe, Torch

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
WEIGHTS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "resnet_cifar10" / "resnet20-12fca82f.th"
VALIDATION = "validation"


class Block(nn.Module):
    """Two convolutions and a shortcut without parameters (option A): thinned out, and filled up with empty channels."""

    def __init__(self, given: int, made: int) -> None:
        super().__init__()
        self.stride = made // given
        self.conv1 = nn.Conv2d(given, made, 3, stride=self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(made)
        self.conv2 = nn.Conv2d(made, made, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(made)
        self.padding = (made - given) // 2

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.padding:
            shortcut = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        inner = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(inner)) + shortcut)


class ResNet20(nn.Module):
    """Float32 ``[N, 3, 32, 32]`` to logits ``[N, 10]`` and the pooled embedding ``[N, 64]``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16), Block(16, 16), Block(16, 16))
        self.layer2 = nn.Sequential(Block(16, 32), Block(32, 32), Block(32, 32))
        self.layer3 = nn.Sequential(Block(32, 64), Block(64, 64), Block(64, 64))
        self.linear = nn.Linear(64, len(CLASSES))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = functional.relu(self.bn1(self.conv1(pixels)))
        pooled = self.layer3(self.layer2(self.layer1(x))).mean(dim=(2, 3))
        return self.linear(pooled), pooled


def recipe(data: Path) -> Recipe:
    return Recipe(
        id="resnet20-cifar10",
        version=1,
        intended_use="Tells ten kinds of animals and vehicles apart. A test of the factory; not for any other use.",
        network=Torch(module=ResNet20, weights=WEIGHTS, prefix="module."),
        input=ImageInput(
            height=32, width=32, channels=3, resize="crop", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
        ),
        labels=tuple(Label(name, None) for name in CLASSES),
        validation=data / VALIDATION,
        error_among_accepted_max=0.02,
    )


def prepare(grocery_dir: Path, out: Path) -> int:
    """Lays out ``out/validation/<class>/`` from the grocery photographs; returns how many there are."""
    from appliance.model import inputs
    from export import checkpoint

    folder = out / VALIDATION
    folder.mkdir(parents=True)
    made = recipe(out)
    photographs = sorted(path for path in grocery_dir.glob("*/*/*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    pixels = inputs.decode(made.input.specs[0], [path.read_bytes() for path in photographs])
    seen = checkpoint.outputs(checkpoint.load(made), (torch.from_numpy(pixels),))[0].argmax(dim=1).tolist()
    for path, top in zip(photographs, seen, strict=True):
        own = folder / CLASSES[top]
        own.mkdir(exist_ok=True)
        (own / "-".join(path.relative_to(grocery_dir).parts)).write_bytes(path.read_bytes())
    return len(photographs)
