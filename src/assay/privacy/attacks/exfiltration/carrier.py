"""A network's parameters as one long row of numbers, in and out."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def carried(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that carry: every floating one, in the order in which the network names them."""
    return [p for p in model.parameters() if p.is_floating_point()]


def flat(model: nn.Module) -> Tensor:
    """All of them in one row ``[weights]``, differentiably."""
    return torch.cat([p.flatten() for p in carried(model)])


def values(model: nn.Module) -> NDArray[np.float64]:
    """The same as numbers: float64 ``[weights]``."""
    return flat(model).detach().cpu().double().numpy()


def rewrite(model: nn.Module, row: Tensor) -> None:
    """Sets the parameters to this row ``[weights]``, in place."""
    with torch.no_grad():
        for parameter, part in zip(carried(model), torch.split(row, [p.numel() for p in carried(model)])):
            parameter.copy_(part.reshape(parameter.shape))
