"""What the tests of attacks share."""

from __future__ import annotations

import pytest
from linear_models import Linear, linear


@pytest.fixture(params=[(3, 8, 8), (12,), (1, 6, 10)], ids=["image", "flat", "oblong"])
def model(request) -> Linear:
    """A linear model on images, vectors, and pictures that are not square."""
    return linear(request.param)
