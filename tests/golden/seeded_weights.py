"""Weights that follow from their names, shapes and a seed, so that golden outputs need no weight file.

The published reference got the same ones when the golden numbers were made. Every tensor has a Philox generator of its
own, keyed by the first 8 bytes of SHA-256("seed:name"), and is drawn as float32 normal values x, of which become

    gamma                               0.5 + 0.1 x      (layer scale)
    vectors called weight               1 + 0.1 x        (norms)
    other vectors and scalars           0.05 x           (biases)
    matrices and kernels called weight  x / sqrt(fan in)
    everything else                     0.3 x            (embeddings, codes)
"""

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def seeded_tensor(name: str, shape: Sequence[int], seed: int) -> Tensor:
    """The float32 tensor of a published name."""
    key = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little")
    x = np.random.Generator(np.random.Philox(key)).standard_normal(math.prod(shape), dtype=np.float32)
    x = x.reshape(tuple(shape))
    leaf = name.rpartition(".")[2]
    if leaf == "gamma":
        value = 0.5 + 0.1 * x
    elif len(shape) <= 1:
        value = 1 + 0.1 * x if leaf == "weight" else 0.05 * x
    elif leaf in ("weight", "in_proj_weight"):
        value = x / np.sqrt(math.prod(shape[1:]))
    else:
        value = 0.3 * x
    return torch.from_numpy(value.astype(np.float32))


def seeded_state_dict(manifest: Mapping[str, Sequence[int]], seed: int) -> dict[str, Tensor]:
    """{published name: shape} -> {published name: tensor}."""
    return {name: seeded_tensor(name, shape, seed) for name, shape in manifest.items()}
