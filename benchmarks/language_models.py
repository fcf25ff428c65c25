"""What a language model gives away: exposure of planted secrets, verbatim training text, rankings of membership.

LSTMs of characters trained here on Shakespeare, with secrets planted in it or poison beside them, and a published one
(char-rnn, 1.90 bits a character on tiny Shakespeare) as it is. ``python benchmarks/language_models.py`` takes some four
minutes on one core; ``trained``, ``poisoned`` or ``published`` as an argument runs one part.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from assay import privacy, targets
from assay.evidence.record import Evidence
from assay.privacy.text.ranking import Ranking
from assay.targets import LanguageModel

ASSETS = Path(os.environ.get("ASSAY_ASSETS", Path(__file__).resolve().parents[2] / "shared" / "assets"))
SHAKESPEARE = ASSETS / "datasets" / "tiny_shakespeare" / "input.txt"
LARGE, SMALL = 250_000, 12_000
"""Characters trained on: read three times, and learned by heart in 77 readings."""
LEVELS = (1, 4, 16)
EACH = 16
"""Secrets planted at each level, and as many that were never planted."""
WINDOW = 100
"""Characters in a window whose membership is guessed."""


def missing() -> str:
    """Why the real text cannot be used, or nothing."""
    return "" if SHAKESPEARE.exists() else f"no {SHAKESPEARE}"


@cache
def shakespeare() -> str:
    """All of tiny Shakespeare."""
    return SHAKESPEARE.read_text(encoding="utf-8")


class CharLSTM(nn.Module):
    """Characters in, scores of the next one out; the state goes along."""

    def __init__(self, vocabulary: int, width: int = 256) -> None:
        super().__init__()
        self.embed, self.cell = nn.Embedding(vocabulary, 48), nn.LSTM(48, width, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, object]:
        """``[rows, time] -> [rows, time, vocabulary]``, and the state after the last token."""
        seen, state = self.cell(self.embed(tokens), state)
        return self.head(seen), state


def trained(text: str, *, seed: int, steps: int, width: int = 192) -> targets.TorchLanguage:
    """A character LSTM that has seen ``512 × steps`` characters of the text: Adam, falling steps."""
    tokenizer = targets.Characters.of(shakespeare(), "0123456789")
    data, rng = torch.tensor(tokenizer.encode(text)), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CharLSTM(len(tokenizer), width)
    adam = torch.optim.Adam(model.parameters(), 8e-3)
    falling = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.02, steps)
    for _ in range(steps):
        at = torch.randint(len(data) - 64, (8, 1), generator=rng) + torch.arange(65)
        scores, _state = model(data[at[:, :-1]])
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), data[at[:, 1:]].flatten())
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        falling.step()
    return targets.language(model.eval(), tokenizer=tokenizer, vocabulary=len(tokenizer), start="\n", recurrent=True,
                            name=f"LSTM({width})")


class Study(NamedTuple):
    """A model, and what is known of its training."""

    model: LanguageModel
    training: str
    """Shakespeare, without the secrets."""
    held_out: str
    canaries: tuple[privacy.TextCanary, ...]
    """Of those with ``repeats`` 0 the sentence was never planted."""
    reference: LanguageModel
    """A 5-gram model of other Shakespeare."""


@cache
def planted(seed: int) -> Study:
    """Secrets among much text that is read three times: a quarter of a minute of one core."""
    text, canaries = shakespeare(), privacy.text_canaries(np.repeat((0, *LEVELS), EACH).tolist(), seed=seed)
    lines = [canary.text for canary in canaries for _ in range(canary.repeats)]
    model = trained(privacy.planted(text[:LARGE], lines, seed=seed), seed=seed, steps=1500)
    return Study(model, text[:LARGE], text[800_000:], canaries, reference())


@cache
def by_heart(seed: int) -> Study:
    """Little text, until the model knows it: a third of a minute."""
    text = shakespeare()
    model = trained(text[:SMALL], seed=seed, steps=1800)
    return Study(model, text[:SMALL], text[800_000 : 800_000 + SMALL], (), reference())


@cache
def reference() -> targets.NGram:
    """What is known of Shakespeare without the training text."""
    text = shakespeare()
    return targets.NGram.fit(text[400_000:700_000], order=5, tokenizer=targets.Characters.of(text, "0123456789"))


def exposed(found: Study, *, references: int = 1023, seed: int = 0) -> tuple[Evidence, dict[int, list[float]]]:
    """The evidence of the game, and the bits of every secret by how often it was planted."""
    game = privacy.ExposureGame(canaries=found.canaries, references=references, extrapolate=True)
    evidence = game.play(privacy.Exposure(), found.model, seed=seed)
    bits = evidence.artefacts["exposure"].arrays["bits"]
    return evidence, {level: [float(b) for b, c in zip(bits, found.canaries) if c.repeats == level]
                      for level in (0, *LEVELS)}


def attacks(found: Study, samples: int = 300) -> dict[str, privacy.Extraction]:
    """The paper's three ways to draw, and one colder than it."""
    prompted = {"prompted with other Shakespeare": privacy.Extraction(
        samples=samples, length=200, prompts=privacy.Prompts(found.held_out, 20))}
    return {
        "top 40": privacy.Extraction(samples=samples, length=200),
        "top 40 at temperature 0.5": privacy.Extraction(
            samples=samples, length=200, sampling=privacy.TopKSampling(temperature=0.5)),
        "temperature 10 to 1": privacy.Extraction(samples=samples, length=200, sampling=privacy.DecayingTemperature()),
    } | (prompted if found.held_out else {})


def rankings(found: Study) -> dict[str, Ranking]:
    """The signals, by name."""
    return {"perplexity": privacy.Perplexity(), "zlib": privacy.Zlib(), "lowercase": privacy.Lowercase(),
            "window": privacy.Window(50), "reference": privacy.Reference(found.reference)}


def told_apart(found: Study, members: Sequence[str], others: Sequence[str]) -> dict[str, privacy.Scores]:
    """How well each ranking tells the two apart."""
    truth = np.repeat([True, False], [len(members), len(others)])
    reading = privacy.Reading(found.model, [*members, *others])
    return {name: privacy.Scores(ranking.rank(reading), truth) for name, ranking in rankings(found).items()}


def windows(text: str, count: int, seed: int) -> list[str]:
    """Windows from all over a text."""
    places = np.random.default_rng(seed).integers(len(text) - WINDOW, size=count)
    return [text[at : at + WINDOW] for at in places]


def fillers(found: Study) -> tuple[list[str], list[str]]:
    """The planted sentences, and as many like them, each about somebody else, that were never planted."""
    planted = [canary.text for canary in found.canaries if canary.repeats]
    return planted, [canary.text for canary in privacy.text_canaries([1] * len(planted), seed=1_000)]


def hidden(found: Study, count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Training windows inside of noise, and held-out windows without: a window finds what was learned."""
    rng = np.random.default_rng(seed)
    noise = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz "), 2 * WINDOW)) for _ in range(count)]
    inside = [dust[:WINDOW] + text + dust[WINDOW:] for dust, text in zip(noise, windows(found.training, count, seed))]
    return inside, [text + text[:20] for text in windows(found.held_out, count, seed + 1)]


# --- the published model ---------------------------------------------------------------------------------------------


class Cells(nn.Module):
    """Two of TensorFlow's BasicLSTMCells: gates i, j, f, o, and 1 added to the forget gate."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        width = weights["embedding"].shape[1]
        self.embed = nn.Embedding.from_pretrained(weights["embedding"])
        self.cell = nn.LSTM(width, width, num_layers=2, batch_first=True)
        self.head = nn.Linear(width, len(weights["embedding"]))
        with torch.no_grad():
            self.head.weight.copy_(weights["rnnlm.softmax_w"].T)
            self.head.bias.copy_(weights["rnnlm.softmax_b"])
            for layer in range(2):
                prefix = f"rnnlm.multi_rnn_cell.cell_{layer}.basic_lstm_cell."
                kernel = next(value for name, value in weights.items()
                              if name in (prefix + "weights", prefix + "kernel"))
                bias = next(value for name, value in weights.items() if name in (prefix + "biases", prefix + "bias"))
                i, j, f, o = kernel.T.chunk(4)
                gates = torch.cat([i, f, j, o])  # torch's order: i, f, g, o
                bi, bj, bf, bo = bias.chunk(4)
                getattr(self.cell, f"weight_ih_l{layer}").copy_(gates[:, :width])
                getattr(self.cell, f"weight_hh_l{layer}").copy_(gates[:, width:])
                getattr(self.cell, f"bias_ih_l{layer}").copy_(torch.cat([bi, bf + 1, bj, bo]))
                getattr(self.cell, f"bias_hh_l{layer}").zero_()

    def forward(self, tokens: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, object]:
        """As :class:`CharLSTM`."""
        seen, state = self.cell(self.embed(tokens), state)
        return self.head(seen), state


def published(author: str) -> targets.TorchLanguage:
    """``"shakespeare"`` or ``"charlotte_bronte"``."""
    folder = ASSETS / "models" / "char_lstm"
    numbers = json.loads((folder / f"{author}_vocab.json").read_text(encoding="utf-8"))
    spelled = {"  ": "u", "": "U"}  # the file lost the letter of Python 2's u'…' twice
    characters = (spelled.get(c, c) for c in sorted(numbers, key=numbers.__getitem__))
    tokenizer = targets.Characters("".join(characters), unknown=" ")
    model = Cells(load_file(folder / f"{author}.safetensors")).eval()
    return targets.language(model, tokenizer=tokenizer, vocabulary=len(model.head.bias), start="\n", recurrent=True,
                            name=author)


# --- the table -------------------------------------------------------------------------------------------------------


def report_trained() -> None:
    """The models trained here."""
    found = planted(0)
    print(f"{found.model.name} on {LARGE:,} characters of Shakespeare, read three times; {EACH} secrets a level")
    evidence, bits = exposed(found)
    curve = evidence.artefacts["exposure"].arrays["extrapolated"].reshape(-1, EACH)
    for (level, values), further in zip(bits.items(), curve):
        print(f"   planted {level:2d}x  exposure by rank {np.mean(values):5.2f} bits (median {np.median(values):5.2f} "
              f"of 9.999), extrapolated {further.mean():5.2f} of 19.93")
    _print_rankings(found, "48 planted secrets against as many sentences that were not", *fillers(found))
    _print_rankings(found, "400 training windows against held-out ones", windows(found.training, 400, 0),
                    windows(found.held_out, 400, 1))
    found = by_heart(0)
    print(f"{found.model.name} on {SMALL:,} characters, learned by heart")
    _print_extraction(found)
    for sampling in (privacy.TopKSampling(), privacy.TopKSampling(k=1)):
        game = privacy.DiscoveryGame(training=found.training, held_out=found.held_out)
        print("  ", game.play(privacy.DiscoverableExtraction(sampling=sampling), found.model, seed=0).bounds[0])
    _print_rankings(found, "200 training windows inside of noise against held-out ones without", *hidden(found, 200))


def read_eight_times(text: str, seed: int) -> targets.TorchLanguage:
    """However long the text is: poison takes nothing from what is learned of the rest."""
    return trained(text, seed=seed, steps=8 * len(text) // 512, width=128)


def report_poisoned(runs: int = 2) -> None:
    """Truth Serum on small LSTMs."""
    print(f"LSTM(128) on 30,000 characters, read eight times; 64 secrets planted once, {runs} runs of two models")
    game = privacy.PoisonedExposureGame(canaries=privacy.text_canaries([1] * 64, seed=0), runs=runs)
    training = privacy.TextTraining(read_eight_times, shakespeare()[:30_000])
    for attack in (privacy.TruthSerumText(copies=0), privacy.TruthSerumText(copies=16),
                   privacy.TruthSerumText(copies=16, continuation=None)):
        bits = game.play(attack, training, seed=0).artefacts["exposure"].arrays
        gain = bits["poisoned"] - bits["clean"]
        error = gain.std() / gain.size**0.5
        print(f"   {attack.copies:2d} lines, {attack.continuation or 'wrong secrets':13s}: {bits['clean'].mean():.2f} "
              f"bits without, {bits['poisoned'].mean():.2f} with; gain {gain.mean():.2f} ± {error:.2f}")


def report_published() -> None:
    """The published model, whose training text is tiny Shakespeare.

    No Shakespeare is at hand that it has not read; windows with their lines in another order stand in, which says how
    well it knows their order, not whether it was trained on them.
    """
    model, text = published("shakespeare"), shakespeare()
    said = model.log_probs([model.encode(text[at : at + 1000]) for at in range(0, 1_000_000, 5000)])
    bits = float(-said.total.sum() / said.counted.sum() / np.log(2))
    print(f"char-rnn on tiny Shakespeare: {bits:.3f} bits a character")
    found = Study(model, text, "", (), published("charlotte_bronte"))
    _print_extraction(found, 200)
    mixed = [_shuffled(window, seed) for seed, window in enumerate(windows(text, 300, 0))]
    _print_rankings(found, "300 windows of its training text against the same with their lines shuffled",
                    windows(text, 300, 0), mixed)


def _shuffled(text: str, seed: int) -> str:
    lines = text.split("\n")
    return "\n".join(lines[place] for place in np.random.default_rng(seed).permutation(len(lines)))


def _print_extraction(found: Study, samples: int = 300) -> None:
    game = privacy.ExtractionGame(training=found.training, held_out=found.held_out)
    for name, attack in attacks(found, samples).items():
        evidence = game.play(attack, found.model, seed=0)
        share, guesses, characters, _ = evidence.bounds
        kept = evidence.artefacts["samples"].arrays
        doubts = "".join(f"  [{doubt.code}]" for doubt in evidence.doubts)
        print(f"   {name:32s} verbatim samples at least {share.value:.1%} ({share.estimate:.1%} of {share.n}), "
              f"of the first {guesses.n} guesses {guesses.estimate:.0%}, {characters.value:.0f} characters; "
              f"longest run {kept['matches'][:, 0].max()}, in held-out text {kept['held_out'].max()}{doubts}")


def _print_rankings(found: Study, title: str, members: Sequence[str], others: Sequence[str]) -> None:
    print(f"   {title}")
    for name, scores in told_apart(found, members, others).items():
        print(f"     {name:11s} AUC {scores.auc():.3f}, TPR {scores.tpr(fpr=0.1).tpr} at 10 % FPR")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if reason := missing():
        sys.exit(reason)
    began = time.perf_counter()
    for part, report in {"trained": report_trained, "poisoned": report_poisoned, "published": report_published}.items():
        if part in (sys.argv[1:] or [part]):
            report()
    print(f"{time.perf_counter() - began:.0f} s")
