"""A text classifier: where somebody is, after a story (bAbI task 1, Weston et al. 2015). The question goes first.

    python -m tests.journeys.babi OUTDIR

trains it and writes ``reader.safetensors``, ``words.txt`` and ``validation.tsv`` for the recipe below. With ``masked`` false
the network reads past a text's end, as one does whose author forgot the padding.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from appliance.bundle.manifest import Label, TextSpec
from appliance.model import text
from export.kinds import TextInput, vocabulary
from export.recipe import Recipe, Torch

TASKS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "babi" / "tasks" / "en-10k"
PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
TOKENS_MAX, WORDS_MAX, SEED = 80, 64, 3
VALIDATION, WORDS, WEIGHTS = "validation.tsv", "words.txt", "reader.safetensors"


class Reader(nn.Module):
    """Int64 tokens ``[N, length]`` and lengths ``[N]`` to logits ``[N, 6]`` and an embedding ``[N, 64]``."""

    masked = True

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS_MAX + 2, 32, padding_idx=0)
        self.read = nn.GRU(32, 64, batch_first=True)
        self.head = nn.Linear(64, len(PLACES))

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        states, last = self.read(self.embed(tokens))
        if self.masked:
            state = states.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, 64)).squeeze(1)
        else:
            state = last.squeeze(0)
        return self.head(state), state


class Careless(Reader):
    masked = False


def stories(file: Path) -> Iterator[tuple[str, str]]:
    """Each question, with the story so far behind it, and its answer."""
    story: list[str] = []
    for line in file.read_text().splitlines():
        number, said = line.split(" ", 1)
        if number == "1":
            story = []
        if "\t" not in said:
            story.append(said)
            continue
        question, answer, _ = said.split("\t")
        yield " ".join([question.strip(), *story]), answer


def recipe(data: Path, module: type[Reader] = Reader) -> Recipe:
    return Recipe(
        id="babi-reader",
        version=1,
        intended_use="Says where somebody is, after a story of ten sentences at most. A test; not for any other use.",
        network=Torch(module=module, weights=data / WEIGHTS),
        input=TextInput(words=tuple((data / WORDS).read_text().split()), tokens_max=TOKENS_MAX, bytes_max=2_000),
        labels=tuple(Label(place, None) for place in PLACES),
        validation=data / VALIDATION,
        error_among_accepted_max=0.05,
    )


def train(out: Path, epochs: int = 6) -> float:
    """Writes what the recipe needs; returns the accuracy on the published test questions."""
    told = list(stories(TASKS / "qa1_single-supporting-fact_train.txt"))
    train, validation = told[:-600], told[-600:]
    words = vocabulary(said for said, _ in train)
    (out / WORDS).write_text("\n".join(words))
    rows = [f"{answer}\t{said}" for said, answer in validation]
    (out / VALIDATION).write_text("\n".join(["label\ttext", *rows]) + "\n")
    given, answers = tensors(words, train)
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # small steps: threads that wait for each other take longer than one that works
    reader = Reader()
    optimiser = torch.optim.Adam(reader.parameters(), lr=5e-3)
    for _ in range(epochs):
        for chosen in torch.randperm(len(given)).split(100):
            loss = functional.cross_entropy(reader(given[chosen, 1:], given[chosen, 0])[0], answers[chosen])
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
            optimiser.step()
    safetensors.torch.save_file(reader.state_dict(), out / WEIGHTS)
    given, answers = tensors(words, list(stories(TASKS / "qa1_single-supporting-fact_test.txt")))
    with torch.inference_mode():
        return float((reader(given[:, 1:], given[:, 0])[0].argmax(1) == answers).float().mean())


def tensors(words: tuple[str, ...], told: list[tuple[str, str]]) -> tuple[Tensor, Tensor]:
    spec = TextSpec("folded", 2_000, words)
    given = text.tokens(spec, TOKENS_MAX, [said.encode() for said, _ in told])
    return torch.from_numpy(given), torch.tensor([PLACES.index(answer) for _, answer in told])


if __name__ == "__main__":
    print(f"accuracy on the test questions: {train(Path(sys.argv[1])):.3f}")
