"""Reports versions, devices, codecs, data sets and weights, one per line, and problems with them.

The exit code is 0 unless something that entitysam needs is missing.

example:
  entitysam doctor
"""

import argparse
import importlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REQUIRED = (
    *("torch", "torchvision", "timm", "numpy", "scipy", "pillow", "hydra-core", "omegaconf", "fvcore", "av"),
    *("opencv-python-headless", "pycocotools", "safetensors", "huggingface_hub", "rich", "natsort"),
)
OPTIONAL = {"tensorboard": "training curves", "wandb": "training curves online", "openai": "naming entities by a VLM",
            "open_clip_torch": "naming entities by CLIP", "pyarrow": "bulk jobs", "ray": "bulk jobs on a cluster",
            "supervision": "its Detections", "rerun-sdk": "Rerun recordings", "segment-anything": "E-SAM with SAM's weights"}  # fmt: skip
DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg", "gif")


@dataclass
class Finding:
    """One line of the report: "ok", "warn" (optional) or "missing" (required)."""

    level: str
    topic: str
    text: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--datasets", type=Path, default=Path("datasets"), help="folder of data sets")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="folder of weights")


def run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    colours = {"ok": "green", "warn": "yellow", "missing": "red"}
    console = Console(highlight=False, soft_wrap=True)
    missing = 0
    for finding in examine(arguments.datasets, arguments.checkpoints):
        console.print(f"[{colours[finding.level]}]{finding.level:<8}[/]{finding.topic:<10}", end="")
        console.print(finding.text, markup=False)
        missing += finding.level == "missing"
    return 1 if missing else 0


def examine(datasets: Path, checkpoints: Path) -> Iterator[Finding]:
    """All findings, in the order of the report."""
    yield from find_versions()
    yield from find_devices()
    yield from find_codecs()
    yield from find_weights(checkpoints)
    yield from find_datasets(datasets)


def find_versions() -> Iterator[Finding]:
    level = "ok" if sys.version_info >= (3, 10) else "missing"
    yield Finding(level, "python", f"{platform.python_version()} on {platform.platform()}")
    for package in REQUIRED:
        try:
            yield Finding("ok", "package", f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            yield Finding("missing", "package", f"{package} is not installed")
    for package, purpose in OPTIONAL.items():
        try:
            yield Finding("ok", "package", f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            yield Finding("warn", "package", f"{package} is not installed (only for {purpose})")


def find_devices() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("missing", "device", f"torch cannot be loaded: {str(error).splitlines()[0]}")
        return
    yield Finding("ok", "device", f"cpu: {os.cpu_count()} cores, {torch.get_num_threads()} threads")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / 2**30
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        yield Finding("ok", "device", f"cuda:{index}: {properties.name}, {memory:.0f} GiB, {bf16}")
    if torch.backends.mps.is_available():
        yield Finding("ok", "device", "mps: Apple GPU")
    elif not torch.cuda.is_available():
        yield Finding("warn", "device", "no GPU that torch can use: the published models are slow on a CPU")


def find_codecs() -> Iterator[Finding]:
    try:
        import av

        from entitysam.io.writers.video import FALLBACK_ENCODER, find_encoder
    except (ImportError, OSError) as error:
        yield Finding("missing", "codec", f"PyAV cannot be loaded: {str(error).splitlines()[0]}")
        return
    lacking = [name for name in DECODERS if not _has_decoder(name)]
    found = ", ".join(name for name in DECODERS if name not in lacking)
    yield Finding("missing" if "h264" in lacking else "ok", "codec", f"reads {found} (PyAV {av.__version__})")
    for name in lacking:
        yield Finding("warn", "codec", f"cannot read {name}")
    encoder = find_encoder()
    plays = "which browsers may not play" if encoder == FALLBACK_ENCODER else "H.264"
    yield Finding("warn" if encoder == FALLBACK_ENCODER else "ok", "codec", f"writes mp4 with {encoder}, {plays}")


def _has_decoder(name: str) -> bool:
    import av

    try:
        av.Codec(name, "r")
    except ValueError:
        return False
    return True


def find_weights(folder: Path) -> Iterator[Finding]:
    from entitysam.cli.shared.models import tiny_weights
    from entitysam.shipped import HUB

    tiny = tiny_weights()
    text = (
        f"tiny: {tiny}"
        if tiny.is_file()
        else "tiny: not in this installation, `entitysam demo` runs with random weights"
    )
    yield Finding("ok" if tiny.is_file() else "warn", "weights", text)
    for name, file in HUB.items():
        place = folder / f"entitysam_{name}.pth"
        where = str(place) if place.is_file() else _in_hub_cache(file.repository, file.path)
        hint = f"not there; fetch it with: entitysam download {name}"
        yield Finding("ok" if where else "warn", "weights", f"{name}: {where or hint}")
    for other in sorted(p for p in folder.glob("*") if p.suffix in (".pt", ".pth", ".safetensors")):
        if other.resolve() != tiny.resolve() and not other.name.startswith("entitysam_vit"):
            yield Finding("ok", "weights", f"{other} ({other.stat().st_size / 2**20:.0f} MiB)")


def _in_hub_cache(repository: str, file: str) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file)
    return found if isinstance(found, str) else None


def find_datasets(folder: Path) -> Iterator[Finding]:
    found = sorted(p for p in folder.glob("*") if p.is_dir() and any(p.iterdir()))
    for dataset in found:
        parts = ", ".join(sorted(p.name for p in dataset.iterdir())[:6])
        yield Finding("ok", "data", f"{dataset}: {parts}")
    if not found:
        yield Finding("warn", "data", f"no data sets under {folder} (only for training and evaluation)")
