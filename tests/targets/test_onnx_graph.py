"""The ONNX importer against onnxruntime: every operator family, awkward attributes, refusals, and real models."""

from __future__ import annotations

import builtins
import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

onnx = pytest.importorskip("onnx", reason="the onnx extra is not installed")
ort = pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from assay.errors import AssayError, ConfigError, TargetError  # noqa: E402
from assay.targets.onnx_graph import Session, check_import, import_graph  # noqa: E402

ASSETS = Path(os.environ.get("ASSAY_ASSETS", Path(__file__).parents[3] / "shared" / "assets"))


def rng():
    return np.random.default_rng(7)


def weights(*shape, scale=0.5):
    return (rng().standard_normal(shape) * scale).astype(np.float32)


def ints(*values):
    return np.array(values, dtype=np.int64)


def node(kind, inputs="x", outputs="y", **attributes):
    return helper.make_node(kind, inputs.split(","), outputs.split(","), **attributes)


def build(nodes, shape, constants=None, opset=17, batch="n", outputs=("y",), domains=()):
    """Bytes of a model from x [batch, *shape] to the outputs."""
    graph = helper.make_graph(
        list(nodes), "test", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()])
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8 if opset < 20 else 10).SerializeToString()


def reference(model, x, loop=False):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    if loop:
        return np.concatenate([session.run(None, {"x": row[None]})[0] for row in x])
    return session.run(None, {"x": x})[0]


def held(nodes, shape, constants=None, opset=17, batch="n", low=None):
    """Imports, asserts agreement with onnxruntime at batch 1 and 5 and a finite gradient; returns the graph."""
    model = build(nodes, shape, constants, opset, batch)
    graph = import_graph(model)
    for rows in (1, 5):
        x = rng().standard_normal((rows, *shape)).astype(np.float32)
        x = x if low is None else np.abs(x) + np.float32(low)
        wanted = reference(model, x, loop=batch == 1)
        tensor = torch.from_numpy(x).requires_grad_()
        got = graph(tensor)
        assert got.shape == wanted.shape
        assert np.abs(got.detach().numpy() - wanted).max() <= 1e-5
        got.sum().backward()
        assert bool(tensor.grad.isfinite().all())
    return graph


def kinds(graph):
    """What the graph is made of, in order."""
    return [type(graph.get_submodule(n.target)).__name__ if n.op == "call_module" else n.target.__name__
            for n in graph.graph.nodes if n.op in ("call_module", "call_function")]


# ---- convolutions and pools -----------------------------------------------------------------------------------


@pytest.mark.parametrize("attributes", [
    {"pads": [1, 1, 1, 1]},
    {"pads": [0, 1, 2, 3]},
    {"strides": [2, 1], "dilations": [1, 2], "pads": [2, 0, 2, 0]},
    {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
    {"auto_pad": "VALID"},
])
def test_conv(attributes):
    held([node("Conv", "x,w,b", **attributes)], (4, 9, 8), {"w": weights(6, 4, 3, 2), "b": weights(6)})


def test_conv_kinds():
    assert kinds(held([node("Conv", "x,w", pads=[1, 1, 1, 1])], (2, 6, 6), {"w": weights(3, 2, 3, 3)})) == ["Conv2d"]
    assert kinds(held([node("Conv", "x,w", pads=[0, 0, 1, 1])], (2, 6, 6), {"w": weights(3, 2, 3, 3)})) == [
        "ConstantPad2d", "Conv2d"]
    held([node("Conv", "x,w,b", group=2)], (4, 6, 6), {"w": weights(6, 2, 3, 3), "b": weights(6)})
    held([node("Conv", "x,w", pads=[1, 2], dilations=[2])], (3, 12), {"w": weights(5, 3, 3)})
    held([node("Conv", "x,w")], (2, 5, 6, 4), {"w": weights(3, 2, 2, 3, 2)})


@pytest.mark.parametrize("attributes", [
    {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    {"strides": [2, 2], "pads": [0, 1, 1, 0]},
    {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
    {"strides": [2, 2], "output_shape": [10, 10]},
    {"group": 2, "dilations": [2, 1]},
])
def test_conv_transpose(attributes):
    out = 3 if "group" in attributes else 5
    held([node("ConvTranspose", "x,w,b", **attributes)], (4, 5, 5),
         {"w": weights(4, out, 3, 3), "b": weights(out * attributes.get("group", 1))})


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("attributes", [
    {"kernel_shape": [2, 2], "strides": [2, 2]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 2], "strides": [2, 3], "ceil_mode": 1},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 1, 2, 0]},
    {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 1, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [4, 4], "strides": [3, 3], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [3, 3], "pads": [2, 2, 2, 2]},
])
def test_pools(kind, attributes):
    held([node(kind, **attributes)], (3, 8, 9))


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
def test_pools_that_pad_unevenly_and_hang_over_the_edge(kind):
    held([node(kind, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 0], ceil_mode=1)], (2, 8, 8), opset=19)


def test_pool_attributes_of_one_kind():
    held([node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)], (2, 6, 6))
    held([node("AveragePool", kernel_shape=[3, 3], pads=[0, 1, 2, 0], count_include_pad=1)], (2, 6, 6))
    held([node("MaxPool", kernel_shape=[2, 2], dilations=[2, 3])], (2, 8, 8))
    held([node("MaxPool", kernel_shape=[3], strides=[2])], (2, 9))
    held([node("AveragePool", kernel_shape=[2, 2, 2])], (2, 4, 5, 6))


@pytest.mark.parametrize(("kind", "module"), [("GlobalAveragePool", "AdaptiveAvgPool2d"),
                                              ("GlobalMaxPool", "AdaptiveMaxPool2d")])
def test_global_pools_then_flatten(kind, module):
    graph = held([node(kind, "x", "p"), node("Flatten", "p")], (3, 5, 6))
    assert kinds(graph) == [module, "flatten"]


@pytest.mark.parametrize(("attributes", "inputs", "opset"), [
    ({"mode": "nearest"}, {"r": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 3], np.float32)}, 13),
    ({"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
     {"r": np.zeros(0, np.float32), "s": np.array([1, 1, 1.5, 0.5], np.float32)}, 13),
    ({"mode": "linear"}, {"r": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 2], np.float32)}, 13),
    ({"mode": "linear", "coordinate_transformation_mode": "align_corners"},
     {"r": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 2], np.float32)}, 13),
    ({"mode": "nearest"}, {"s": np.array([1, 1, 2, 2], np.float32)}, 10),
])
def test_resize(attributes, inputs, opset):
    held([node("Resize", ",".join(["x", *inputs]), **attributes)], (2, 6, 4), inputs, opset)


def test_resize_to_sizes_of_an_exported_batch():
    held([node("Resize", "x,,,s", mode="linear", coordinate_transformation_mode="pytorch_half_pixel")], (2, 6, 4),
         {"s": ints(1, 2, 12, 10)}, batch=1)


def test_upsample_of_opset_9():
    held([node("Upsample", "x,s", mode="nearest")], (2, 3, 4), {"s": np.array([1, 1, 2, 2], np.float32)}, 9)


def test_resize_in_a_form_torch_lacks_is_refused():
    model = build([node("Resize", "x,,s", mode="cubic")], (2, 4, 4), {"s": np.array([1, 1, 2, 2], np.float32)})
    with pytest.raises(TargetError, match="cubic") as caught:
        import_graph(model)
    assert caught.value.code == "TGT202"


# ---- products -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turned", [0, 1])
@pytest.mark.parametrize("bias", [(5,), (1, 5), (1,), (), (1, 1)])
def test_gemm(turned, bias):
    shape = (5, 6) if turned else (6, 5)
    graph = held([node("Gemm", "x,w,b", transB=turned, alpha=0.5, beta=-1.5)], (6,),
                 {"w": weights(*shape), "b": weights(*bias)})
    assert kinds(graph) == ["Linear"]


def test_gemm_without_bias_and_with_computed_factors():
    held([node("Gemm", "x,w", alpha=2.0)], (6,), {"w": weights(6, 4)}, opset=11)
    held([node("Gemm", "x,w,x", beta=0.25)], (4,), {"w": weights(4, 4)})
    held([node("Transpose", "x", "t"), node("Gemm", "t,w,b", transA=1)], (6,), {"w": weights(6, 4), "b": weights(4)})
    # (W xT) with the batch in second place, turned back
    held([node("Gemm", "w,x,b", "t", transB=1, alpha=0.5), node("Transpose", "t")], (6,),
         {"w": weights(4, 6), "b": weights(4, 1)})


def test_matmul_and_add_are_one_linear():
    constants = {"w": weights(6, 4), "b": weights(4)}
    assert kinds(held([node("MatMul", "x,w", "p"), node("Add", "p,b")], (6,), constants)) == ["Linear"]
    assert kinds(held([node("MatMul", "x,w", "p"), node("Add", "b,p")], (3, 6), constants)) == ["Linear"]


def test_a_product_read_twice_keeps_its_bias_apart():
    graph = held([node("MatMul", "x,w", "p"), node("Add", "p,b", "q"), node("Mul", "p,q")], (6,),
                 {"w": weights(6, 4), "b": weights(4)})
    assert kinds(graph) == ["Linear", "add", "mul"]


def test_matmul_of_two_computed_tensors_and_from_the_left():
    held([node("Transpose", "x", "t", perm=[0, 2, 1]), node("MatMul", "x,t")], (3, 4))
    held([node("MatMul", "w,x")], (3, 4), {"w": weights(5, 3)})
    held([node("MatMul", "x,w")], (2, 3, 4), {"w": weights(2, 4, 5)})


# ---- elementwise ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("shape", [(), (1,), (3, 1, 1), (1, 3, 4, 5), (5,)])
def test_arithmetic_with_constants_on_either_side(kind, shape):
    constant = np.abs(weights(*shape)) + np.float32(0.5)
    held([node(kind, "x,c")], (3, 4, 5), {"c": constant}, low=0.5)
    held([node(kind, "c,x")], (3, 4, 5), {"c": constant}, low=0.5)


@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul", "Div", "Min", "Max"])
def test_arithmetic_between_tensors(kind):
    held([node("Exp", "x", "e"), node(kind, "x,e")], (7,))


@pytest.mark.parametrize("kind", ["Min", "Max", "Sum"])
def test_variadic(kind):
    held([node("Tanh", "x", "t"), node(kind, "c,x,t,s")], (5,), {"c": weights(5), "s": np.float32(0.25)})


def test_max_with_zero_is_a_relu():
    assert kinds(held([node("Max", "z,x")], (5,), {"z": np.float32(0)})) == ["ReLU"]


@pytest.mark.parametrize("kind", ["Relu", "Sigmoid", "Tanh", "Softplus", "Erf", "Exp", "Abs", "Neg", "Softsign",
                                  "HardSwish", "Elu", "Selu", "LeakyRelu", "HardSigmoid", "Celu", "Identity",
                                  "Softmax", "LogSoftmax"])
def test_unary(kind):
    held([node(kind)], (3, 5))


@pytest.mark.parametrize("kind", ["Sqrt", "Log", "Reciprocal"])
def test_unary_of_positive_numbers(kind):
    held([node(kind)], (6,), low=0.1)


@pytest.mark.parametrize(("kind", "attributes"), [
    ("Elu", {"alpha": 0.5}), ("Selu", {"alpha": 1.5, "gamma": 2.0}), ("LeakyRelu", {"alpha": 0.3}),
    ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}), ("HardSigmoid", {"alpha": 0.4, "beta": 0.3}), ("Celu", {"alpha": 2.0}),
])
def test_activation_attributes(kind, attributes):
    held([node(kind, **attributes)], (3, 5))


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate):
    assert kinds(held([node("Gelu", approximate=approximate)], (9,), opset=20)) == ["GELU"]


def test_mish():
    assert kinds(held([node("Mish")], (9,), opset=18)) == ["Mish"]


@pytest.mark.parametrize("exponent", [np.float32(2), np.float32(0.5), weights(5), ints(2)[0]])
def test_pow(exponent):
    held([node("Pow", "x,e")], (5,), {"e": exponent}, low=0.1)


@pytest.mark.parametrize(("bounds", "module"), [((0, 6), "ReLU6"), ((-0.5, 0.75), "Hardtanh"), ((0, None), "ReLU"),
                                                ((None, 0.3), "clamp"), ((0.2, None), "clamp")])
def test_clip(bounds, module):
    constants = {name: np.float32(value) for name, value in zip("lh", bounds) if value is not None}
    inputs = ",".join(["x", *(name if name in constants else "" for name in "lh")])
    assert kinds(held([node("Clip", inputs)], (4, 3), constants)) == [module]
    attributes = {name: float(value) for name, value in zip(("min", "max"), bounds) if value is not None}
    assert kinds(held([node("Clip", **attributes)], (4, 3), opset=7)) == [module]


@pytest.mark.parametrize(("shape", "slope", "module"), [
    ((3, 4, 4), (3, 1, 1), "PReLU"), ((3, 4, 4), (1,), "PReLU"), ((6,), (6,), "PReLU"), ((3, 4, 5), (5,), "add"),
    ((3, 4, 4), (3, 4, 4), "add"),
])
def test_prelu(shape, slope, module):
    assert kinds(held([node("PRelu", "x,s")], shape, {"s": weights(*slope)}))[-1] == module


def test_where_and_comparisons():
    held([node("Greater", "x,z", "c"), node("Where", "c,x,s")], (6,), {"z": np.float32(0.1), "s": weights(6)})
    held([node("Where", "c,x,s")], (2,), {"c": np.array([True, False]), "s": np.float32(3)})
    held([node("LessOrEqual", "x,z", "c"), node("Cast", "c", "f", to=TensorProto.FLOAT), node("Mul", "x,f")], (6,),
         {"z": np.float32(0.1)})


@pytest.mark.parametrize("opset", [7, 11, 13])
@pytest.mark.parametrize("attributes", [{}, {"axis": 1}, {"axis": 2}, {"axis": -1}])
@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
def test_softmax_means_another_thing_before_opset_13(kind, attributes, opset):
    held([node(kind, **attributes)], (3, 4), opset=opset)


def test_a_last_softmax_stays_a_module_of_its_own():
    graph = held([node("MatMul", "x,w", "p"), node("Softmax", "p", axis=1)], (6,), {"w": weights(6, 4)})
    last = list(graph.graph.nodes)[-2]
    assert isinstance(graph.get_submodule(last.target), nn.Softmax)
    assert graph.get_submodule(last.target).dim == 1


# ---- normalization --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4,), (4, 5), (4, 5, 6), (4, 2, 3, 4)])
@pytest.mark.parametrize("opset", [7, 9, 15])
def test_batch_normalization(shape, opset):
    held([node("BatchNormalization", "x,s,b,m,v", epsilon=1e-3)], shape,
         {"s": weights(4), "b": weights(4) + 1, "m": weights(4), "v": np.abs(weights(4)) + np.float32(0.5)}, opset)


def test_batch_normalization_in_training_mode_is_refused():
    model = build([node("BatchNormalization", "x,s,b,m,v", training_mode=1)], (4,),
                  {name: np.ones(4, np.float32) for name in "sbmv"})
    with pytest.raises(TargetError, match="training mode") as caught:
        import_graph(model)
    assert caught.value.code == "TGT202"


def test_instance_normalization():
    held([node("InstanceNormalization", "x,s,b", epsilon=1e-2)], (3, 4, 5), {"s": weights(3), "b": weights(3)})


@pytest.mark.parametrize(("axis", "shape"), [(-1, (5,)), (2, (4, 5)), (1, (3, 4, 5))])
def test_layer_normalization(axis, shape):
    held([node("LayerNormalization", "x,s,b", axis=axis)], (3, 4, 5), {"s": weights(*shape), "b": weights(*shape)})
    held([node("LayerNormalization", "x,s", axis=axis, epsilon=1e-2)], (3, 4, 5), {"s": weights(*shape)})


def test_lrn():
    held([node("LRN", size=3, alpha=0.01, beta=0.7, bias=2.0)], (6, 4, 4))


def test_unfolded_normalization_of_weights_folds_into_the_convolution():
    graph = held([node("Mul", "w,g", "v"), node("Conv", "x,v")], (2, 5, 5),
                 {"w": weights(3, 2, 3, 3), "g": weights(3, 1, 1, 1)})
    assert kinds(graph) == ["Conv2d"]


# ---- shapes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("axis", "batch"), [(1, "n"), (-3, "n"), (2, "n"), (3, "n"), (-1, "n"), (0, 1), (1, 1), (2, 1)])
def test_flatten(axis, batch):
    held([node("Flatten", "x", "f", axis=axis), node("Reshape", "f,s")], (3, 4, 5), {"s": ints(-1, 60)}, batch=batch)


@pytest.mark.parametrize(("target", "batch"), [((-1, 60), "n"), ((0, -1), "n"), ((0, 60), "n"), ((1, -1), 1),
                                               ((1, 60), 1), ((-1, 60), 1)])
def test_reshape_that_is_a_flatten_becomes_one(target, batch):
    graph = held([node("Reshape", "x,s")], (3, 4, 5), {"s": ints(*target)}, batch=batch)
    assert kinds(graph) == ["flatten"]


@pytest.mark.parametrize("target", [(1, 5, 12), (1, 3, -1, 2), (-1, 4, 15), (0, 0, 20)])
def test_reshape_of_a_file_with_one_row_baked_in(target):
    held([node("Reshape", "x,s")], (3, 4, 5), {"s": ints(*target)}, batch=1)


def test_baked_row_is_followed_through_a_transpose():
    # As attention is exported: the batch travels to the second place and back, the baked 1 with it.
    held([node("Transpose", "x", "t", perm=[1, 0, 2]), node("Reshape", "t,s", "r"),
          node("Transpose", "r", perm=[1, 2, 0, 3])], (3, 4), {"s": ints(3, 1, 2, 2)}, batch=1)


@pytest.mark.parametrize("batch", ["n", 1])
def test_shape_arithmetic_folds_into_flatten(batch):
    nodes = [node("Shape", "x", "s"), node("Gather", "s,zero", "g", axis=0), node("Unsqueeze", "g,axes", "u"),
             helper.make_node("Constant", [], ["m"], value_ints=[-1]), node("Concat", "u,m", "t", axis=0),
             node("Cast", "t", "c", to=TensorProto.INT64), node("Reshape", "x,c")]
    graph = held(nodes, (3, 4), {"zero": ints(0)[0], "axes": ints(0)}, batch=batch)
    assert kinds(graph) == ["flatten"]


def test_sizes_multiplied_out_fold_into_flatten():
    nodes = [node("Shape", "x", "s"), node("Slice", "s,one,two", "b"), node("Slice", "s,two,four", "hw"),
             node("ReduceProd", "hw", "p", keepdims=1), node("Slice", "s,zero,one", "n"),
             node("Concat", "n,b,p", "t", axis=0), node("Reshape", "x,t")]
    graph = held(nodes, (3, 4, 5), {"zero": ints(0), "one": ints(1), "two": ints(2), "four": ints(4)})
    assert kinds(graph) == ["flatten"]


def test_heads_that_swallow_the_baked_row():
    # As nn.MultiheadAttention is exported for one row: [17, 1, 32] becomes [17, 1*4, 8] and comes back.
    held([node("Transpose", "x", "t", perm=[1, 0, 2]), node("Reshape", "t,heads", "h"),
          node("Transpose", "h", "q", perm=[1, 0, 2]), node("Transpose", "q", "k", perm=[0, 2, 1]),
          node("MatMul", "q,k", "a"), node("Softmax", "a", "p", axis=-1), node("MatMul", "p,q", "o"),
          node("Transpose", "o", "u", perm=[1, 0, 2]), node("Reshape", "u,flat", "f"), node("Gemm", "f,w,b", "g"),
          node("Reshape", "g,back", "r"), node("Transpose", "r", perm=[1, 0, 2])], (17, 32),
         {"heads": ints(17, 4, 8), "flat": ints(17, 32), "w": weights(32, 32), "b": weights(32), "back": ints(17, 1, 32)},
         batch=1)


def test_windows_are_cut_and_put_back():
    # As Swin exports: the batch multiplies by the number of windows and divides again, by a baked 1.
    held([node("Reshape", "x,a", "r"), node("Transpose", "r", "t", perm=[0, 1, 3, 2, 4]), node("Reshape", "t,b", "w"),
          node("Relu", "w", "v"), node("Reshape", "v,c", "u"), node("Transpose", "u", "q", perm=[0, 1, 3, 2, 4]),
          node("Reshape", "q,d")], (4, 4, 3),
         {"a": ints(1, 2, 2, 2, 6), "b": ints(-1, 4, 3), "c": ints(1, 2, 2, 2, 6), "d": ints(1, 48)}, batch=1)


@pytest.mark.parametrize("opset", [11, 13])
def test_squeeze_and_unsqueeze(opset):
    axes = {"axes": [2, 3]} if opset < 13 else {}
    constants = {} if opset < 13 else {"a": ints(2, 3)}
    inputs = "p" if opset < 13 else "p,a"
    graph = held([node("GlobalAveragePool", "x", "p"), node("Squeeze", inputs, **axes)], (3, 4, 4), constants, opset)
    assert kinds(graph) == ["AdaptiveAvgPool2d", "flatten"]
    held([node("Unsqueeze", inputs.replace("p", "x"), **axes)], (3, 4), constants, opset)


def test_squeeze_of_every_1_spares_the_batch():
    x = rng().standard_normal((5, 3, 1, 4)).astype(np.float32)
    graph = import_graph(build([node("Squeeze")], (3, 1, 4)))
    assert np.array_equal(graph(torch.from_numpy(x)).numpy(), x[:, :, 0])
    assert graph(torch.from_numpy(x[:1])).shape == (1, 3, 4)


def test_transpose_concat_identity_dropout():
    held([node("Transpose", "x", perm=[0, 3, 1, 2])], (3, 4, 5))
    held([node("Relu", "x", "r"), node("Concat", "x,r,x", axis=-2)], (3, 4))
    held([node("Dropout", "x", "d", ratio=0.4), node("Identity", "d")], (3,), opset=7)
    held([node("Dropout", "x,r", "y,mask")], (3,), {"r": np.float32(0.4)})


def test_a_constant_beside_rows_is_repeated_for_each():
    # As a class token is exported with one row.
    held([node("Concat", "t,x", axis=1)], (3, 4), {"t": weights(1, 1, 4)}, batch=1)
    nodes = [node("Shape", "x", "s"), node("Gather", "s,zero", "n"), node("Concat", "n,rest", "want", axis=0),
             node("Expand", "t,want", "tokens"), node("Concat", "tokens,x", axis=1)]
    held(nodes, (3, 4), {"zero": ints(0), "rest": ints(1, 4), "t": weights(1, 1, 4)})


def test_expand_of_computed_values():
    held([node("Expand", "x,s")], (1, 4), {"s": ints(3, 1)})


@pytest.mark.parametrize(("opset", "sizes"), [(11, [2, 1, 3]), (13, [2, 1, 3]), (13, None), (18, None)])
def test_split(opset, sizes):
    attributes = {"axis": 1} | ({"split": sizes} if opset < 13 and sizes else {})
    attributes |= {"num_outputs": 3} if opset >= 18 else {}
    constants = {"s": ints(*sizes)} if opset >= 13 and sizes else {}
    held([node("Split", "x,s" if constants else "x", "a,b,c", **attributes), node("Concat", "c,a,b", axis=1)], (6, 2),
         constants, opset)


def test_split_into_uneven_parts():
    held([node("Split", "x", "a,b,c", axis=1, num_outputs=3), node("Concat", "c,a,b", axis=1)], (7, 2), opset=18)


@pytest.mark.parametrize("cut", [([0], [2**63 - 1], [2], [2]), ([-3], [-1], [1], [1]), ([3, 0], [-100, 2], [-2, 2], [-1, 1]),
                                 ([-1], [-(2**63) + 1], [2], [-2])])
def test_slice(cut):
    starts, ends, axes, steps = cut
    held([node("Slice", "x,s,e,a,t")], (4, 5), {"s": ints(*starts), "e": ints(*ends), "a": ints(*axes), "t": ints(*steps)})


def test_slice_of_opset_7():
    held([node("Slice", "x", starts=[1, 0], ends=[3, -1], axes=[1, 2])], (4, 5), opset=7)


@pytest.mark.parametrize("indices", [1, -1, [1], [2, 0, -1], [[0, 1], [2, 2]]])
def test_gather(indices):
    held([node("Gather", "x,i", axis=1)], (3, 4), {"i": np.array(indices, dtype=np.int64)})


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize("opset", [7, 11])
def test_pad(mode, opset):
    pads = [0, 0, 1, 2, 0, 0, 3, 1]
    if opset == 7:
        held([node("Pad", mode=mode, pads=pads, value=0.5)], (2, 5, 5), opset=7)
    else:
        held([node("Pad", "x,p,v", mode=mode)], (2, 5, 5), {"p": ints(*pads), "v": np.float32(0.5)}, opset)


def test_pad_of_channels_by_axes_and_cropping():
    held([node("Pad", "x,p")], (2, 4, 4), {"p": ints(0, 1, 0, 0, 0, 2, 0, 0)})
    held([node("Pad", "x,p")], (2, 4, 4), {"p": ints(0, 0, -1, 1, 0, 0, 0, -2)})
    held([node("Pad", "x,p,,a")], (2, 4, 4), {"p": ints(1, 2), "a": ints(-1)}, opset=18)


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("axes", [[1], [2, 3], [-1]])
@pytest.mark.parametrize("kind", ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2"])
def test_reductions(kind, axes, keep):
    held([node(kind, axes=axes, keepdims=keep)], (3, 4, 5), opset=11)
    held([node(kind, "x,a", keepdims=keep)], (3, 4, 5), {"a": ints(*axes)}, opset=18)


def test_reduction_over_nothing():
    held([node("ReduceSum", "x,a", noop_with_empty_axes=1)], (3, 4), {"a": ints()}, opset=13)


# ---- any batch, any source ------------------------------------------------------------------------------------


def small(batch="n", final="y"):
    """A convolutional classifier as a list of nodes with its constants."""
    nodes = [node("Conv", "x,w,b", "c", pads=[1, 1, 1, 1]), node("Relu", "c", "r"),
             node("Reshape", "r,s", "f"), node("Gemm", "f,v", final)]
    constants = {"w": weights(2, 1, 3, 3), "b": weights(2), "s": ints(1, -1) if batch == 1 else ints(-1, 32),
                 "v": weights(32, 3)}
    return build(nodes, (1, 4, 4), constants, batch=batch, outputs=(final,))


def test_weights_are_parameters_and_the_graph_is_in_eval_mode():
    graph = import_graph(small())
    assert not graph.training
    assert sorted(tuple(p.shape) for p in graph.parameters()) == [(2,), (2, 1, 3, 3), (3, 32)]
    assert {p.dtype for p in graph.parameters()} == {torch.float32}


def test_importing_draws_no_random_numbers():
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    import_graph(small())
    assert torch.equal(torch.rand(4), wanted)


def test_path_and_bytes_are_the_same_model(tmp_path):
    path = tmp_path / "small.onnx"
    path.write_bytes(small())
    x = torch.ones(2, 1, 4, 4)
    assert torch.equal(import_graph(path)(x), import_graph(small())(x))


def test_weights_listed_among_the_inputs():
    model = onnx.load_model_from_string(small())
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    assert check_import(model.SerializeToString(), import_graph(model.SerializeToString())) <= 1e-6


@pytest.mark.parametrize("opset", range(7, 22))
def test_every_opset(opset):
    held([node("Conv", "x,w,b", "c", strides=[2, 2]), node("BatchNormalization", "c,b,b,b,v", "n"), node("Relu", "n", "r"),
          node("MaxPool", "r", "m", kernel_shape=[2, 2]), node("Flatten", "m", "f"), node("Gemm", "f,h,k", "l", transB=1),
          node("Softmax", "l", axis=1)], (2, 9, 9),
         {"w": weights(3, 2, 3, 3), "b": weights(3), "v": np.ones(3, np.float32), "h": weights(4, 27), "k": weights(4)}, opset)


def test_graphs_can_be_copied_and_interpreted():
    graph, x = import_graph(small()), torch.ones(2, 1, 4, 4)
    assert torch.equal(copy.deepcopy(graph)(x), graph(x))
    assert torch.equal(torch.fx.Interpreter(graph).run(x), graph(x))


def test_models_in_double_precision_are_computed_in_single():
    graph = helper.make_graph([node("MatMul", "x,w")], "g", [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["n", 6])],
                              [helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["n", 3])],
                              [numpy_helper.from_array(weights(6, 3).astype(np.float64), "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    assert check_import(model, import_graph(model)) <= 1e-6
    assert Session.open(model).scores(np.ones((2, 6), np.float32)).dtype == np.float32


@pytest.mark.parametrize("batch", ["n", 1])
def test_session_scores_any_number_of_rows(batch):
    model = small(batch)
    session = Session.open(model)
    x = rng().standard_normal((5, 1, 4, 4)).astype(np.float32)
    assert session.input_shape == (None, 1, 4, 4)
    assert session.rows_per_run is None
    wanted = reference(model, x, loop=batch == 1)
    assert np.abs(session.scores(x) - wanted).max() <= 1e-6
    assert np.abs(import_graph(model)(torch.from_numpy(x)).detach().numpy() - wanted).max() <= 1e-5


def test_session_loops_when_the_batch_cannot_be_freed():
    model = build([node("Concat", "t,x", axis=1)], (3, 4), {"t": weights(1, 1, 4)}, batch=1)
    session = Session.open(model)
    x = rng().standard_normal((3, 3, 4)).astype(np.float32)
    assert session.rows_per_run == 1
    assert np.array_equal(session.scores(x), reference(model, x, loop=True))


def test_session_pads_the_last_run_of_a_larger_fixed_batch():
    model = build([node("Add", "x,c")], (3,), {"c": weights(4, 3)}, batch=4)
    session = Session.open(model)
    x = np.zeros((6, 3), np.float32)
    assert session.rows_per_run == 4
    assert np.array_equal(session.scores(x), np.concatenate([weights(4, 3), weights(4, 3)[:2]]))


def test_session_never_lets_rows_change_each_other():
    model = build([node("ReduceMean", "x", "m", axes=[0], keepdims=1), node("Sub", "x,m")], (3,))
    session = Session.open(model)
    x = rng().standard_normal((4, 3)).astype(np.float32)
    assert session.rows_per_run == 1
    assert np.array_equal(session.scores(x), np.zeros((4, 3), np.float32))
    assert torch.equal(import_graph(model)(torch.from_numpy(x)), torch.zeros(4, 3))


# ---- refusals -------------------------------------------------------------------------------------------------


def refused(code, source, **options):
    with pytest.raises(TargetError) as caught:
        import_graph(source, **options)
    assert caught.value.code == code
    return str(caught.value)


def test_all_unknown_operators_are_named():
    nodes = [node("Cumulate", "x", "a"), node("Relu", "a", "b"), node("Cumulate", "b", "c"),
             helper.make_node("Swizzle", ["c"], ["y"], domain="com.acme")]
    said = refused("TGT201", build(nodes, (3,), domains=("com.acme",)))
    assert "2 unknown operators: Cumulate (2x), com.acme.Swizzle" in said


def test_random_and_branching_operators_are_not_folded():
    said = refused("TGT201", build([node("Shape", "x", "s"), node("RandomNormalLike", "s", "r", dtype=1),
                                    node("Slice", "r,a,b", "q"), node("Add", "x,q")], (3,), {"a": ints(0), "b": ints(1)}))
    assert "RandomNormalLike" in said


def test_operators_that_the_scores_do_not_need_are_not_converted():
    model = build([node("Relu"), node("ArgMax", "x", "label", axis=1)], (3,), outputs=("y", "label"))
    assert kinds(import_graph(model, output="y")) == ["ReLU"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9, 0.999])
def test_truncated_files(share):
    model = small()
    refused("TGT200", model[:int(len(model) * share)])


def test_foreign_and_absent_files(tmp_path):
    foreign = tmp_path / "model.onnx"
    foreign.write_bytes(b"PK\x03\x04 this is a zip archive" * 40)
    assert str(foreign) in refused("TGT200", foreign)
    assert "No such file" in refused("TGT200", tmp_path / "absent.onnx")


def test_several_inputs_are_named():
    model = onnx.load_model_from_string(small())
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 4]))
    assert "2 inputs: 'x', 'mask'" in refused("TGT203", model.SerializeToString())


def test_integer_inputs_are_refused():
    graph = helper.make_graph([node("Identity")], "g", [helper.make_tensor_value_info("x", TensorProto.INT64, ["n", 3])],
                              [helper.make_tensor_value_info("y", TensorProto.INT64, ["n", 3])])
    refused("TGT203", helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString())


def test_several_outputs_are_named_unless_one_is_the_classifier():
    model = build([node("Relu"), node("Tanh", "x", "features")], (3,), outputs=("y", "features"))
    assert "2 outputs: 'y', 'features'" in refused("TGT204", model)
    assert "did you mean 'features'" in refused("TGT204", model, output="feature")
    assert kinds(import_graph(model, output="features")) == ["Tanh"]
    parsed = onnx.load_model_from_string(model)
    parsed.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3]))
    assert kinds(import_graph(parsed.SerializeToString())) == ["ReLU"]


def test_free_sizes_are_asked_for():
    model = build([node("GlobalAveragePool", "x", "p"), node("Flatten", "p")], (3, "h", "w"))
    assert "[?, 3, ?, ?]" in refused("TGT205", model)
    refused("TGT205", model, input_shape=(4, 8, 8))
    graph = import_graph(model, input_shape=(3, 8, 6))
    assert check_import(model, graph, input_shape=(3, 8, 6)) <= 1e-6
    assert Session.open(model, input_shape=(3, 8, 6)).input_shape == (None, 3, None, None)


def test_inputs_without_a_batch_are_refused():
    graph = helper.make_graph([node("Relu")], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert "[3]" in refused("TGT205", model.SerializeToString())


def test_weights_outside_the_file(tmp_path):
    model = onnx.load_model_from_string(small())
    path = tmp_path / "small.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="small.bin", size_threshold=0)
    assert check_import(path, import_graph(path)) <= 1e-6
    assert "small.bin" in refused("TGT206", path.read_bytes())
    (tmp_path / "small.bin").unlink()
    assert "small.bin" in refused("TGT206", path)


@pytest.mark.parametrize("nodes", [
    [node("Transpose", perm=[1, 0])],
    [node("Reshape", "x,s")],
    [node("Concat", "x,x", axis=0)],
    [node("Gather", "x,i", axis=0)],
    [node("ReduceMean", axes=[0, 1], keepdims=0)],
])
def test_rows_that_mix_are_refused(nodes):
    refused("TGT207", build(nodes, (6,), {"s": ints(-1, 4), "i": ints(0)[0]}))


def test_scores_that_depend_on_the_number_of_rows_are_refused():
    nodes = [node("Shape", "x", "s"), node("Gather", "s,zero", "g"), node("Cast", "g", "c", to=TensorProto.FLOAT),
             node("Mul", "x,c")]
    assert "how many rows" in refused("TGT207", build(nodes, (6,), {"zero": ints(0)[0]}))


def test_a_reshape_that_hides_mixed_rows_is_refused():
    # [n, 2, 3] read as [2, n, 3]: right for one row, another model for two.
    nodes = [node("Transpose", "x", "t", perm=[1, 0, 2]), node("Reshape", "t,s")]
    assert "together and alone" in refused("TGT207", build(nodes, (2, 3), {"s": ints(-1, 2, 3)}))


def test_constants_are_not_scores():
    said = refused("TGT207", build([node("Relu", "x", "r"), node("Exp", "c")], (3,), {"c": weights(2, 3)}))
    assert "does not depend on the input" in said


def test_damaged_tensors_and_missing_names():
    model = onnx.load_model_from_string(small())
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]
    assert "'w' is damaged" in refused("TGT200", model.SerializeToString())
    assert "Add reads 'ghost'" in refused("TGT200", build([node("Add", "x,ghost")], (3,)))


def test_what_onnxruntime_cannot_run_is_said():
    with pytest.raises(TargetError, match="Cumulate") as caught:
        Session.open(build([node("Cumulate")], (3,)))
    assert caught.value.code == "TGT209"
    with pytest.raises(TargetError, match=r"shape \[2, 7\]") as caught:
        Session.open(build([node("MatMul", "x,w")], (6,), {"w": weights(6, 4)})).scores(np.ones((2, 7), np.float32))
    assert caught.value.code == "TGT209"


def test_shapes_that_do_not_fit_name_the_node():
    said = refused("TGT210", build([helper.make_node("Gemm", ["x", "w"], ["y"], name="head")], (6,), {"w": weights(5, 3)}))
    assert "node 'head'" in said
    assert "[[2, 6]]" in said


def test_an_unused_second_output_passes_and_a_used_one_is_refused():
    pool = helper.make_node("MaxPool", ["x"], ["y", "where"], kernel_shape=[2, 2])
    assert kinds(import_graph(build([pool], (2, 4, 4)))) == ["MaxPool2d"]
    cast = node("Cast", "where", "z", to=TensorProto.FLOAT)
    assert "'where' of MaxPool" in refused("TGT202", build([pool, cast], (2, 4, 4), outputs=("z",)))


def test_check_import_measures_the_deviation():
    model = small()
    graph = import_graph(model)
    assert check_import(model, graph, rows=5) <= 1e-6
    with torch.no_grad():
        next(p for p in graph.parameters() if p.shape == (3, 32)).mul_(1.01)
    assert check_import(model, graph, tolerance=0.1) == pytest.approx(0.01, rel=1e-3)
    with pytest.raises(TargetError, match=r"deviate by 0\.01 ") as caught:
        check_import(model, graph)
    assert caught.value.code == "TGT208"


def test_a_graph_of_another_shape_fails_the_check():
    with pytest.raises(TargetError, match=r"\[8, 3\] scores, onnxruntime \[8, 4\]") as caught:
        check_import(build([node("MatMul", "x,w")], (6,), {"w": weights(6, 4)}),
                     import_graph(build([node("MatMul", "x,w")], (6,), {"w": weights(6, 3)})))
    assert caught.value.code == "TGT208"


def test_the_extra_is_named_when_it_is_missing(monkeypatch):
    real = builtins.__import__
    monkeypatch.setattr("importlib.import_module", lambda name: real("a_package_that_is_not_there"))
    with pytest.raises(ConfigError, match="onnx and onnxruntime") as caught:
        import_graph(b"")
    assert caught.value.code == "CFG110"
    assert isinstance(caught.value, AssayError)


def test_importing_the_module_imports_no_onnx():
    code = "import sys, assay.targets.onnx_graph; print(sorted(m for m in sys.modules if m.startswith('onnx')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


# ---- models that nobody here made -----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "shape", "classes"), [
    ("cifar_resnet2b/resnet2b.onnx", (3, 32, 32), 10),
    ("cifar_resnet_akamaster/resnet20.onnx", (3, 32, 32), 10),
    ("cifar_resnet_akamaster/resnet56.onnx", (3, 32, 32), 10),
    ("percival_adblock/percival.onnx", (3, 224, 224), 2),
    ("backdoor_badnet_mnist/badnet_mnist.onnx", (1, 28, 28), 10),
    ("backdoor_wrn16_1/wrn16_1_grid_target0.onnx", (3, 32, 32), 10),
    ("face_mobilefacenet/mobilefacenet.onnx", (3, 112, 112), 128),
])
def test_real_models(name, shape, classes):
    path = ASSETS / "models" / name
    if not path.is_file():
        pytest.skip(f"{path} is absent; set ASSAY_ASSETS to the folder of third-party assets")
    graph = import_graph(path)
    assert check_import(path, graph, rows=1) <= 1e-5
    assert check_import(path, graph, rows=5, seed=1) <= 1e-5
    assert Session.open(path).rows_per_run is None
    x = torch.from_numpy(rng().standard_normal((2, *shape)).astype(np.float32)).requires_grad_()
    scores = graph(x)
    assert scores.shape == (2, classes)
    scores[:, 0].sum().backward()
    assert bool(x.grad.isfinite().all())
    assert float(x.grad.abs().max()) > 0
