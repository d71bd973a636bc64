"""Smaller files: weights of an ONNX graph in float16 or int8, which the graph itself turns back into float32."""

from pathlib import Path

import numpy as np

STORAGE = ("fp32", "fp16", "int8")
MIN_VALUES = 1024  # smaller tensors stay as they are


def store_weights(file: Path, storage: str) -> None:
    """Rewrites a graph in place. Products and convolutions stay in float32, so that every runtime can run it.

    Args:
        file: of a graph in float32.
        storage: "fp16": each weight is rounded and cast back; "int8": one scale per row of the first axis (the output channels
            of a convolution; of the last axis for matrices, which ONNX multiplies from the right), symmetric; vectors stay.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(file)
    graph, kept, before = model.graph, [], []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < MIN_VALUES or (storage == "int8" and values.ndim < 2):
            kept.append(tensor)
            continue
        stored = f"{tensor.name}.{storage}"
        if storage == "fp16":
            kept.append(numpy_helper.from_array(values.astype(np.float16), stored))
            before.append(helper.make_node("Cast", [stored], [tensor.name], to=onnx.TensorProto.FLOAT))
            continue
        axis = 0 if values.ndim > 2 else values.ndim - 1
        others = tuple(n for n in range(values.ndim) if n != axis)
        scale = np.maximum(np.abs(values).max(others), np.finfo(np.float32).tiny) / 127  # [channels]
        shape = [-1 if n == axis else 1 for n in range(values.ndim)]
        rounded = np.round(values / scale.reshape(shape)).astype(np.int8)
        scale_name = f"{stored}.scale"
        kept += [
            numpy_helper.from_array(rounded, stored),
            numpy_helper.from_array(scale.astype(np.float32), scale_name),
        ]
        before.append(helper.make_node("DequantizeLinear", [stored, scale_name], [tensor.name], axis=axis))
    nodes = [*before, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, file)
