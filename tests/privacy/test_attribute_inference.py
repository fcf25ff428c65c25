"""Hidden fields: found where a model has learned records by heart, and nothing found that imputation finds too."""

from __future__ import annotations

import csv
import os
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, multinomial
from torch import nn

from assay import targets
from assay.errors import DataError
from assay.privacy import CSMIA, Attribute, AttributeGame, Imputation, Pipeline, PriorTimesConfidence
from assay.privacy.games.attribute_inference import paired_lower

ADULT = Path(os.environ.get("ASSAY_ASSETS", "../shared/assets")) / "datasets" / "adult" / "adult.csv"
needs_adult = pytest.mark.skipif(not ADULT.exists(), reason="the shared assets hold no Adult")


# --- a model that has learned its records by heart: everything is known ------------------------------------------------


class ByHeart(nn.Module):
    """Votes of the records it was given, each as strong as it is near."""

    def __init__(self, x, y, classes=4):
        super().__init__()
        self.register_buffer("x", x)
        self.register_buffer("votes", torch.eye(classes)[y])

    def forward(self, x):
        near = torch.exp(4.0 * (x @ self.x.T - 21))  # 1 for the record itself, 0.02 with the other value
        return torch.log(near @ self.votes + 0.05)


@cache
def noise(n: int = 300, more: int = 1000):
    """Records of 20 random signs, a hidden field and a label that nothing else tells."""
    rng = torch.Generator().manual_seed(0)
    rest = torch.randint(0, 2, (n + more, 20), generator=rng) * 2.0 - 1
    field = torch.eye(2)[torch.randint(0, 2, (n + more,), generator=rng)]
    y = torch.randint(0, 4, (n + more,), generator=rng)
    return torch.cat([rest, field], 1), y


def game(members: bool) -> tuple[AttributeGame, targets.TorchTarget]:
    x, y = noise()
    net = targets.torch(ByHeart(x[:300], y[:300]))
    asked = slice(0, 300) if members else slice(300, 600)
    return AttributeGame(x[asked], y[asked], Attribute(columns=(20, 21)), (x[600:], y[600:])), net


def bounds(e):
    return {(b.quantity, b.side): b for b in e.bounds}


@pytest.mark.parametrize("attack", [CSMIA(), PriorTimesConfidence(impute=False)])
def test_what_was_learned_by_heart_is_found(attack):
    played, net = game(members=True)
    e = played.play(attack, net, seed=0)
    assert e["attributes inferred"].estimate == 1
    imputed = bounds(e)["attributes imputed without the model", "at least"]
    assert 0.4 < imputed.estimate < 0.6
    assert e["advantage over imputation"].value > 0.35
    assert e.cost.queries == 600


@pytest.mark.parametrize("attack", [CSMIA(), PriorTimesConfidence(impute=False), PriorTimesConfidence(), Imputation()])
def test_nothing_is_found_of_records_that_it_never_saw(attack):
    played, net = game(members=False)
    e = played.play(attack, net, seed=0)
    assert e["advantage over imputation"].value <= 0
    assert e["disagreements with imputation won"].value <= 0.5


def test_imputation_has_no_advantage_over_itself_and_asks_nothing():
    played, net = game(members=True)
    e = played.play(Imputation(), net, seed=0)
    assert e["advantage over imputation"].estimate == 0
    assert e.cost.queries == 0


def test_the_field_never_reaches_the_attack():
    played, _ = game(members=True)
    assert torch.equal(played.dossier.x[:, 20:], torch.tensor([1.0, 0.0]).expand(300, 2))
    assert torch.equal(played.dossier.x[:, :20], played.x[:, :20])


@pytest.mark.parametrize(("won", "lost"), [(0.1, 0.05), (0.05, 0.1), (0.02, 0.02), (0.3, 0.0)])
def test_the_bound_on_the_advantage_keeps_its_confidence(won, lost):
    draws = multinomial(200, [won, lost, 1 - won - lost]).rvs(2000, random_state=0)
    covered = sum(paired_lower(int(w), int(c), 200, 0.95) <= won - lost for w, c, _ in draws)
    assert covered >= 0.95 * 2000 - 3 * (2000 * 0.95 * 0.05) ** 0.5


def test_disagreements_are_mcnemar_s():
    played, net = game(members=True)
    e = played.play(CSMIA(), net, seed=0)
    bound = bounds(e)["disagreements with imputation won", "at least"]
    won = round(bound.estimate * bound.n)
    assert bound.value == pytest.approx(binomtest(won, bound.n).proportion_ci(0.90).low)


def test_fields_in_one_column_and_values_that_are_none():
    attribute = Attribute(columns=(1,), values=((0.0,), (0.5,), (1.0,)))
    x = torch.tensor([[7.0, 0.5], [8.0, 1.0]])
    assert attribute.read(x).tolist() == [1, 2]
    assert attribute.written(x, 0).tolist() == [[7.0, 0.0], [8.0, 0.0]]
    with pytest.raises(DataError, match="PRV640"):
        attribute.read(x + 0.1)
    with pytest.raises(DataError, match="PRV641"):
        AttributeGame(x, torch.tensor([0, 1]), attribute, (x, torch.tensor([0, 1])))


# --- Adult -------------------------------------------------------------------------------------------------------------


@cache
def adult():
    """Income from five numbers, work, occupation, race and sex, and the marital status in three values, hidden."""
    with ADULT.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    numbers = np.array([[float(row[k]) for k in ("age", "education-num", "capital-gain", "capital-loss",
                                                 "hours-per-week")] for row in rows], np.float32)
    numbers[:, 2:4] = np.log1p(numbers[:, 2:4])
    parts = [(numbers - numbers.mean(0)) / numbers.std(0) / 6]
    for key in ("workclass", "occupation", "race", "sex"):
        known = sorted({row[key] for row in rows})
        parts.append(np.eye(len(known), dtype=np.float32)[[known.index(row[key]) for row in rows]])
    status = [0 if r["marital-status"].startswith("Married") else 1 if r["marital-status"] == "Never-married" else 2
              for r in rows]
    first = sum(part.shape[1] for part in parts)
    x = torch.as_tensor(np.concatenate([*parts, np.eye(3, dtype=np.float32)[status]], 1))
    y = torch.as_tensor([int(r["income-per-year"].startswith(">")) for r in rows])
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    return x[order], y[order], Attribute(columns=tuple(range(first, first + 3)))


@cache
def network(epochs: int):
    x, y, _ = adult()

    def init(seed):
        torch.manual_seed(seed)
        sizes = (x.shape[1], 256, 256)
        layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*layers, nn.Linear(256, 2))

    decay = 0.0 if epochs > 50 else 1e-3
    return targets.torch(Pipeline(init=init, x=x[:2000], y=y[:2000], epochs=epochs, batch=100, rate=2e-3,
                                  decay=decay).train(0))


@cache
def asked(members: bool) -> AttributeGame:
    x, y, attribute = adult()
    rows = slice(0, 2000) if members else slice(2000, 4000)
    return AttributeGame(x[rows], y[rows], attribute, (x[4000:14000], y[4000:14000]))


@pytest.mark.slow
@needs_adult
def test_an_overfitted_model_leaks_its_members_and_nobody_else():
    """Jayaraman & Evans: beyond imputation, attribute inference is memorization. 74 to 29 here, members alone."""
    e = asked(members=True).play(PriorTimesConfidence(), network(150), seed=0)
    assert e["advantage over imputation"].value > 0
    assert e["disagreements with imputation won"].value > 0.6
    other = asked(members=False).play(PriorTimesConfidence(), network(150), seed=0)
    assert other["advantage over imputation"].value <= 0


@pytest.mark.slow
@needs_adult
def test_an_ordinary_model_leaks_nothing_that_imputation_does_not_know():
    for members in (True, False):
        e = asked(members).play(PriorTimesConfidence(), network(10), seed=0)
        assert e["advantage over imputation"].value <= 0
        plain = asked(members).play(CSMIA(), network(10), seed=0)
        imputed = bounds(plain)["attributes imputed without the model", "at least"]
        assert plain["attributes inferred"].estimate < imputed.estimate - 0.15  # half of the records: it looks like much
