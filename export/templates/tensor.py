"""A recipe for a classifier of numbers. Replace what is in capitals, then: python -m export build THIS_FILE --help

DATA is the folder given with --data, or this file's own:

    DATA/weights.safetensors     what was trained: safetensors, or a torch state dict
    DATA/validation.npz          an array [cases, ...] for each input below, and "labels", the number of each case's label;
                                 "groups", texts, if cases of one patient are to be kept together. At least 100 cases
"""

from pathlib import Path

import torch
from torch import nn

from appliance.bundle.manifest import Label
from export.kinds import Tensor, TensorInput
from export.recipe import Recipe, Torch


class Network(nn.Module):
    """YOUR NETWORK, or an import of it. It is given the inputs below in their order, as callers send them: scale them here.

    Logits [N, 2] and an embedding [N, 16], which may be left out, with unknown=False below.
    """

    def __init__(self) -> None:
        super().__init__()
        self.normal = nn.BatchNorm1d(5)  # holds the mean and the deviation of the training cases
        self.hidden = nn.Linear(5, 16)
        self.head = nn.Linear(16, 2)

    def forward(self, age: torch.Tensor, laboratory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        embedding = torch.relu(self.hidden(self.normal(torch.cat([age[:, None], laboratory], dim=1))))
        return self.head(embedding), embedding


def recipe(data: Path) -> Recipe:
    return Recipe(
        id="model-name",  # THE MODEL'S NAME, 1 to 64 of a-z, 0-9 and -
        version=1,
        intended_use="WHAT IT IS FOR, FOR WHOM, AND WHAT IT IS NOT FOR.",  # callers are shown it
        network=Torch(module=Network, weights=data / "weights.safetensors"),
        # The datatype, by the Open Inference Protocol's name, and the shape of one case.
        input=TensorInput({"age": Tensor("FP32", ()), "laboratory": Tensor("FP32", (4,))}),
        labels=(Label("normal", None), Label("abnormal", None)),  # in the order of the logits
        validation=data / "validation.npz",
        error_among_accepted_max=0.05,  # among answers that are accepted, with 95 % confidence
    )
