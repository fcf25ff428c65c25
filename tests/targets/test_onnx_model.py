"""ONNX files as targets: onnxruntime judges, the imported graph differentiates, and the two agree."""

from __future__ import annotations

import builtins
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

onnx = pytest.importorskip("onnx", reason="the onnx extra is not installed")
ort = pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from assay import targets  # noqa: E402
from assay.errors import AssayError, ConfigError, TargetError  # noqa: E402
from assay.evasion.threat import Linf  # noqa: E402
from assay.targets import Access  # noqa: E402
from assay.targets.base import WhiteBox  # noqa: E402

pytestmark = pytest.mark.filterwarnings("error")

ASSETS = Path(os.environ.get("ASSAY_ASSETS", Path(__file__).parents[3] / "shared" / "assets"))
W1 = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
W2 = np.random.default_rng(1).standard_normal((6, 3)).astype(np.float32)


def known(x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """What the tiny models compute before any softmax."""
    return torch.tanh(x @ torch.from_numpy(W1)) @ torch.from_numpy(W2) * scale


def write(path: Path, tail: tuple[str, ...] = (), *, scale: float = 1.0, batch: int | str = "n") -> Path:
    """A file of tanh(x W1) W2, followed by the named operators."""
    nodes = [helper.make_node("MatMul", ["x", "w1"], ["a"]), helper.make_node("Tanh", ["a"], ["b"]),
             helper.make_node("MatMul", ["b", "w2"], ["s0"])]
    for number, kind in enumerate(tail):
        axis = {"axis": 1} if "Softmax" in kind else {}
        nodes.append(helper.make_node(kind, [f"s{number}"], [f"s{number + 1}"], **axis))
    graph = helper.make_graph(
        nodes, "tiny", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor_value_info(f"s{len(tail)}", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(W1, "w1"), numpy_helper.from_array(W2 * np.float32(scale), "w2")])
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString())
    return path


def runtime(path: Path, x: torch.Tensor) -> np.ndarray:
    return ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"]).run(None, {"x": x.numpy()})[0]


def refuses(kind: type[AssayError], code: str, call: Callable[[], object]) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.code == code, str(caught.value)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(9, 4, generator=torch.Generator().manual_seed(3))


def test_scores_are_onnxruntimes(tmp_path: Path, x: torch.Tensor) -> None:
    path = write(tmp_path / "tiny.onnx")
    target = targets.onnx(path, batch=4)
    target.check(x)
    assert isinstance(target, WhiteBox)
    assert target.name == "tiny.onnx"
    assert target.offers is Access.WEIGHTS
    assert np.array_equal(targets.onnx(path).scores(x).numpy(), runtime(path, x))
    np.testing.assert_allclose(target.scores(x).numpy(), runtime(path, x), rtol=1e-6, atol=1e-6)
    assert torch.equal(target.labels(x), torch.from_numpy(runtime(path, x).argmax(1)))
    assert target.scores(x[:0]).shape == (0, 3)


def test_gradients_are_those_of_the_known_function(tmp_path: Path, x: torch.Tensor) -> None:
    target = targets.onnx(write(tmp_path / "tiny.onnx"), batch=4)
    y = torch.arange(9) % 3
    leaf = x.clone().requires_grad_()
    scores = known(leaf)
    loss = F.cross_entropy(scores, y, reduction="none")
    (wanted,) = torch.autograd.grad(loss.sum(), leaf, retain_graph=True)
    graded = target.graded(x, lambda s, labels: F.cross_entropy(s, labels, reduction="none"), y)
    torch.testing.assert_close(graded.gradient, wanted)
    torch.testing.assert_close(graded.loss, loss.detach())
    torch.testing.assert_close(graded.scores, target.scores(x))
    classes = torch.stack([y, (y + 1) % 3], 1)
    both, rows = target.jacobian(x, classes)
    for k in range(2):
        (column,) = torch.autograd.grad(scores.gather(1, classes[:, k:k + 1]).sum(), leaf, retain_graph=True)
        torch.testing.assert_close(rows[:, k], column)
    torch.testing.assert_close(both, scores.detach())
    torch.testing.assert_close(target.module()(x), scores.detach())


def test_normalization_comes_before_both_halves(tmp_path: Path, x: torch.Tensor) -> None:
    path = write(tmp_path / "tiny.onnx")
    target = targets.onnx(path, normalize=(0.25, 0.5))
    target.check(x)
    np.testing.assert_array_equal(target.scores(x).numpy(), runtime(path, (x - 0.25) / 0.5))
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(known((leaf - 0.25) / 0.5)[:, 0].sum(), leaf)
    torch.testing.assert_close(target.graded(x, lambda s: s[:, 0]).gradient, wanted)
    refuses(TargetError, "TGT106", lambda: targets.onnx(path, normalize="cifar"))
    refuses(TargetError, "TGT107", lambda: targets.onnx(path, bounds=(1, 0)))


@pytest.mark.parametrize("tail", [("Softmax",), ("LogSoftmax",), ("Softmax", "Identity"), ("Identity", "Softmax")])
@pytest.mark.parametrize("batch", ["n", 1, 2])
def test_the_final_softmax_is_taken_off_both_halves(tmp_path: Path, x: torch.Tensor, tail: tuple[str, ...],
                                                    batch: int | str) -> None:
    # Logits so large that every probability is 0 or 1 in float32, and no gradient would pass.
    path = write(tmp_path / "tiny.onnx", tail, scale=300.0, batch=batch)
    target = targets.onnx(path, outputs="probabilities")
    target.check(x)
    torch.testing.assert_close(target.scores(x), known(x, 300.0), rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(target.module()(x), target.scores(x), rtol=1e-4, atol=1e-2)
    assert torch.equal(target.labels(x), known(x).argmax(1))
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(known(leaf, 300.0)[:, 1].sum(), leaf)
    torch.testing.assert_close(target.graded(x, lambda s: s[:, 1]).gradient, wanted, rtol=1e-3, atol=1e-2)


def test_probabilities_without_a_softmax_are_taken_the_logarithm_of(tmp_path: Path, x: torch.Tensor) -> None:
    # exp(s) / sum(exp(s)), written out.
    nodes = [helper.make_node("MatMul", ["x", "w"], ["s"]), helper.make_node("Exp", ["s"], ["e"]),
             helper.make_node("ReduceSum", ["e", "axes"], ["t"], keepdims=1), helper.make_node("Div", ["e", "t"], ["p"])]
    graph = helper.make_graph(
        nodes, "written", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(W1[:, :3].copy(), "w"), numpy_helper.from_array(np.array([1], np.int64), "axes")])
    path = tmp_path / "written.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString())
    target = targets.onnx(path, outputs="probabilities")
    target.check(x)
    wanted = (x @ torch.from_numpy(W1[:, :3])).log_softmax(1)
    torch.testing.assert_close(target.scores(x), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(target.module()(x).log(), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(target.graded(x, lambda s: s[:, 0]).scores, wanted, rtol=1e-4, atol=1e-5)


def test_wrong_declarations_are_refused(tmp_path: Path, x: torch.Tensor) -> None:
    logits, softmax = write(tmp_path / "logits.onnx"), write(tmp_path / "softmax.onnx", ("Softmax",))
    refuses(TargetError, "TGT104", lambda: targets.onnx(softmax).check(x))
    refuses(TargetError, "TGT104", lambda: targets.onnx(logits, outputs="probabilities").check(x))
    refuses(TargetError, "TGT101", lambda: targets.onnx(logits).check(x[:, :3]))
    refuses(TargetError, "TGT200", lambda: targets.onnx(tmp_path / "absent.onnx"))


def test_a_graph_that_deviates_on_the_examples_is_refused(tmp_path: Path, x: torch.Tensor) -> None:
    target = targets.onnx(write(tmp_path / "tiny.onnx"))
    with torch.no_grad():
        next(target.surrogate.model.parameters()).mul_(1.01)
    refuses(TargetError, "TGT208", lambda: target.check(x))


def test_a_fixed_batch_is_run_as_often_as_needed(tmp_path: Path, x: torch.Tensor) -> None:
    path = write(tmp_path / "fixed.onnx", batch=1)
    target = targets.onnx(path)
    target.check(x)
    np.testing.assert_allclose(target.scores(x).numpy(), np.concatenate([runtime(path, row[None]) for row in x]), rtol=1e-5)


def test_fingerprint_has_the_files_hash(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.onnx")
    shown = targets.onnx(path).fingerprint()
    assert shown["file_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert shown["onnxruntime"] == ort.__version__
    assert shown == targets.onnx(path).fingerprint()
    assert shown["model"] != targets.onnx(write(tmp_path / "other.onnx", scale=2.0)).fingerprint()["model"]


def test_the_view_counts_and_grants(tmp_path: Path, x: torch.Tensor) -> None:
    target = targets.onnx(write(tmp_path / "tiny.onnx"))
    view = Linf(0.1).threat(access="weights").grant(target, 9)
    view.scores(x, torch.arange(9))
    view.gradient(x, torch.arange(9), lambda s: s[:, 0])
    assert view.module() is target.module()
    assert int(view.meter.queries.sum()) == 18
    assert int(view.meter.backwards.sum()) == 9


def test_the_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "tiny.onnx")
    own = builtins.__import__

    def absent(name: str, *args: object, **settings: object) -> object:
        if name.startswith("onnx"):
            raise ImportError(name)
        return own(name, *args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr("importlib.import_module", lambda name: absent(name))
    from assay.targets.onnx_model import onnx_target

    refuses(ConfigError, "CFG110", lambda: onnx_target(path))


# ---- real models ----------------------------------------------------------------------------------------------


def asset(name: str) -> Path:
    if not (ASSETS / name).is_file():
        pytest.skip(f"{name} is not at {ASSETS}; set ASSAY_ASSETS")
    return ASSETS / name


def cifar() -> tuple[torch.Tensor, torch.Tensor]:
    with np.load(asset("datasets/cifar10_lossless/cifar10_lossless_subset.npz")) as held:
        x, y = held["x_test"], held["y_test"]
    return torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(y.astype(np.int64))


@pytest.mark.parametrize(("name", "accuracy"), [("resnet20", 0.93), ("resnet56", 0.95)])
def test_published_cifar_resnets(name: str, accuracy: float) -> None:
    target = targets.onnx(asset(f"models/cifar_resnet_akamaster/{name}.onnx"), normalize="imagenet")
    x, y = cifar()
    target.check(x[:32])
    assert float((target.labels(x) == y).double().mean()) == pytest.approx(accuracy, abs=1e-9)
    torch.testing.assert_close(target.module()(x[:32]), target.scores(x[:32]), rtol=1e-3, atol=1e-3)
    graded = target.graded(x[:8], lambda s, labels: F.cross_entropy(s, labels, reduction="none"), y[:8])
    moved = (x[:8] + 4 / 255 * graded.gradient.sign()).clamp(0, 1)
    assert int((target.labels(moved) == y[:8]).sum()) < int((target.labels(x[:8]) == y[:8]).sum())


def test_published_model_that_outputs_probabilities() -> None:
    target = targets.onnx(asset("models/backdoor_badnet_mnist/badnet_mnist.onnx"), normalize=(0.5, 0.5),
                          outputs="probabilities")
    x = torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    target.check(x)
    assert not target.logs
    torch.testing.assert_close(target.module()(x), target.scores(x), rtol=1e-3, atol=1e-3)
