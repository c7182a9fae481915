"""A recipe for a graph that somebody else exported: SqueezeNet 1.1 with ImageNet weights (Iandola et al. 2016), in fp16.

``prepare`` lays out photographs of five fruits and vegetables that ImageNet has classes for. ``imagenet.txt`` names the
ILSVRC-2012 classes in the order of the logits.
"""

from pathlib import Path

from appliance.bundle.manifest import Label
from export.kinds import ImageInput
from export.recipe import OnnxFile, Recipe

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
FILE = SHARED / "squeezenet11_imagenet" / "SharedContent" / "models" / "SqueezeNet_fp16.onnx"
NAMES = Path(__file__).with_name("imagenet.txt").read_text().splitlines()
FOODS = {"Apple": "Granny Smith", "Banana": "banana", "Lemon": "lemon", "Orange": "orange", "Pepper": "bell pepper"}


def recipe(data: Path) -> Recipe:
    return Recipe(
        id="squeezenet-imagenet",
        version=1,
        intended_use="Names what a photograph shows, of 1,000 things. A test of the factory; not for any other use.",
        network=OnnxFile(file=FILE, logits="pool10_1", embedding="fire9/concat_1"),
        input=ImageInput(
            height=224,
            width=224,
            channels=3,
            order="BGR",
            resize="crop",
            mean=(104 / 255, 117 / 255, 123 / 255),
            std=(1 / 255, 1 / 255, 1 / 255),
        ),
        labels=tuple(Label(name, None) for name in NAMES),
        validation=data / "validation",
        error_among_accepted_max=0.3,
        precision="fp16",
        unknown=False,
        rows_max=8,
    )


def prepare(out: Path) -> int:
    """Lays out ``out/validation/<name>/``; returns how many photographs there are."""
    count = 0
    for food, name in FOODS.items():
        folder = out / "validation" / name
        folder.mkdir(parents=True)
        for path in sorted((SHARED / "grocery").glob(f"*/{food}/*")):
            (folder / f"{path.parts[-3]}-{path.name}").write_bytes(path.read_bytes())
            count += 1
    return count
