"""A denoising autoencoder in front of the model."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call

from assay.errors import ConfigError
from assay.evasion.defenses.cleansing.target import CleansedTarget, require_images
from assay.numerics.seeds import Stream
from assay.targets.base import Target
from assay.targets.defended import Parts


class Denoiser(nn.Module):
    """Three convolutions that say what of an image is noise, ``[rows, channels, height, width]`` to the same shape."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """The images without it."""
        noise: Tensor = self.last(torch.relu(self.inner(torch.relu(self.first(x)))))
        return x - noise


@dataclass(frozen=True, kw_only=True, repr=False)
class Autoencoder:
    """Images pass through an autoencoder that learned to take noise off clean ones.

    *Paper*: Meng & Chen, CCS 2017 (MagNet's reformer; its detectors are another defense).
    *Needs*: images, and clean ones to train on; anything of the model.
    *Cost*: one forward of the autoencoder an image, and one backward a gradient.
    *Blind spots*: it is a network like any other: the two together are attacked as one.
    *Held to*: Carlini & Wagner, 2017 ("MagNet … not robust"): the attack succeeds on 99 % of CIFAR-10.
    *Measured*: of a ResNet-20 on 300 CIFAR-10 images at Linf 8/255, 81.3 % accurate behind it, an attack that does not
    know (PGD-40) leaves 0 %, one that knows (PGD-100) 0 %: ``tests/papers/test_defenses_fall.py``, fitted to 3,997
    training images; on digits ``tests/evasion/defenses/test_cleansing.py``.

    It is trained once, by :meth:`fit`, kept by :meth:`save`, and found again by the file's path.

    Example:
        >>> from assay import demo, evasion
        >>> (x, y), (clean, _) = demo.digits("test[:50]"), demo.digits("train[:400]")
        >>> safe = evasion.Autoencoder.fit(clean, seed=0, epochs=4).protect(demo.target())
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.2).threat())
        >>> game.play(evasion.PGD(steps=10), safe, seed=0)["robust accuracy"].estimate < 0.1
        True

    Attributes:
        weights: a safetensors file that :meth:`save` wrote, or the network itself.
    """

    parts: ClassVar[Parts] = Parts()

    weights: Path | Denoiser

    def __post_init__(self) -> None:
        if not isinstance(self.weights, Denoiser):
            object.__setattr__(self, "weights", _loaded(Path(self.weights)))

    def __repr__(self) -> str:
        digest = hashlib.sha256()
        for value in self.network.state_dict().values():
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return f"Autoencoder({digest.hexdigest()[:12]})"

    @property
    def network(self) -> Denoiser:
        """The network that takes the noise off."""
        assert isinstance(self.weights, Denoiser)
        return self.weights

    @classmethod
    def fit(cls, x: Tensor, *, seed: int, epochs: int = 10, noise: float = 0.1, width: int = 16, batch: int = 64,
            rate: float = 3e-3) -> Autoencoder:
        """A cleanser trained to find clean images under Gaussian noise.

        Args:
            x: clean images in [0, 1], ``[n, channels, height, width]``.
            seed: of the weights, the order and the noise; the global random numbers stay as they were.
            epochs: passes over the images.
            noise: its standard deviation.
            width: channels of the inner layers.
            batch: images a step.
            rate: the peak learning rate of AdamW, on one cycle.
        """
        require_images(x, cls.__name__)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            network = Denoiser(x.shape[1], width).to(x)
        rng = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
        steps = epochs * -(-len(x) // batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
        for _ in range(epochs):
            for clean in torch.split(x[torch.randperm(len(x), generator=rng)], batch):
                noisy = clean + noise * torch.randn(clean.shape, generator=rng, dtype=x.dtype).to(x.device)
                loss = (network(noisy.clamp(0, 1)) - clean).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        return cls(weights=network.eval().requires_grad_(False))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the weights to a safetensors file, from which ``Autoencoder(weights=path)`` reads them."""
        save_file(self.network.state_dict(), path)

    def protect(self, target: Target) -> CleansedTarget:
        """``target`` behind the autoencoder; itself unchanged."""
        return CleansedTarget(target, self)

    def real(self, x: Tensor, rng: Stream) -> Tensor:
        """The images without what the network takes for noise."""
        require_images(x, self)
        weights = {name: value.to(x) for name, value in self.network.state_dict().items()}
        out: Tensor = functional_call(self.network, weights, (x,))
        return out


def _loaded(path: Path) -> Denoiser:
    """The network of a file. Raises ``ConfigError`` (PRF132)."""
    try:
        state = load_file(path)
        width, channels = state["first.weight"].shape[:2]
        network = Denoiser(channels, width)
        network.load_state_dict(state)
    except (OSError, SafetensorError, KeyError, RuntimeError, ValueError) as error:
        said = str(error).splitlines()[0][:200]
        raise ConfigError("PRF132", f"{path.name} is not a file that Autoencoder.save wrote: {said}",
                          where=str(path.parent)) from error
    return network.to(state["first.weight"].dtype).eval().requires_grad_(False)
