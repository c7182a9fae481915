"""The trained module: architecture and weights put together, in evaluation mode, with its preprocessing."""

import copy
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from appliance.model.inputs import Rows
from export.errors import ConversionError, RecipeError, told
from export.kinds import EXAMPLE_ROWS, ImageInput, TextInput
from export.recipe import Recipe, Torch
from export.session import Outputs


class ServedImages(nn.Module):
    """Uint8 ``[N, height, width, channels]`` to logits, or to logits and embedding.

    Scaling and normalisation are inside, so that no client and no later release can do them differently.
    """

    def __init__(self, module: nn.Module, kind: ImageInput) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.module, self.flip = module, kind.order == "BGR"
        self.register_buffer("mean", torch.tensor(kind.mean, dtype=torch.float32).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(kind.std, dtype=torch.float32).reshape(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Any:
        pixels = image.permute(0, 3, 1, 2).to(torch.float32) / 255
        if self.flip:
            pixels = pixels.flip(1)
        return self.module((pixels - self.mean) / self.std)


class ServedTensors(nn.Module):
    """The caller's tensors, as they are."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *tensors: Tensor) -> Any:
        return self.module(*tensors)


class ServedTexts(nn.Module):
    """Int64 ``[N, 1 + tokens]``, the length first, to logits, or to logits and embedding."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, text: Tensor) -> Any:
        return self.module(text[:, 1:], text[:, 0])


def load(recipe: Recipe) -> nn.Module:
    """The recipe's torch module with its weights and its preprocessing, in evaluation mode.

    Raises:
        RecipeError: the weights cannot be read, or do not fit the module exactly.
        ConversionError: a part of the module stays in training mode, or the outputs are not of the right shapes.
    """
    if not isinstance(recipe.network, Torch):
        raise TypeError("the recipe's network is not a torch module")
    try:
        # A copy: the recipe's callable may hand out a module that somebody else goes on training.
        module: object = copy.deepcopy(recipe.network.module())
    except Exception as error:  # it is anyone's code
        raise RecipeError(f"the module cannot be built: {told(error)}") from error
    if not isinstance(module, nn.Module):
        raise RecipeError(f"module gives a {type(module).__name__}, and not a torch module")
    try:
        module.load_state_dict(_state(recipe.network), strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"the weights do not fit the module: {reason[:300]}") from error
    served = _serve(module, recipe).eval()
    if any(part.training for part in served.modules()):
        raise ConversionError("A part of the module stays in training mode after eval().")
    _check_outputs(served, recipe)
    return served


def _serve(module: nn.Module, recipe: Recipe) -> nn.Module:
    match recipe.input:
        case ImageInput() as kind:
            return ServedImages(module, kind)
        case TextInput():
            return ServedTexts(module)
    return ServedTensors(module)


def has_embedding(served: nn.Module, recipe: Recipe) -> bool:
    """Whether the module returns an embedding beside its logits."""
    return len(outputs(served, example(recipe))) == 2


def example(recipe: Recipe) -> tuple[Tensor, ...]:
    """Five rows of each input."""
    return tensors(recipe.input.example())


def tensors(rows: Rows) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in rows)


def outputs(served: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Logits, and the embedding where there is one, for what the graph will be given."""
    with torch.inference_mode():
        result = served(*given)
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def reference(served: nn.Module, recipe: Recipe, rows: Rows) -> Outputs:
    """What torch answers. Texts are given one by one, each at its own length, with nothing past its end.

    Raises:
        ConversionError: the module cannot take a text of another length than the longest.
    """
    own: list[Rows]
    if isinstance(recipe.input, TextInput):
        own = [(row[None, : 1 + row[0]],) for row in rows[0]]
    else:
        own = [tuple(array[i : i + recipe.rows_max] for array in rows) for i in range(0, len(rows[0]), recipe.rows_max)]
    try:
        batches = [outputs(served, tensors(part)) for part in own]
    except Exception as error:  # it is anyone's code
        raise ConversionError(f"The module cannot answer the validation cases: {told(error)}") from error
    logits, *embedding = (torch.cat(made).numpy() for made in zip(*batches, strict=True))
    return Outputs(logits, embedding[0] if embedding else None)


def digest(file: Path) -> str:
    """Hex SHA-256 of the weights, or of the ONNX file, as it stands."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _state(network: Torch) -> dict[str, Tensor]:
    """The state dict, its prefix stripped. Pickles are read with ``weights_only=True``: tensors, never code."""
    try:
        if network.weights.suffix == ".safetensors":
            state: Any = safetensors.torch.load_file(network.weights, device="cpu")
        else:
            state = torch.load(network.weights, map_location="cpu", weights_only=True)
    except Exception as error:  # three libraries read this file, each with errors of its own
        raise RecipeError(f"the weights cannot be read: {told(error)}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    prefix = network.prefix
    if not isinstance(state, dict) or not all(isinstance(key, str) and key.startswith(prefix) for key in state):
        raise RecipeError(f"the weights are not a state dict whose keys begin with '{prefix}'")
    return {key.removeprefix(prefix): value for key, value in state.items()}


def _check_outputs(served: nn.Module, recipe: Recipe) -> None:
    try:
        made = outputs(served, example(recipe))
    except Exception as error:  # it is anyone's code
        raise ConversionError(f"The module does not take what its input's kind gives it: {told(error)}") from error
    rows = EXAMPLE_ROWS
    shapes = [tuple(tensor.shape) if isinstance(tensor, Tensor) else None for tensor in made]
    good = len(made) in (1, 2) and all(isinstance(t, Tensor) and t.dtype == torch.float32 for t in made)
    if not good or shapes[0] != (rows, len(recipe.labels)) or any(s is None or len(s) != 2 or s[0] != rows for s in shapes):
        raise ConversionError(
            f"The module must return float32 logits [N, {len(recipe.labels)}], or those and an embedding [N, width]; "
            f"for {rows} rows it returns {', '.join(map(str, shapes))}."
        )
