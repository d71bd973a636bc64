"""Runs an exported model by onnxruntime behind the interface of `inference.segmenter.FrameModel`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from entitysam.export.manifest import Manifest, read_manifest
from entitysam.export.writer import require
from entitysam.registry import ConfigError
from entitysam.structures import FrameOutput

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
OPENVINO = "openvino"

GraphFunction = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


@dataclass(frozen=True)
class BankState:
    """The state between two frames.

    Attributes:
        points: [Q, 2] for the next frame; None before the first.
        bank: float32 [M, Q, hw, Cm], newest first.
        filled: number of memories that are there.
    """

    points: Tensor | None = None
    bank: Tensor | None = None
    filled: int = 0


class OnnxModel:
    """An exported model.

    Args:
        folder: of `entitysam export --to onnx`.
        device: "cpu", "cuda" or "tensorrt": the execution provider of onnxruntime. "auto": cpu. "openvino": OpenVINO
            on the CPU, in float32.
        threads: of the runtime; 0 = its default.

    Raises:
        ConfigError: the runtime is missing, or lacks the provider.
        CheckpointError, FileNotFoundError, JsonError: see `read_manifest`.
    """

    def __init__(self, folder: Path, device: str = "auto", threads: int = 0) -> None:
        self.manifest: Manifest = read_manifest(folder)
        if self.manifest.format != "onnx":
            raise ConfigError(f"{folder}: exported as '{self.manifest.format}', which onnxruntime cannot run")
        files = {name: folder / graph.file for name, graph in self.manifest.graphs.items()}
        self._graphs = _openvino(files, threads) if device == OPENVINO else _onnxruntime(files, device, threads)
        self._mean = np.array(self.manifest.mean, np.float32)
        self._std = np.array(self.manifest.std, np.float32)

    @property
    def device(self) -> torch.device:
        """Where the outputs are: the CPU."""
        return torch.device("cpu")

    @property
    def num_entities(self) -> int:
        """Q."""
        return self.manifest.num_entities

    @property
    def ids(self) -> str:
        """What an entity of a whole video is: "queries" or "tracks"."""
        return self.manifest.ids

    @property
    def image_size(self) -> int:
        """S."""
        return self.manifest.image_size

    def at_speed(self, speed: Any) -> Any:
        """Raises ConfigError: an exported model is what it is."""
        raise ConfigError("inference.fast: an exported model has no levels of speed")

    def initial_state(self) -> BankState:
        """State before the first frame."""
        return BankState()

    def prepare(self, frame: np.ndarray) -> Tensor:
        """uint8 [H, W, 3] RGB -> normalised [3, S, S]."""
        side = self.manifest.image_size
        resized = np.asarray(Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC), np.float32)
        return torch.from_numpy(((resized / 255 - self._mean) / self._std).transpose(2, 0, 1).copy())

    def encode(self, images: Tensor) -> list[Any]:
        """Features of frames [B, 3, S, S], one after the other."""
        return [SimpleNamespace(**self._run("encode", {"image": image[None]})) for image in images]

    def propagate(self, features: Any, state: BankState) -> tuple[FrameOutput, BankState]:
        """The part of a step after the encoders."""
        inputs = dict(vars(features))
        if state.bank is None or state.points is None:
            output = self._run("first", inputs)
        else:
            there = torch.arange(self.manifest.num_memories) < state.filled
            output = self._run("propagate", {**inputs, "points": state.points, "bank": state.bank, "filled": there})
        written = {"cells": features.cells, "mask_logits": output["mask_logits"]}
        memory = self._run("memorize", written)["memory"]
        bank = state.bank
        if bank is None:
            bank = memory.new_zeros(self.manifest.num_memories, *memory.shape)
        bank = torch.cat([memory[None], bank[:-1]])
        filled = min(state.filled + 1, self.manifest.num_memories)
        points = output.pop("next_points")
        return FrameOutput(**output, points=points), BankState(points, bank, filled)

    def _run(self, graph: str, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        results = self._graphs[graph]({name: value.numpy() for name, value in inputs.items()})
        return {name: torch.from_numpy(result) for name, result in results.items()}


def _openvino(files: dict[str, Path], threads: int) -> dict[str, GraphFunction]:
    """The graphs as functions, run by OpenVINO."""
    require("openvino", extra="openvino")
    import openvino

    # Its default is bfloat16 on processors with units for it, which changes masks.
    settings = {"INFERENCE_PRECISION_HINT": "f32"} | ({"INFERENCE_NUM_THREADS": threads} if threads else {})

    def function_of(file: Path) -> GraphFunction:
        graph = openvino.Core().compile_model(str(file), "CPU", settings)
        wanted = [port.get_any_name() for port in graph.inputs]
        outputs = [port.get_any_name() for port in graph.outputs]

        def call(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            found = graph({name: inputs[name] for name in wanted})
            return {name: found[index].copy() for index, name in enumerate(outputs)}  # the next call overwrites them

        return call

    return {name: function_of(file) for name, file in files.items()}


def _onnxruntime(files: dict[str, Path], device: str, threads: int) -> dict[str, GraphFunction]:
    """The graphs as functions, run by onnxruntime."""
    require("onnxruntime")
    import onnxruntime

    provider = PROVIDERS.get("cpu" if device == "auto" else device)
    if provider is None or provider not in onnxruntime.get_available_providers():
        there = [name for name, known in PROVIDERS.items() if known in onnxruntime.get_available_providers()]
        raise ConfigError(f"device '{device}': this onnxruntime has {', '.join(there)}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # int8 weights become float32 once, when opened

    def function_of(file: Path) -> GraphFunction:
        session = onnxruntime.InferenceSession(str(file), options, providers=[provider])
        wanted = [spec.name for spec in session.get_inputs()]  # the exporter drops inputs that a graph does not use
        outputs = [spec.name for spec in session.get_outputs()]
        return lambda inputs: dict(zip(outputs, session.run(outputs, {name: inputs[name] for name in wanted})))

    return {name: function_of(file) for name, file in files.items()}
