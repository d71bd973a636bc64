"""Exports a network: four graphs, a manifest, and an example that runs them with onnxruntime and NumPy alone."""

import copy
import logging
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from entitysam.export.graphs import Graph, graphs
from entitysam.export.manifest import FILE, GraphFile, Manifest, TensorSpec
from entitysam.export.storage import STORAGE, store_weights
from entitysam.hub import sha256_of
from entitysam.io.files import OutputError, make_folder, output_errors
from entitysam.layers.network import PIXEL_MEAN, PIXEL_STD
from entitysam.models.entity_sam import EntitySAM
from entitysam.registry import ConfigError
from entitysam.speed import EXACT

OPSET = 18
FOLDED = 1 << 24  # values of a constant that is computed at export
EXAMPLE = Path(__file__).with_name("example.py")
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
PREPROCESSING = (
    "RGB uint8 [H, W, 3] is resized to S x S by PIL's bicubic filter without keeping the aspect ratio, divided by 255, "
    "normalised by mean and std, and laid out as float32 [1, 3, S, S]."
)
PROTOCOL = (
    "Per frame: encode(image). Frame 0: first(features); published models repeat it with propagate as warm-up passes. Later "
    "frames: propagate(features, points, bank, filled). After each: memorize(cells, mask_logits) goes to the front of the bank "
    "[M, Q, hw, Cm]; filled marks the memories that are there. points are the next_points of the last call."
)


def export(network: EntitySAM, out: Path, kind: str, fingerprint: dict[str, Any], storage: str = "fp32") -> Manifest:
    """Writes the graphs of a network into a new folder.

    Args:
        network: in eval mode; exported in float32.
        out: folder; it must not hold anything.
        kind: "onnx", run by onnxruntime, or "torch", programs for `torch.export.load`.
        fingerprint: of the model, kept in the manifest.
        storage: of the weights in the files, see `storage.store_weights`; ONNX only.

    Returns:
        the manifest, with the parity of the exported graphs.

    Raises:
        ConfigError: unknown kind or storage, a missing package, or a network that cannot be exported.
        OutputError: the folder holds files or cannot be written to.
    """
    if kind not in SUFFIXES:
        raise ConfigError(f"export: onnx or torch, not '{kind}'")
    if storage not in STORAGE or (storage != "fp32" and kind != "onnx"):
        raise ConfigError(
            f"export: weights of onnx are stored in {', '.join(STORAGE)}, of torch in fp32, not '{storage}'"
        )
    if kind == "onnx":
        require("onnx", "onnxruntime", "onnxscript")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: holds files already; name a new folder")
    make_folder(out.parent)
    network = copy.deepcopy(network).cpu().float().eval().at_speed(EXACT)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary, torch.no_grad():
        folder, files, parity = Path(temporary) / out.name, {}, {}
        folder.mkdir()
        for graph in graphs(network):
            file = folder / f"{graph.name}{SUFFIXES[kind]}"
            with output_errors(out):
                results = _write_onnx(graph, file, storage) if kind == "onnx" else _write_program(graph, file)
            expected = graph.module(*graph.inputs.values())
            outputs = dict(zip(graph.outputs, expected))
            parity[graph.name] = {
                name: float((value.double() - torch.as_tensor(result).double()).abs().max())
                for (name, value), result in zip(outputs.items(), results)
            }
            files[graph.name] = GraphFile(
                file=file.name, sha256=sha256_of(file), inputs=_specs(graph.inputs), outputs=_specs(outputs)
            )
        manifest = Manifest(
            format=kind,
            storage=storage,
            opset=OPSET if kind == "onnx" else 0,
            torch=torch.__version__,
            image_size=network.image_size,
            num_entities=network.num_entities,
            num_memories=network.memory.num_memories,  # type: ignore[arg-type]
            ids=network.ids,  # type: ignore[arg-type]
            mean=list(PIXEL_MEAN),
            std=list(PIXEL_STD),
            preprocessing=PREPROCESSING,
            protocol=PROTOCOL,
            fingerprint=fingerprint,
            graphs=files,
            parity=parity,
        )
        with output_errors(out):
            if kind == "onnx":
                shutil.copyfile(EXAMPLE, folder / EXAMPLE.name)
            (folder / FILE).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
            if out.exists():
                out.rmdir()
            folder.replace(out)
    return manifest


def require(*packages: str, extra: str = "export") -> None:
    """Checks that optional packages of an extra are there.

    Raises:
        ConfigError: one is missing.
    """
    import importlib.util

    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"{package} is not installed: pip install 'entitysam[{extra}]'")


def _write_onnx(graph: Graph, file: Path, storage: str) -> list[np.ndarray]:
    """Writes one graph; returns its outputs, computed by onnxruntime."""
    import onnxruntime
    from onnxscript import optimizer

    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph.module.eval(),
            tuple(graph.inputs.values()),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        # What depends on weights alone is computed here: faster, and OpenVINO resizes position tables without antialiasing.
        optimizer.optimize(program.model, input_size_limit=FOLDED, output_size_limit=FOLDED)
        program.save(str(file), external_data=False)
    if storage != "fp32":
        store_weights(file, storage)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(list(graph.outputs), {name: value.numpy() for name, value in graph.inputs.items()})


def _write_program(graph: Graph, file: Path) -> list[Tensor]:
    """Writes one graph as an exported program; returns the outputs of the file."""
    program = torch.export.export(graph.module.eval(), tuple(graph.inputs.values()), strict=False)
    torch.export.save(program, file)
    return list(torch.export.load(file).module()(*graph.inputs.values()))


def _specs(tensors: dict[str, Tensor]) -> list[TensorSpec]:
    return [
        TensorSpec(name=name, shape=list(value.shape), dtype=str(value.dtype).removeprefix("torch."))
        for name, value in tensors.items()
    ]
