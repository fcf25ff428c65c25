"""Private training on top of features that do not depend on the private data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assay.privacy.private import Init, Private, Trainer


def fit_on_features(
    trainer: Trainer, features: nn.Module, head: Init, x: Tensor, y: Tensor, *, seed: int, rows: int = 512
) -> Private:
    """Trains ``head`` privately on ``features(x)``, computed once, and returns both as one module.

    The features of one example must depend on nothing else; they are kept in half precision, whose rounding is a part
    of them and costs no privacy.
    """
    with torch.no_grad():
        seen = torch.cat([features(part).half() for part in torch.split(x, rows)])
    trained = trainer.fit(head, seen, y, seed=seed)
    return Private(module=nn.Sequential(features, trained.module).eval(), mechanism=trained.mechanism, n=trained.n)
