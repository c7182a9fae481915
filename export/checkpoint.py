"""The trained module: architecture and weights put together, in evaluation mode, with its preprocessing."""

import copy
import hashlib
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from export.errors import ConversionError, RecipeError
from export.recipe import Recipe


class Served(nn.Module):
    """What is exported: uint8 ``[N, height, width, channels]`` to logits, or to logits and embedding.

    Scaling and normalisation are inside, so that no client and no later release can do them differently.
    """

    def __init__(self, module: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.module = module
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Any:
        pixels = image.permute(0, 3, 1, 2).to(torch.float32) / 255
        return self.module((pixels - self.mean) / self.std)


def load(recipe: Recipe) -> Served:
    """The module with its weights, in evaluation mode.

    Raises:
        RecipeError: the weights cannot be read, or do not fit the module exactly.
        ConversionError: a part of the module stays in training mode, or the outputs are not of the right shapes.
    """
    state = _state(recipe)
    # A copy: the recipe's callable may hand out a module that somebody else goes on training.
    module = copy.deepcopy(recipe.module())
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"the weights do not fit the module: {reason[:300]}") from error
    served = Served(module, recipe.mean, recipe.std).eval()
    if any(part.training for part in served.modules()):
        raise ConversionError("A part of the module stays in training mode after eval().")
    _check_outputs(served, recipe)
    return served


def has_embedding(served: Served, recipe: Recipe) -> bool:
    """Whether the module returns an embedding beside its logits."""
    return len(outputs(served, example(recipe))) == 2


def example(recipe: Recipe) -> Tensor:
    """Five grey images. An example of one row would let torch export an output fixed at one row, silently."""
    return torch.full((5, recipe.height, recipe.width, recipe.channels), 128, dtype=torch.uint8)


def outputs(served: Served, images: Tensor) -> tuple[Tensor, ...]:
    """Logits, and the embedding where there is one, for uint8 images ``[N, height, width, channels]``."""
    with torch.inference_mode():
        result = served(images)
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def digest(recipe: Recipe) -> str:
    """Hex SHA-256 of the weights file, as it stands."""
    with recipe.weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state(recipe: Recipe) -> dict[str, Tensor]:
    """The state dict, its prefix stripped. Pickles are read with ``weights_only=True``: tensors, never code."""
    try:
        if recipe.weights.suffix == ".safetensors":
            state: Any = safetensors.torch.load_file(recipe.weights, device="cpu")
        else:
            state = torch.load(recipe.weights, map_location="cpu", weights_only=True)
    except Exception as error:  # three libraries read this file, each with errors of its own
        reason = (str(error).splitlines() or [""])[0]
        raise RecipeError(f"the weights cannot be read: {type(error).__name__}: {reason[:200]}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    prefix = recipe.weights_prefix
    if not isinstance(state, dict) or not all(str(key).startswith(prefix) for key in state):
        raise RecipeError(f"the weights are not a state dict whose keys begin with '{prefix}'")
    return {key.removeprefix(prefix): value for key, value in state.items()}


def _check_outputs(served: Served, recipe: Recipe) -> None:
    made = outputs(served, example(recipe))
    shapes = [tuple(tensor.shape) if isinstance(tensor, Tensor) else None for tensor in made]
    good = len(made) in (1, 2) and all(isinstance(t, Tensor) and t.dtype == torch.float32 for t in made)
    if not good or shapes[0] != (5, len(recipe.labels)) or any(s is None or len(s) != 2 or s[0] != 5 for s in shapes):
        raise ConversionError(
            f"The module must return float32 logits [N, {len(recipe.labels)}], or those and an embedding [N, width]; "
            f"for 5 images it returns {', '.join(map(str, shapes))}."
        )
