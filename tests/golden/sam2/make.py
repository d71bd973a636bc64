"""Runs the public SAM 2 implementation on the synthetic clip and writes the masks that ours are compared with.

Example: python tests/golden/sam2/make.py --reference path/to/checkout/of/sam2
"""

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from seeded_weights import seeded_state_dict  # noqa: E402

MEAN, STD = (np.array(values, np.float32) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
CONFIGS = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}
SCORE_BIAS = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"
CLICK = ["points", 0, 1, [[150, 120]], [1], None, False]
CASES: dict[str, dict[str, Any]] = {
    # Click, box and mask on several objects; both directions; two corrections on a later frame; all again.
    "small256": {
        "size": "small", "image_size": 256, "seed": 21, "frames": 8,
        "steps": [
            ["points", 2, 5, [], [], [40, 40, 300, 170], False],
            ["points", 2, 7, [[150, 120], [40, 30]], [1, 0], None, False],
            ["mask", 3, 9, [60, 40, 300, 150]],
            ["propagate", False], ["propagate", True],
            ["points", 6, 5, [[100, 60]], [1], None, False],
            ["points", 6, 5, [[300, 170]], [0], None, True],
            ["propagate", False],
        ],
    },
    # The object score crosses zero: objects vanish and return. An empty mask says "not visible".
    "small256_occlusion": {
        "size": "small", "image_size": 256, "seed": 29, "frames": 8,
        "steps": [CLICK, ["mask", 0, 2, [0, 0, 0, 0]], ["mask", 0, 3, [60, 40, 300, 150]], ["propagate", False]],
    },
    "small512": {
        "size": "small", "image_size": 512, "seed": 23, "score_bias": 2.0, "frames": 3,
        "steps": [CLICK, ["points", 0, 2, [], [], [40, 40, 300, 170], False], ["propagate", False]],
    },
    "tiny256": {"size": "tiny", "image_size": 256, "seed": 24, "frames": 3, "steps": [CLICK, ["propagate", False]]},
    "base_plus256": {"size": "base_plus", "image_size": 256, "seed": 25, "score_bias": 2.0, "frames": 2, "steps": [CLICK, ["propagate", False]]},
    "large256": {"size": "large", "image_size": 256, "seed": 26, "frames": 2, "steps": [CLICK, ["propagate", False]]},
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="checkout of facebookresearch/sam2")
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    sys.path.insert(0, str(arguments.reference))
    for name in arguments.case or CASES:
        shapes, masks = run_case(CASES[name])
        manifest = arguments.out / f"manifest_{CASES[name]['size']}.json"
        manifest.write_text(json.dumps(shapes, separators=(",", ":")) + "\n")
        np.savez_compressed(arguments.out / f"{name}.npz", **masks)
        (arguments.out / f"{name}.json").write_text(json.dumps({**CASES[name], "torch": torch.__version__}) + "\n")
        print(name, {key: value.shape for key, value in masks.items()})


def run_case(case: dict[str, Any]) -> tuple[dict[str, list[int]], dict[str, np.ndarray]]:
    """Shapes of all tensors by name, and for step i the mask logits of all objects, "i" or "i_frame", every 6th pixel."""
    import sam2.sam2_video_predictor as module
    from sam2.build_sam import build_sam2_video_predictor

    predictor = build_sam2_video_predictor(
        f"configs/sam2.1/sam2.1_hiera_{CONFIGS[case['size']]}.yaml", None, device="cpu",
        hydra_overrides_extra=[
            f"++model.image_size={case['image_size']}",
            "++model.add_all_frames_to_correct_as_cond=true",  # a correction stays in memory
            "++model.fill_hole_area=0",  # needs a CUDA extension
        ],
    )  # fmt: skip
    # Memories stay in float32: the public code stores bfloat16 and reads it under autocast, which a CPU run has not.
    module.torch = SimpleNamespace(**{**vars(torch), "bfloat16": torch.float32})
    shapes = {name: list(tensor.shape) for name, tensor in predictor.state_dict().items()}
    weights = seeded_state_dict(shapes, case["seed"])
    weights[SCORE_BIAS] += case.get("score_bias", 0.0)
    predictor.load_state_dict(weights)
    files = sorted((HERE.parent / "clip" / "frames").glob("*.png"))[: case["frames"]]
    width, height = Image.open(files[0]).size
    images = torch.stack([read_image(file, case["image_size"]) for file in files])
    module.load_video_frames = lambda **arguments: (images, height, width)
    state = predictor.init_state("clip")
    masks: dict[str, np.ndarray] = {}

    def keep(key: str, logits: torch.Tensor) -> None:
        masks[key] = logits[:, 0, ::6, ::6].numpy()

    for number, (kind, *values) in enumerate(case["steps"]):
        if kind == "propagate":
            for index, _, logits in predictor.propagate_in_video(state, reverse=values[0]):
                keep(f"{number}_{index}", logits)
        elif kind == "mask":
            index, object_id, (x1, y1, x2, y2) = values
            mask = np.zeros((height, width), bool)
            mask[y1:y2, x1:x2] = True
            keep(str(number), predictor.add_new_mask(state, index, object_id, mask)[2])
        else:
            index, object_id, points, labels, box, extend = values
            given = {"points": points, "labels": labels} if points else {}
            logits = predictor.add_new_points_or_box(
                state, index, object_id, box=box, clear_old_points=not extend, **given
            )[2]
            keep(str(number), logits)
    return shapes, masks


def read_image(path: Path, size: int) -> torch.Tensor:
    """Normalised float [3, S, S]."""
    pixels = np.array(Image.open(path).convert("RGB").resize((size, size)), np.float32) / 255
    return torch.from_numpy((pixels - MEAN) / STD).permute(2, 0, 1)


if __name__ == "__main__":
    main()
