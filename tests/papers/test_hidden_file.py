"""A real file in a published network: every photo of a face database inside a classifier of digits."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from assay import targets
from assay.privacy import LowBits, QuantizeWeights, RandomizeLowBits, WeightScan

FACES = "datasets/att_faces/att_faces_28x23.npz"


@pytest.mark.slow
def test_a_face_database_comes_back_bit_exact_from_an_mnist_network_that_predicts_the_same(zoo):
    """238,507 bytes in the lowest 12 bits of 166,406 weights (Wong & Kolter's network), on all 10,000 test digits."""
    if not (zoo.ASSETS / FACES).exists():
        pytest.skip("the shared assets hold no AT&T faces")
    data = (zoo.ASSETS / FACES).read_bytes()
    honest, images, labels = zoo.wong_kolter()
    x, y = torch.as_tensor(images), torch.as_tensor(labels)
    model, attack = deepcopy(honest.model), LowBits(bits=12)
    attack.hide(data, model)
    leaking = targets.torch(model)

    def read(target: targets.TorchTarget) -> bytes:
        from assay.threats import ThreatModel

        return attack.decode(ThreatModel(access=attack.needs, budget="").grant(target, 1)).payload

    assert read(leaking) == data
    before, after = honest.labels(x), leaking.labels(x)
    assert len(y) == 10_000
    assert float((before == after).float().mean()) >= 0.999
    assert abs(float((before == y).float().mean()) - float((after == y).float().mean())) <= 5e-4
    for defense in (QuantizeWeights(bits=8), RandomizeLowBits(bits=12)):
        safe = defense.protect(leaking)
        matched = sum(a == b for a, b in zip(data, read(safe)))
        assert matched / len(data) < 0.006  # 1 in 256 by chance
        assert float((safe.labels(x) == before).float().mean()) >= 0.997  # 99.75 % after rounding, a grid a tensor
    assert WeightScan().scan(model).findings == ()  # under its key stream the file is noise, and nobody sees it
