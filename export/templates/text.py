"""A recipe for a classifier of texts. Replace what is in capitals, then: python -m export build THIS_FILE --help

DATA is the folder given with --data, or this file's own:

    DATA/weights.safetensors     what was trained: safetensors, or a torch state dict
    DATA/words.txt               the vocabulary, a word a line, the first of which has the number 2. Make it with
                                 export.kinds.vocabulary(texts, seen_min=5): it is public, and a rare word may be a name
    DATA/validation.tsv          first line "label<tab>text", or "label<tab>text<tab>group". At least 100 texts
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from appliance.bundle.manifest import Label
from export.kinds import TextInput
from export.recipe import Recipe, Torch


class Network(nn.Module):
    """YOUR NETWORK, or an import of it. Int64 tokens [N, tokens], 0 past a text's end, and lengths [N], to logits [N, 2] and
    an embedding [N, 16], which may be left out, with unknown=False below.

    It must mask by the lengths: an answer that depends on what stands past a text's end is refused.
    """

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words + 2, 16)  # 0 where there is no word, 1 for a word that the vocabulary lacks
        self.head = nn.Linear(16, 2)

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        there = torch.arange(tokens.shape[1]) < lengths.unsqueeze(1)
        embedding = (self.embed(tokens) * there.unsqueeze(2)).sum(dim=1) / lengths.unsqueeze(1)
        return self.head(embedding), embedding


def recipe(data: Path) -> Recipe:
    words = tuple((data / "words.txt").read_text(encoding="utf-8").splitlines())
    return Recipe(
        id="model-name",  # THE MODEL'S NAME, 1 to 64 of a-z, 0-9 and -
        version=1,
        intended_use="WHAT IT IS FOR, FOR WHOM, AND WHAT IT IS NOT FOR.",  # callers are shown it
        network=Torch(module=lambda: Network(len(words)), weights=data / "weights.safetensors"),
        input=TextInput(words=words, tokens_max=256, case="folded"),  # a longer text is refused, never cut off
        labels=(Label("normal", None), Label("abnormal", None)),  # in the order of the logits
        validation=data / "validation.tsv",
        error_among_accepted_max=0.05,  # among answers that are accepted, with 95 % confidence
    )
