"""A recipe for a classifier of images. Replace what is in capitals, then: python -m export build THIS_FILE --help

DATA is the folder given with --data, or this file's own:

    DATA/weights.safetensors            what was trained: safetensors, or a torch state dict
    DATA/validation/<label>/*.png       images the network was not trained on, PNG or JPEG: at least 100
    DATA/training/<label>/*.png         optional: then the report says what validation shares with it
    DATA/none_of_these/*.png            optional: images that it must not answer
"""

from pathlib import Path

from torch import Tensor, nn

from appliance.bundle.manifest import Code, Label
from export.kinds import ImageInput
from export.recipe import Recipe, Torch


class Network(nn.Module):
    """YOUR NETWORK, or an import of it. Float32 [N, 3, 224, 224] to logits [N, 2] and an embedding [N, 16].

    The embedding tells images of another kind; it may be left out, with unknown=False below.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 16, kernel_size=7, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(16, 2)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.features(pixels).flatten(1)
        return self.head(embedding), embedding


def recipe(data: Path) -> Recipe:
    return Recipe(
        id="model-name",  # THE MODEL'S NAME, 1 to 64 of a-z, 0-9 and -
        version=1,
        intended_use="WHAT IT IS FOR, FOR WHOM, AND WHAT IT IS NOT FOR.",  # callers are shown it
        network=Torch(module=Network, weights=data / "weights.safetensors"),
        input=ImageInput(
            height=224,
            width=224,
            channels=3,  # 1 is grey
            mean=(0.485, 0.456, 0.406),  # of pixels scaled to 0..1; do not normalise in the network too
            std=(0.229, 0.224, 0.225),
            resize="crop",  # or "stretch"; as in training
        ),
        # In the order of the logits. A code of a published system is what other programs of the hospital understand.
        labels=(
            Label("normal", Code("http://snomed.info/sct", "17621005")),
            Label("abnormal", Code("http://snomed.info/sct", "263654008")),
        ),
        validation=data / "validation",
        training=data / "training" if (data / "training").is_dir() else None,
        none_of_these=data / "none_of_these" if (data / "none_of_these").is_dir() else None,
        # The patient or study of an image, from its name below the folder, so that the report can say whether one stands on
        # both sides: group=lambda name: name.split("/")[1].split("_")[0],
        error_among_accepted_max=0.05,  # among answers that are accepted, with 95 % confidence
    )
