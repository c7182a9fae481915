"""Trains the example model and lays out the images its recipe wants.

    python examples/digits/train.py OUTDIR

Writes ``weights.safetensors``; images in ``training``, ``validation`` and ``test``, ``<label>/*.png`` in each; and
``test-reference.npz`` with what the torch module itself says about the test images: ``paths``, ``labels`` and ``logits``
(float32 ``[N, 10]``).
The digits ship inside scikit-learn (UCI, Optical Recognition of Handwritten Digits), so nothing is downloaded.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from appliance.model import inputs
from export import checkpoint
from export.recipe import load

SEED = 7
EPOCHS, ROWS = 40, 64
MEAN, STD = 0.3, 0.38


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the digits example.")
    parser.add_argument("outdir", type=Path)
    out: Path = parser.parse_args().outdir

    digits = load_digits()
    images = np.round(digits.images * 255 / 16).astype(np.uint8)
    names = [f"{i:04}.png" for i in range(len(images))]
    rest, test = train_test_split(range(len(images)), test_size=400, stratify=digits.target, random_state=SEED)
    train, validation = train_test_split(rest, test_size=497, stratify=digits.target[rest], random_state=SEED)
    for folder, chosen in (("training", train), ("validation", validation), ("test", test)):
        for i in chosen:
            path = out / folder / str(digits.target[i]) / names[i]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[i]).save(path)

    module = fit(images[train], digits.target[train])
    safetensors.torch.save_file(module.state_dict(), out / "weights.safetensors")
    accuracy = write_reference(out)
    print(f"accuracy on {len(test)} test images: {accuracy:.3f}")


def fit(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> torch.nn.Module:
    """A small network, seeded; weight decay and dropout keep it from being surer than it should be."""
    from recipe import Digits

    torch.manual_seed(SEED)
    pixels = (torch.from_numpy(images).float()[:, None] / 255 - MEAN) / STD
    targets = torch.from_numpy(labels)
    module = Digits()
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    for epoch in range(EPOCHS):
        total = 0.0
        for rows in torch.randperm(len(pixels)).split(ROWS):
            loss = functional.cross_entropy(module(pixels[rows])[0], targets[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += float(loss.detach()) * len(rows)
        schedule.step()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1:3} of {EPOCHS}: loss {total / len(pixels):.4f}", flush=True)
    return module


def write_reference(out: Path) -> float:
    """What the torch module says about the test images, in path order; returns its accuracy on them."""
    made = load(Path(__file__).with_name("recipe.py"), out)
    paths = sorted((out / "test").glob("*/*.png"))
    labels = np.array([int(path.parent.name) for path in paths])
    pixels = torch.from_numpy(inputs.decode(made.input.specs[0], [path.read_bytes() for path in paths]))
    logits = checkpoint.outputs(checkpoint.load(made), (pixels,))[0].numpy()
    relative = np.array([path.relative_to(out).as_posix() for path in paths])
    np.savez(out / "test-reference.npz", logits=logits, paths=relative, labels=labels)
    return float((logits.argmax(axis=1) == labels).mean())


if __name__ == "__main__":
    main()
