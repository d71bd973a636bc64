"""Runs an exported model with onnxruntime and NumPy alone.

python example.py FOLDER frames.npy masks.npy
frames.npy: uint8 [T, S, S, 3] RGB, resized already. masks.npy: bool [T, Q, S/4, S/4], entities with a score below 0.05 empty.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

folder, frames, masks = Path(sys.argv[1]), np.load(sys.argv[2]), []
manifest = json.loads((folder / "manifest.json").read_text())
sessions = {
    name: onnxruntime.InferenceSession(str(folder / graph["file"])) for name, graph in manifest["graphs"].items()
}


def run(name, **inputs):
    session = sessions[name]
    names = [output.name for output in session.get_outputs()]
    wanted = {spec.name: inputs[spec.name] for spec in session.get_inputs()}
    return dict(zip(names, session.run(names, wanted)))


points, bank, filled = None, None, np.zeros(manifest["num_memories"], bool)
for frame in frames:
    image = ((frame / 255 - manifest["mean"]) / manifest["std"]).astype(np.float32).transpose(2, 0, 1)[None]
    features = run("encode", image=image)
    if bank is None:
        output = run("first", **features)
    else:
        output = run("propagate", **features, points=points, bank=bank, filled=filled)
    memory = run("memorize", cells=features["cells"], mask_logits=output["mask_logits"])["memory"]
    if bank is None:
        bank = np.zeros((len(filled), *memory.shape), np.float32)
    bank = np.concatenate([memory[None], bank[:-1]])
    filled = np.concatenate([[True], filled[:-1]])
    points = output["next_points"]
    masks.append((output["mask_logits"] > 0) & (output["score"] >= 0.05)[:, None, None])
np.save(sys.argv[3], np.stack(masks))
