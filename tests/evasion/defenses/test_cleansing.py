"""Cleansers, checked against the codec and SciPy's filters, closed forms and duality gaps; and seen through."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from assay import demo, evasion, targets, testing
from assay.errors import ConfigError, Denied, TargetError
from assay.evasion.defenses.cleansing.jpeg import tables
from assay.evasion.defenses.cleansing.target import CleansedTarget
from assay.evasion.defenses.cleansing.total_variation import differences, divergence
from assay.evasion.objectives import cross_entropy, margin
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.targets.base import Bounds, Target, WhiteBox, refuses
from assay.targets.defended import Defended, Parts
from assay.targets.pytorch import TorchTarget

LEVEL = 1 / 255
ANYONE = Stream(torch.zeros(64, dtype=torch.int64))


def pictures(n: int = 12, size: tuple[int, int] = (32, 32), channels: int = 3, seed: int = 0) -> Tensor:
    """Smooth shades with edges and a little noise, from black to white: something that a codec was made for."""
    rng = np.random.default_rng(seed)
    shades = ndimage.gaussian_filter(rng.standard_normal((n, channels, *size)), (0, 0, 3, 3))
    shades = shades / shades.std() * 0.25 + 0.5
    shades[:, :, size[0] // 3 : size[0] // 2, 3:-5] += 0.3
    return torch.from_numpy((shades + 0.01 * rng.standard_normal(shades.shape)).clip(0, 1))


def linear(x: Tensor, seed: int = 0) -> TorchTarget:
    """A linear model of three classes on inputs like ``x``, all of it float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return targets.torch(nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 3)).double(), name="linear")


# --- JPEG --------------------------------------------------------------------------------------------------------


def test_the_tables_are_those_of_the_standard() -> None:
    luma, chroma = tables(50)  # at 50 they are those of ITU-R T.81, Annex K, unscaled
    assert luma[0].tolist() == [16, 11, 10, 16, 24, 40, 51, 61]
    assert luma[:, 0].tolist() == [16, 12, 14, 14, 18, 24, 49, 72]
    assert chroma[:2].tolist() == [[17, 18, 24, 47, 99, 99, 99, 99], [18, 21, 26, 66, 99, 99, 99, 99]]
    assert torch.equal(tables(25), (2 * tables(50)).clamp_max(255))


@pytest.mark.parametrize("quality", [10, 50, 75, 95])
@pytest.mark.parametrize(("channels", "size"), [(3, (32, 32)), (3, (45, 30)), (1, (28, 28))], ids=["color", "odd", "gray"])
def test_the_stand_in_is_the_codec(quality: int, channels: int, size: tuple[int, int]) -> None:
    x, codec = pictures(channels=channels, size=size), evasion.JPEG(quality=quality)
    apart = (codec.stand_in(x, ANYONE) - codec.real(x, ANYONE)).abs()
    changed = (x - codec.real(x, ANYONE)).abs().mean()
    assert float(apart.mean()) < LEVEL
    assert float(apart.mean()) < 0.3 * float(changed)


def test_the_codec_answers_in_eight_bits_whatever_comes() -> None:
    x = pictures(4)
    out = evasion.JPEG(quality=30).real(x.requires_grad_(), ANYONE)
    assert not out.requires_grad
    assert torch.equal((out * 255).round() / 255, out)
    assert evasion.JPEG().real(x[:0], ANYONE).shape == x[:0].shape


# --- filters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_bit_depth_leaves_so_many_levels(bits: int) -> None:
    x = torch.rand(4, 5000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    out = evasion.BitDepth(bits=bits).real(x, ANYONE)
    assert len(out.unique()) == 2**bits
    assert float((out - x).abs().max()) <= 0.5 / (2**bits - 1) + 1e-12


@pytest.mark.parametrize("size", [2, 3, 4, 5, 9])
def test_the_median_is_scipys(size: int) -> None:
    x = torch.rand(3, 2, 7, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    want = ndimage.median_filter(x.numpy(), size=(1, 1, size, size), mode="reflect")
    assert np.array_equal(evasion.MedianBlur(size=size).real(x, ANYONE).numpy(), want)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_the_blur_is_scipys(sigma: float) -> None:
    x = torch.rand(3, 2, 7, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    want = ndimage.gaussian_filter(x.numpy(), (0, 0, sigma, sigma), mode="reflect")
    assert np.abs(evasion.GaussianBlur(sigma=sigma).real(x, ANYONE).numpy() - want).max() < 1e-12


def test_rescaling_keeps_flat_images_and_loses_what_is_finer_than_the_smaller_size() -> None:
    board = (torch.arange(16)[:, None] + torch.arange(16) + 0.0).remainder(2).expand(1, 3, 16, 16).double()
    inner = evasion.Rescale(factor=0.5).real(board, ANYONE)[..., 3:-3, 3:-3]
    assert torch.allclose(inner, torch.tensor(0.5).double())
    flat = torch.full((1, 1, 9, 12), 0.3, dtype=torch.float64)
    assert torch.allclose(evasion.Rescale(factor=0.6).real(flat, ANYONE), flat)


# --- total variation ---------------------------------------------------------------------------------------------


def gap(x: Tensor, u: Tensor, p: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Of each image the value of the solution and how far it can be from the least one (weak duality)."""
    def total(v: Tensor) -> Tensor:
        return v.flatten(1).sum(1)

    value = total((u - x) ** 2) / 2 + weight * total(differences(u).square().sum(0).sqrt())
    bound = total(x**2) / 2 - total((x + weight * divergence(p)) ** 2) / 2
    return value, value - bound


@pytest.mark.parametrize(("steps", "share"), [(20, 2e-2), (400, 1e-4)])
def test_the_duality_gap_of_total_variation_closes(steps: int, share: float) -> None:
    x, weight = pictures(4), 0.03
    method = evasion.TotalVariation(weight=weight, steps=steps)
    u, p = method.real(x, ANYONE), method.dual(x)
    assert float(p.square().sum(0).max()) <= 1 + 1e-12
    value, apart = gap(x, u, p, weight)
    assert bool((apart >= -1e-9).all())
    assert float((apart / value).max()) < share


def test_a_step_loses_its_height_in_proportion_to_the_weight() -> None:
    x = torch.zeros(1, 1, 1, 10, dtype=torch.float64)
    x[..., 4:] = 0.8
    u = evasion.TotalVariation(weight=0.06, steps=500).real(x, ANYONE)[0, 0, 0]
    want = torch.tensor([0.06 / 4] * 4 + [0.8 - 0.06 / 6] * 6, dtype=torch.float64)  # each side moves by weight / length
    assert torch.allclose(u, want, atol=1e-6)
    # From weight 0.8 / (1/4 + 1/6) on the sides have met.
    assert torch.allclose(evasion.TotalVariation(weight=2.0, steps=2000).real(x, ANYONE), x.mean(), atol=1e-4)


def test_divergence_is_the_negative_adjoint() -> None:
    g = torch.Generator().manual_seed(0)
    u, p = (torch.randn(*shape, 3, 2, 5, 8, dtype=torch.float64, generator=g) for shape in ((), (2,)))
    assert float((differences(u) * p).sum() + (u * divergence(p)).sum()) == pytest.approx(0, abs=1e-10)


# --- random sizes ------------------------------------------------------------------------------------------------


def test_random_images_are_whole_of_every_size_and_everywhere() -> None:
    rng = Stream.seeded(0, torch.arange(4000))
    out = evasion.RandomResizePad(smallest=0.75).real(torch.ones(4000, 1, 12, 12, dtype=torch.float64), rng)
    assert bool(((out - out.round()).abs() < 1e-12).all())
    heights, widths = (out.amax(other)[:, 0].sum(1).round().long() for other in (3, 2))
    assert torch.equal(heights, widths)
    assert torch.equal(out.flatten(1).sum(1).round().long(), heights * widths)
    assert heights.unique().tolist() == [9, 10, 11, 12]
    smallest = out[heights == 9].amax(3)[:, 0].argmax(1)
    counts = torch.bincount(smallest, minlength=4).double()
    assert counts.shape == (4,)
    assert float((counts / counts.sum() - 0.25).abs().max()) < 4 * (0.25 * 0.75 / float(counts.sum())) ** 0.5


def test_a_random_image_is_the_rows_own_and_shrinks_bilinearly() -> None:
    x, rng = pictures(8, (20, 12)), Stream.seeded(3, torch.arange(8))
    method = evasion.RandomResizePad(smallest=0.8)
    out = method.real(x, rng)
    assert torch.allclose(out[5:6], method.real(x[5:6], rng.select(torch.tensor([5]))))
    assert torch.allclose(evasion.RandomResizePad(smallest=1).real(x, rng), x)
    for image, want in zip(out, x):
        rows, columns = (torch.nonzero(image.sum((0, axis)))[:, 0] for axis in (2, 1))
        cut = image[None, :, int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]
        small = nn.functional.interpolate(want[None], cut.shape[2:], mode="bilinear")
        assert torch.allclose(cut, small, atol=1e-12)


def test_the_same_global_seed_gives_the_same_answers() -> None:
    x = pictures(6)
    safe = evasion.RandomResizePad(smallest=0.7).protect(linear(x))
    looks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        looks.append(safe.scores(x))
    assert torch.equal(looks[0], looks[1])
    assert not torch.equal(looks[0], looks[2])
    before = torch.random.get_rng_state()
    safe.check(x)
    assert torch.equal(before, torch.random.get_rng_state())


# --- the autoencoder ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def autoencoder() -> evasion.Autoencoder:
    return evasion.Autoencoder.fit(demo.digits("train[:800]")[0], seed=0, epochs=10, noise=0.2)


def test_the_autoencoder_takes_noise_off(autoencoder: evasion.Autoencoder) -> None:
    x, _ = demo.digits("test[:200]")
    noisy = (x + 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    before, after = ((z - x).square().mean() for z in (noisy, autoencoder.real(noisy, ANYONE)))
    assert float(after) < 0.7 * float(before)


def test_looking_in_another_precision_leaves_the_autoencoder_as_it_is(autoencoder: evasion.Autoencoder) -> None:
    x, _ = demo.digits("test[:5]")
    said = repr(autoencoder)
    assert torch.allclose(autoencoder.real(x.double(), ANYONE).float(), autoencoder.real(x, ANYONE), atol=1e-5)
    assert repr(autoencoder) == said


def test_the_autoencoder_is_found_again_by_its_file(autoencoder: evasion.Autoencoder, tmp_path) -> None:
    autoencoder.save(tmp_path / "ae.safetensors")
    again = evasion.Autoencoder(weights=tmp_path / "ae.safetensors")
    x, _ = demo.digits("test[:20]")
    assert torch.equal(again.real(x, ANYONE), autoencoder.real(x, ANYONE))
    assert repr(again) == repr(autoencoder)
    other = evasion.Autoencoder.fit(demo.digits("train[:64]")[0], seed=0, epochs=1)
    assert repr(other) != repr(again)
    assert repr(evasion.Autoencoder.fit(demo.digits("train[:64]")[0], seed=0, epochs=1)) == repr(other)


def test_a_file_of_something_else_is_refused(tmp_path) -> None:
    (tmp_path / "text.safetensors").write_text("no weights")
    for name in ("missing.safetensors", "text.safetensors"):
        with pytest.raises(ConfigError) as caught:
            evasion.Autoencoder(weights=tmp_path / name)
        assert caught.value.code == "PRF132"


def test_a_plan_places_the_autoencoder_beside_itself(autoencoder: evasion.Autoencoder, tmp_path) -> None:
    from assay.audits.loading import load_model
    from assay.audits.plan import TargetPlan

    autoencoder.save(tmp_path / "ae.safetensors")
    (tmp_path / "model.py").write_text("from assay import demo\n\ndef build():\n    return demo.network()\n")
    defenses = ["jpeg", {"name": "bit-depth", "bits": 3}, {"name": "autoencoder", "weights": "ae.safetensors"}]
    target = load_model(TargetPlan(kind="torch", load="model.py:build", defenses=defenses), tmp_path)
    assert target.name == f"build behind JPEG(quality=75) behind BitDepth(bits=3) behind {autoencoder!r}"


# --- the target --------------------------------------------------------------------------------------------------


def other_class(target: Target, x: Tensor) -> tuple[Tensor, Tensor]:
    labels = target.labels(x)
    return labels, (labels + 1) % 3


def test_gradients_through_a_linear_filter_are_those_of_the_whole() -> None:
    x = pictures(6, (9, 12))
    net, blur = linear(x), evasion.GaussianBlur(sigma=0.8)
    whole = targets.torch(_Composed(blur, net.module()))
    labels = net.labels(x)
    got, want = blur.protect(net).graded(x, cross_entropy, labels), whole.graded(x, cross_entropy, labels)
    for a, b in zip(got, want):
        assert torch.allclose(a, b, atol=1e-12)
    classes = torch.tensor([[0, 2]]).expand(6, 2)
    for a, b in zip(blur.protect(net).jacobian(x, classes), whole.jacobian(x, classes)):
        assert torch.allclose(a, b, atol=1e-12)


class _Composed(nn.Module):
    def __init__(self, blur: evasion.GaussianBlur, then: nn.Module) -> None:
        super().__init__()
        self.blur, self.then = blur, then

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.then(self.blur.real(x, ANYONE))
        return out


def test_knowing_a_rounding_is_leaving_it_out_on_the_way_back() -> None:
    x = pictures(6, (8, 8))
    net = targets.torch(demo_like(x))
    safe = evasion.BitDepth(bits=2).protect(net)
    labels = safe.labels(x)
    seen = (x * 3).round() / 3
    naive, adapted, below = (t.graded(z, cross_entropy, labels) for t, z in
                             ((safe.naive(), x), (safe.adapted(), x), (net, seen)))
    assert not bool(naive.gradient.any())
    assert torch.equal(adapted.gradient, below.gradient)
    assert torch.equal(adapted.scores, safe.scores(x))
    assert torch.equal(safe.graded(x, cross_entropy, labels).gradient, naive.gradient)


def demo_like(x: Tensor) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = (nn.Conv2d(x.shape[1], 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * x[0, 0].numel(), 3))
        return nn.Sequential(*layers).double()


def test_defenses_around_defenses_are_known_together() -> None:
    x = pictures(6, (16, 16))
    net = targets.torch(demo_like(x))
    safe = evasion.JPEG().protect(evasion.RandomResizePad().protect(evasion.BitDepth(bits=3).protect(net)))
    assert isinstance(safe, Defended)
    assert safe.bare is net
    assert safe.parts == Parts(surrogate=True, randomness=True)
    assert safe.randomized
    labels = net.labels(x)
    assert not bool(safe.naive().graded(x, margin, labels).gradient.any())
    assert bool(safe.adapted().graded(x, margin, labels).gradient.flatten(1).any(1).all())
    # The other order is another target.
    first, second = evasion.JPEG(), evasion.BitDepth(bits=3)
    prints = [a.protect(b.protect(net)).fingerprint() for a, b in ((first, second), (second, first))]
    assert prints[0] != prints[1]
    assert len({str(p) for p in (*prints, first.protect(net).fingerprint(), net.fingerprint())}) == 4


def test_the_box_of_the_target_is_the_unit_box_of_the_cleanser() -> None:
    x = pictures(6, (16, 16))
    net = demo_like(x)
    unit, wide = targets.torch(net), targets.torch(nn.Sequential(_Shift(), net), bounds=(-3.0, 5.0))
    for defense in (evasion.JPEG(), evasion.BitDepth(bits=3), evasion.RandomResizePad(), evasion.TotalVariation()):
        looks = []
        for target, inputs in ((unit, x), (wide, x * 8 - 3)):
            torch.manual_seed(0)
            looks.append(defense.protect(target).scores(inputs))
        assert torch.allclose(*looks, atol=1e-6), defense


class _Shift(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x + 3) / 8


@dataclass(frozen=True, eq=False)
class BlackBox:
    """A target that offers labels or scores, and may refuse."""

    inner: TorchTarget
    offers: Access = Access.LABELS
    refuses: bool = False
    classes: int = 3
    name: str = "black box"
    bounds: Bounds = field(default_factory=lambda: Bounds(0, 1))
    dtype: torch.dtype = torch.float64
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    randomized: bool = False
    forwards_per_query: int = 1

    def labels(self, x: Tensor) -> Tensor:
        return self.inner.labels(x)

    def scores(self, x: Tensor) -> Tensor:
        if self.offers < Access.SCORES:
            raise AssertionError("labels only")
        return self.inner.scores(x)

    def check(self, x: Tensor) -> None:
        self.inner.check(x)

    def fingerprint(self) -> dict[str, str]:
        return {"model": "?"}


@pytest.mark.parametrize("offers", [Access.LABELS, Access.SCORES])
def test_a_black_box_is_cleansed_as_well(offers: Access) -> None:
    x = pictures(6, (16, 16))
    net = linear(x)
    safe = evasion.JPEG(quality=20).protect(BlackBox(net, offers))
    testing.check_target(safe, x)
    assert safe.offers is offers
    cleansed = evasion.JPEG(quality=20).real(x, ANYONE)
    assert torch.equal(safe.labels(x), net.labels(cleansed))
    assert torch.equal(safe.adapted().labels(x), safe.labels(x))
    assert not refuses(safe)
    assert refuses(evasion.JPEG().protect(BlackBox(net, refuses=True)))


def test_the_weights_are_not_handed_out() -> None:
    safe = evasion.BitDepth().protect(linear(pictures()))
    assert safe.offers is Access.GRADIENTS
    with pytest.raises(Denied, match="THR101"):
        safe.module()


def test_large_batches_are_cleansed_in_groups() -> None:
    x = pictures(1, (6, 6)).repeat(1100, 1, 1, 1) * torch.linspace(0, 1, 1100, dtype=torch.float64).reshape(-1, 1, 1, 1)
    net = linear(x)
    safe: WhiteBox = evasion.MedianBlur(size=3).protect(net)
    labels = net.labels(x)
    rows = torch.tensor([3, 700, 1099])
    assert torch.allclose(safe.scores(x)[rows], safe.scores(x[rows]))
    assert torch.allclose(safe.graded(x, cross_entropy, labels).gradient[rows],
                          safe.graded(x[rows], cross_entropy, labels[rows]).gradient)
    assert safe.labels(x).shape == (1100,)


@pytest.mark.parametrize("defense", [evasion.JPEG(), evasion.MedianBlur(), evasion.GaussianBlur(), evasion.Rescale(),
                                     evasion.TotalVariation(), evasion.RandomResizePad()], ids=lambda d: type(d).__name__)
def test_rows_of_a_table_are_no_images(defense) -> None:
    x = torch.rand(4, 7, dtype=torch.float64)
    with pytest.raises(TargetError, match="PRF130"):
        defense.protect(linear(x)).check(x)
    with pytest.raises(TargetError, match="PRF130"):
        evasion.JPEG().protect(linear(torch.rand(4, 2, 8, 8))).check(torch.rand(4, 2, 8, 8).double())


@pytest.mark.parametrize("make", [
    lambda: evasion.JPEG(quality=0), lambda: evasion.BitDepth(bits=0), lambda: evasion.MedianBlur(size=1),
    lambda: evasion.GaussianBlur(sigma=0.0), lambda: evasion.TotalVariation(weight=0.0),
    lambda: evasion.TotalVariation(steps=0), lambda: evasion.Rescale(factor=1.0),
    lambda: evasion.RandomResizePad(smallest=0.0),
])
def test_settings_out_of_range_are_refused(make) -> None:
    with pytest.raises(ConfigError, match="PRF131"):
        make()


# --- seen through ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("defense", "clean", "naive"),
    [(evasion.JPEG(), 0.95, (0.95, 1)), (evasion.BitDepth(), 0.95, (0.9, 1)), (evasion.MedianBlur(), 0.6, (0, 0.02)),
     (evasion.GaussianBlur(), 0.9, (0, 0.02)), (evasion.TotalVariation(), 0.95, (0, 0.02)),
     (evasion.Rescale(), 0.85, (0, 0.02)), (evasion.RandomResizePad(), 0.9, (0, 0.2)), (None, 0.9, (0, 0.02))],
    ids=["jpeg", "bits", "median", "gauss", "variation", "rescale", "resize-pad", "autoencoder"],
)
def test_an_attack_that_knows_breaks_it_and_one_that_does_not_stands_where_gradients_are_gone(
    defense, clean: float, naive: tuple[float, float], autoencoder: evasion.Autoencoder
) -> None:
    if defense is None:
        defense = autoencoder
    x, y = demo.digits("test[:50]")
    target = defense.protect(demo.target())
    assert isinstance(target, CleansedTarget)
    game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.2).threat())
    attack = evasion.PGD(steps=10, draws=6 if target.randomized else 1)
    oblivious = replace(game, threat=evasion.Linf(0.2).threat(knows={"model"}))
    found = oblivious.play(replace(attack, draws=1), target, seed=0)
    assert found["clean accuracy"].estimate >= clean
    assert naive[0] <= found["robust accuracy"].estimate <= naive[1]
    # Where the gradients are gone, the referee says so.
    assert ("DBT103" in {doubt.code for doubt in found.doubts}) == (naive[0] > 0)
    assert game.play(attack, target.adapted(), seed=0)["robust accuracy"].estimate <= 0.06
