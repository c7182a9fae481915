"""A recipe for a graph that was exported already. Replace what is in capitals, then: python -m export build THIS_FILE --help

DATA is the folder given with --data, or this file's own:

    DATA/network.onnx                   one input of FP32 or FP16, [rows, channels, height, width]
    DATA/validation/<label>/*.png       images the network was not trained on, PNG or JPEG: at least 100
"""

from pathlib import Path

from appliance.bundle.manifest import Label
from export.kinds import ImageInput
from export.recipe import OnnxFile, Recipe


def recipe(data: Path) -> Recipe:
    return Recipe(
        id="model-name",  # THE MODEL'S NAME, 1 to 64 of a-z, 0-9 and -
        version=1,
        intended_use="WHAT IT IS FOR, FOR WHOM, AND WHAT IT IS NOT FOR.",  # callers are shown it
        network=OnnxFile(
            file=data / "network.onnx",
            logits="LOGITS",  # the tensor that goes into the softmax
            embedding="FEATURES",  # the last layer before it, to tell images of another kind; None with unknown=False
        ),
        input=ImageInput(
            height=224,
            width=224,
            channels=3,
            order="RGB",  # or "BGR", as in training
            mean=(0.485, 0.456, 0.406),  # of pixels scaled to 0..1
            std=(0.229, 0.224, 0.225),
            resize="crop",  # or "stretch"
        ),
        labels=(Label("normal", None), Label("abnormal", None)),  # in the order of the logits
        validation=data / "validation",
        error_among_accepted_max=0.05,  # among answers that are accepted, with 95 % confidence
        precision="fp32",  # "fp16" where the file is
    )
