"""The manifest of an exported model: what its files take and give, with their hashes."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from entitysam.errors import CheckpointError
from entitysam.hub import sha256_of
from entitysam.io.json_files import check_type, load_json
from entitysam.io.paths import join_inside
from entitysam.shipped import EXPORT_MANIFEST as FILE

GRAPHS = ("encode", "first", "memorize", "propagate")


class TensorSpec(BaseModel):
    """A tensor of a graph."""

    name: str
    shape: list[int]
    dtype: str


class GraphFile(BaseModel):
    """A graph: its file and SHA-256, and its inputs and outputs in order."""

    file: str
    sha256: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]


class Manifest(BaseModel):
    """Content of `manifest.json`.

    Attributes:
        format: "onnx" or "torch".
        storage: of the weights in the files: "fp32", "fp16" or "int8".
        opset: of ONNX; 0 for "torch".
        torch: version of PyTorch that exported it.
        image_size: S; num_entities: Q; num_memories: M.
        ids: what an entity of a whole video is: "queries" or "tracks" (`inference.segmenter`).
        mean, std: of the normalisation, RGB in 0..1.
        preprocessing, protocol: how frames become inputs and how the graphs are called, in words.
        fingerprint: of the model: its config and the hash of its weights.
        graphs: by name: encode, first, memorize, propagate.
        parity: graph -> output -> largest absolute difference from PyTorch on the example inputs.
    """

    model_config = ConfigDict(extra="forbid")

    format: str
    storage: str = "fp32"
    opset: int
    torch: str
    image_size: int
    num_entities: int
    num_memories: int
    ids: Literal["queries", "tracks"] = "queries"
    mean: list[float]
    std: list[float]
    preprocessing: str
    protocol: str
    fingerprint: dict[str, Any]
    graphs: dict[str, GraphFile]
    parity: dict[str, dict[str, float]] = {}


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder, whose files are checked.

    Raises:
        FileNotFoundError: no manifest there.
        JsonError: a broken manifest.
        CheckpointError: a file of the manifest is missing or has another hash; a name that leaves the folder.
    """
    path = folder / FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no exported model (no {FILE}); `entitysam export` makes one")
    manifest: Manifest = check_type(load_json(path), Manifest, str(path))
    for name in GRAPHS:
        if name not in manifest.graphs:
            raise CheckpointError(f"{path}: lacks the graph '{name}'")
        graph = manifest.graphs[name]
        file = join_inside(folder, graph.file, str(path))
        if not file.is_file():
            raise CheckpointError(f"{file}: missing; export the model again")
        if sha256_of(file) != graph.sha256:
            raise CheckpointError(f"{file}: not the file that was exported (SHA-256 differs from {FILE})")
    return manifest
