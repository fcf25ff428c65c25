"""Third-party networks and data whose figures are published; they lie outside the repository and are never copied."""

from __future__ import annotations

import gzip
import os
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from assay import targets

ASSETS = Path(os.environ.get("ASSAY_ASSETS", Path(__file__).resolve().parents[2] / "shared" / "assets"))
"""``ASSAY_ASSETS``, or ``shared/assets`` beside the repository."""

Examples = tuple[NDArray[np.float32], NDArray[np.int64]]
Loaded = tuple[targets.TorchTarget, NDArray[np.float32], NDArray[np.int64]]


def missing() -> str:
    """Why nothing here can be loaded; empty where it can."""
    return "" if ASSETS.is_dir() else "no published models: ../shared/assets is absent and ASSAY_ASSETS is not set"


class Block(nn.Module):
    """Two convolutions and what goes around them."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(inner, outer, 3, stride, 1), nn.Conv2d(outer, outer, 3, 1, 1)
        self.shortcut = nn.Sequential(nn.Conv2d(inner, outer, 1, stride)) if stride > 1 else nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        """``[rows, inner, …]`` to ``[rows, outer, …]``."""
        return torch.relu(self.conv2(torch.relu(self.conv1(x))) + self.shortcut(x))


class ResNet2B(nn.Module):
    """The ResNet-2B of the verification benchmarks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1)
        self.layer1 = nn.Sequential(Block(8, 16, 2), Block(16, 16, 1))
        self.linear1, self.linear2 = nn.Linear(1024, 100), nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        """``[rows, 3, 32, 32]`` to ``[rows, 10]``."""
        x = self.layer1(torch.relu(self.conv1(x)))
        return self.linear2(torch.relu(self.linear1(torch.flatten(x, 1))))


def cnn_a(channels: int) -> nn.Sequential:
    """CNN-A, for 28 × 28 gray or 32 × 32 color images."""
    features = 1568 if channels == 1 else 2048
    return nn.Sequential(nn.Conv2d(channels, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(),
                         nn.Flatten(), nn.Linear(features, 100), nn.ReLU(), nn.Linear(100, 10))


def weights(path: str) -> dict[str, Tensor]:
    """The state dict in this file of the models' folder."""
    loaded = torch.load(ASSETS / "models" / path, map_location="cpu", weights_only=True)
    return loaded.get("state_dict", loaded)


def mnist(split: str = "t10k", count: int | None = None) -> Examples:
    """MNIST in [0, 1], ``[n, 1, 28, 28]``: ``"t10k"`` or ``"train"``."""
    folder = ASSETS / "datasets" / "mnist"
    pixels = gzip.decompress((folder / f"{split}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{split}-labels-idx1-ubyte.gz").read_bytes())
    x = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 1, 28, 28)[:count]
    return (x / np.float32(255)).astype(np.float32), np.frombuffer(labels, np.uint8, offset=8)[:count].astype(np.int64)


def sdp(name: str) -> Loaded:
    """A network of the SDP verification benchmark (``cifar_cnn_a_adv``…) and its own 200 test images."""
    data = "mnist" if name.startswith("mnist") else "cifar"
    model = cnn_a(1 if data == "mnist" else 3)
    model.load_state_dict(weights(f"sdp_cnn_a/{name}.pth"))
    folder = ASSETS / "models" / "sdp_cnn_a"
    x = np.ascontiguousarray(np.load(folder / f"{data}_X.npy").transpose(0, 3, 1, 2), dtype=np.float32)
    normalize = "cifar10" if data == "cifar" else None
    y = np.load(folder / f"{data}_y.npy").astype(np.int64)
    return targets.torch(model.eval(), normalize=normalize, name=name), x, y


def wong_kolter(count: int | None = None) -> Loaded:
    """Wong & Kolter's network for MNIST, trained for Linf 0.1, and the test images."""
    model = cnn_a(1)
    model.load_state_dict(weights("wong_kolter_mnist_eps01/mnist.pth"))
    return targets.torch(model.eval(), name="wong_kolter"), *mnist(count=count)


def resnet2b() -> Loaded:
    """An adversarially trained ResNet-2B and 300 lossless CIFAR-10 test images."""
    model = ResNet2B()
    model.load_state_dict(weights("cifar_resnet2b/resnet2b.pth"))
    data = np.load(ASSETS / "datasets" / "cifar10_lossless" / "cifar10_lossless_subset.npz")
    x = np.ascontiguousarray(data["x_test"].transpose(0, 3, 1, 2) / np.float32(255), dtype=np.float32)
    return targets.torch(model.eval(), normalize="cifar10", name="cifar_resnet2b"), x, data["y_test"].astype(np.int64)


def resnet20() -> targets.OnnxTarget:
    """A plain ResNet-20 for CIFAR-10, published with 8.27 % error, as an ONNX file."""
    path = ASSETS / "models" / "cifar_resnet_akamaster" / "resnet20.onnx"
    return targets.onnx(path, bounds=(0.0, 1.0), normalize="imagenet")


def cifar10(split: str = "test", count: int | None = None) -> Examples:
    """Lossless CIFAR-10 images in [0, 1]: 300 of ``"test"``, 3,997 of ``"train"``."""
    data = np.load(ASSETS / "datasets" / "cifar10_lossless" / "cifar10_lossless_subset.npz")
    x = data[f"x_{split}"][:count].transpose(0, 3, 1, 2) / np.float32(255)
    return np.ascontiguousarray(x, dtype=np.float32), data[f"y_{split}"][:count].astype(np.int64)


def badnet() -> targets.OnnxTarget:
    """A backdoored network for MNIST that gives probabilities, as an ONNX file."""
    path = ASSETS / "models" / "backdoor_badnet_mnist" / "badnet_mnist.onnx"
    return targets.onnx(path, outputs="probabilities", bounds=(0.0, 1.0), normalize=((0.5,), (0.5,)))


@cache
def undefended(count: int = 200) -> Loaded:
    """CNN-A after one ordinary epoch on MNIST, seeded, and the first test images."""
    pixels, labels = mnist("train")
    x, y = torch.from_numpy(pixels), torch.from_numpy(labels)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = cnn_a(1)
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        for rows in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return targets.torch(model.eval(), name="undefended"), *mnist(count=count)
