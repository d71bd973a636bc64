"""Runs the published implementation on the synthetic clip and writes the arrays that the model is compared with.

Example: python tests/golden/model/make.py vits256_clip --reference path/to/published/checkout
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[2] / "tools"), str(HERE.parent)]

from benchmarks._reference import Reference  # noqa: E402
from seeded_weights import seeded_state_dict  # noqa: E402

MEAN, STD = (np.array(values, np.float32) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
CASES: dict[str, dict[str, Any]] = {
    "vits256_clip": {
        "model": "vits",
        "decoder_depth": 4,
        "image_size": 256,
        "weight_seed": 11,
        "frames": [f"{index:05d}.png" for index in range(8)],
        "progress_order": [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7],
    },
    "vitl256_clip": {
        "model": "vitl",
        "decoder_depth": 8,
        "image_size": 256,
        "weight_seed": 12,
        "frames": ["00000.png", "00003.png", "00006.png"],
        "progress_order": [0, 0, 1, 2],
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--reference", type=Path, required=True, help="checkout of the published EntitySAM")
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    case = CASES[arguments.case]
    files = [HERE.parent / "clip" / "frames" / name for name in case["frames"]]
    images = [read_image(file, case["image_size"]) for file in files]
    arrays, stats = run_case(case, torch.stack(images), arguments.reference)
    np.savez_compressed(arguments.out / f"{arguments.case}.npz", **arrays)
    facts = {"name": arguments.case, **case, "torch": torch.__version__, "stats": stats}
    (arguments.out / f"{arguments.case}.json").write_text(json.dumps(facts, indent=1) + "\n")


def read_image(path: Path, size: int) -> Tensor:
    """Normalised float [3, S, S]."""
    pixels = np.array(Image.open(path).convert("RGB").resize((size, size)), np.float32) / 255
    return torch.from_numpy((pixels - MEAN) / STD).permute(2, 0, 1)


def run_case(case: dict[str, Any], images: Tensor, checkout: Path) -> tuple[dict[str, np.ndarray], list[dict]]:
    """The arrays of one case (their meaning and sampling: README.md beside this file), and each frame's mask statistics."""
    manifest = json.loads((HERE / f"manifest_{case['model']}.json").read_text())
    weights = seeded_state_dict(manifest, case["weight_seed"])
    size = case["image_size"]
    reference = Reference(checkout, case["model"], size, weights, torch.device("cpu"), fill_holes=True)
    taps = Taps(reference.predictor, size)
    every: dict[str, list[Tensor]] = {key: [] for key in ("images", "mask_logits", "eiou", "points", "pred_iou")}
    stats = []
    stride = max(1, size // 4 // 32)
    sequence = images[case["progress_order"]]
    for image, output in zip(sequence, reference.propagate(sequence)):
        masks = output.mask_logits
        every["images"].append(image[:, ::16, ::16])
        every["mask_logits"].append(masks[:, ::stride, ::stride])
        every["eiou"].append(output.score)
        every["points"].append(reference.predictor.sampled_point_coords[0])
        stats.append({"mask_mean": masks.mean().item(), "mask_std": masks.std().item(),
                      "mask_pos": (masks > 0).float().mean().item()})  # fmt: skip
    every["pred_iou"] = taps.every.pop("pred_iou")
    stacked = {key: torch.stack(values) for key, values in (every | taps.every).items()}
    return {key: value.float().numpy() for key, value in (stacked | taps.first).items()}, stats


class Taps:
    """Forward hooks that keep samples of what passes between the parts of the published model."""

    def __init__(self, predictor: torch.nn.Module, size: int):
        self.every: dict[str, list[Tensor]] = {}
        self.first: dict[str, Tensor] = {}
        cells = size // 16
        step = max(1, cells // 8)
        part = predictor.get_submodule
        part("image_encoder").register_forward_hook(lambda m, i, o: self._pyramid(o["backbone_fpn"], size))
        part("dinov2_feature_extractor.patch_embed").register_forward_pre_hook(
            lambda m, i: self._keep("dino_in", i[0][0, :, ::14, ::14])
        )
        part("dinov2_projector").register_forward_hook(
            lambda m, i, o: self._keep("dino_out", i[0][0, :: max(1, cells * cells // 64), :64])
        )
        part("memory_encoder").register_forward_hook(lambda m, i, o: self._memory(o, step))
        self._tap(part("memory_attention"), "memory_attention", lambda o: o[:: cells * cells // 16, :, :16])
        self._tap(part("offset_fc"), "point_offsets", lambda o: o)
        self._tap(part("offset_cls"), "entity_logits", lambda o: o)
        self._tap(part("sam_mask_decoder"), "pred_iou", lambda o: o[1])
        part("sam_mask_decoder").register_forward_pre_hook(lambda m, i, k: self._decoder(k, step), with_kwargs=True)

    def _tap(self, module: torch.nn.Module, name: str, sample: Callable[[Any], Tensor]) -> None:
        module.register_forward_hook(lambda m, i, o: self._append(name, sample(o)))

    def _append(self, name: str, value: Tensor) -> None:
        self.every.setdefault(name, []).append(value.clone())

    def _keep(self, name: str, value: Tensor) -> None:
        self.first.setdefault(name, value.clone())

    def _pyramid(self, maps: list[Tensor], size: int) -> None:
        for level, (stride, channels) in enumerate(((4, 16), (8, 16), (16, 32))):
            step = size // stride // 16
            self._keep(f"fpn{level}", maps[level][0, :channels, ::step, ::step])

    def _memory(self, output: dict[str, Any], step: int) -> None:
        self._append("memory", output["vision_features"][:, :4, ::step, ::step])
        self._keep("memory_pos", output["vision_pos_enc"][0][0, :, ::step, ::step])

    def _decoder(self, arguments: dict[str, Tensor], step: int) -> None:
        self._append("fused", arguments["image_embeddings"][:, :4, ::step, ::step])
        self._append("sparse_prompts", arguments["sparse_prompt_embeddings"][..., :32])


if __name__ == "__main__":
    main()
