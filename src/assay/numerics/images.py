"""How alike two images are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def psnr(a: Tensor, b: Tensor, peak: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio in decibels, ``[n]``; infinite where the images are equal."""
    error = (a.double() - b.double()).flatten(1).square().mean(1)
    return 10 * torch.log10(peak**2 / error)


def ssim(a: Tensor, b: Tensor, peak: float = 1.0) -> Tensor:
    """Structural similarity of images ``[n, c, h, w]``, −1 to 1: ``[n]``.

    Source: Wang, Bovik, Sheikh & Simoncelli, TIP 2004, with a uniform window of 7 × 7, or the image where it is less.
    """
    a, b = a.double(), b.double()
    size = [min(7, side) for side in a.shape[-2:]]
    mean = [F.avg_pool2d(part, size, stride=1) for part in (a, b, a * a, b * b, a * b)]
    weight = size[0] * size[1] / max(size[0] * size[1] - 1, 1)  # the unbiased covariance
    va, vb, cov = (weight * (mean[k] - mean[i] * mean[j]) for k, i, j in ((2, 0, 0), (3, 1, 1), (4, 0, 1)))
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    luminance = (2 * mean[0] * mean[1] + c1) / (mean[0] ** 2 + mean[1] ** 2 + c1)
    return (luminance * (2 * cov + c2) / (va + vb + c2)).flatten(1).mean(1)


def total_variation(x: Tensor) -> Tensor:
    """The mean absolute difference of neighboring pixels, images ``[n, c, h, w]``: ``[n]``, differentiable."""
    down, across = (x[..., 1:, :] - x[..., :-1, :]).abs(), (x[..., :, 1:] - x[..., :, :-1]).abs()
    return down.flatten(1).mean(1) + across.flatten(1).mean(1)
