"""Converts weights: published, training or own files -> safetensors with the model's config inside, or published names.

Examples:
  python tools/convert_checkpoint.py model_0009999.pth -o entitysam_vits.safetensors
  python tools/convert_checkpoint.py output/run/checkpoint_0010000.pt -o mine.safetensors
  python tools/convert_checkpoint.py sam_vitb_masa.pth --model masa_sam_vitb -o masa_sam_vitb.safetensors
  python tools/convert_checkpoint.py mine.safetensors -o model_published.pth --to published
"""

import argparse
import sys
from pathlib import Path

import safetensors.torch

import entitysam
from entitysam.checkpoint import CheckpointError, load_weights, save_weights, to_published
from entitysam.engine.build import config_of, model_config
from entitysam.engine.train.state import save_atomically


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("input", type=Path, help="weights: .safetensors, .pt or .pth")
    result.add_argument("-o", "--output", type=Path, required=True, help=".safetensors; with --to published also .pth")
    result.add_argument("--model", help="tiny, vits, vitl, masa_r50, ..., for a file without a config")
    result.add_argument("--to", choices=["entitysam", "published"], default="entitysam", help="tensor names to write")
    return result


def main() -> None:
    arguments = parser().parse_args()
    try:
        print(convert(arguments.input, arguments.output, arguments.model, arguments.to))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def convert(source: Path, target: Path, name: str | None, names: str) -> str:
    """Writes `target` and returns a line about it.

    Raises:
        ConfigError, CheckpointError, OSError: an input that cannot be read or is not a complete model; another suffix of the output.
    """
    suffixes = (".safetensors", ".pth") if names == "published" else (".safetensors",)
    if target.suffix not in suffixes:
        raise CheckpointError(f"{target}: the output must end in {' or '.join(suffixes)}")
    config = model_config(name) if name else config_of(source)
    model = entitysam.build_model(config)
    report = load_weights(model, source)
    if report.untouched:
        some = ", ".join(report.untouched[:3])
        raise CheckpointError(f"{source}: a {report.kind} release is not a complete model; it lacks {some}, ...")
    if names == "entitysam":
        save_weights(target, model, config)
    else:
        save_published(target, model)
    return f"{target}: {report.loaded} tensors with {names} names, from {report.kind} names"


def save_published(target: Path, model: entitysam.EntitySAM) -> None:
    """Writes published names: safetensors, or the layout of the published files {"model": tensors}."""
    target.parent.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in to_published(model.state_dict()).items()}
    if target.suffix == ".pth":
        save_atomically({"model": state}, target)
        return
    partial = target.with_name(target.name + ".partial")
    partial.write_bytes(safetensors.torch.save(state))
    partial.replace(target)


if __name__ == "__main__":
    main()
