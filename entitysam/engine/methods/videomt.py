"""VidEoMT (Norouzi et al., 2026) as `transformers` has it: a plain vision transformer whose queries go on from frame to frame.

It is trained for closed sets of classes; here the classes only say how sure a query is, and the masks are those of any entity.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from torchvision.transforms.v2 import functional as images_to

from entitysam.engine.build import pick_device
from entitysam.engine.methods.context import MethodContext
from entitysam.errors import CheckpointError
from entitysam.inference.segmenter import VideoSegmenter
from entitysam.registry import METHODS, ConfigError
from entitysam.shipped import RANDOM
from entitysam.structures import FrameOutput

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of `VideomtVideoProcessor`
FILES = ("config.json", "model.safetensors")  # of a release


@METHODS.register("videomt")
def videomt(
    context: MethodContext,
    weights: str = "checkpoints/videomt",
    config: Mapping[str, Any] | None = None,
    inference: Mapping[str, Any] | None = None,
) -> VideoSegmenter:
    """VidEoMT, whose queries are merged over the video by EntitySAM's protocol (mean scores; `PanopticMerge`).

    Args:
        context: of the run.
        weights: folder of a release (config.json, model.safetensors); nothing is downloaded. "random" for random weights.
        config: with random weights, keys of `transformers.VideomtConfig`.
        inference: keys that differ from the run's, e.g. `videomt:inference.score_threshold=0.5`.

    Raises:
        ConfigError: `transformers` is not installed, or too old; unknown keys.
        CheckpointError: the folder or a file is missing, or is no VidEoMT.
    """
    network = VidEoMT(open_network(weights, config, context.seed).to(pick_device(context.device)))
    plain = {"warmup_frames": 0, "hole_area": 0, "fast": 0, "appearance": "none"}  # parts of EntitySAM
    return VideoSegmenter(network, **{**context.inference, **plain, **(inference or {})})


def open_network(weights: str, config: Mapping[str, Any] | None = None, seed: int = 0) -> Any:
    """`VideomtForUniversalSegmentation` in eval mode on the CPU; arguments and errors as for `videomt`."""
    try:
        from huggingface_hub.errors import StrictDataclassError
        from transformers import VideomtConfig, VideomtForUniversalSegmentation
    except ImportError as error:
        raise ConfigError("videomt needs transformers 5.4 or newer: pip install 'entitysam[videomt]'") from error
    if weights == RANDOM:
        torch.manual_seed(seed)
        try:
            return VideomtForUniversalSegmentation(VideomtConfig(**(config or {}))).eval()
        except (TypeError, ValueError, AttributeError, StrictDataclassError) as error:
            raise ConfigError(f"method.config: {' '.join(str(error).split())}") from error
    folder = Path(weights)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: no {missing[0]}; a release of VidEoMT in the layout of transformers is needed"
        )
    try:
        network, report = VideomtForUniversalSegmentation.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, TypeError, ValueError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        raise CheckpointError(f"{folder}: not weights of VidEoMT ({str(error).splitlines()[0]})") from error
    wrong = sorted({*report["missing_keys"], *report["unexpected_keys"]})
    if wrong:  # transformers only warns
        raise CheckpointError(f"{folder}: not weights of VidEoMT ({wrong[0]} is missing or unknown)")
    return network.eval()


@dataclass
class LastQuery:
    """State between frames: tokens [1, Q, C] of the queries after the last frame."""

    tokens: Tensor | None = None


class VidEoMT:
    """VidEoMT as a `FrameModel`: its frames one by one instead of a clip at once, with the same numbers.

    Args:
        network: `transformers.VideomtForUniversalSegmentation` in eval mode.
    """

    def __init__(self, network: Any) -> None:
        self.network = network
        self.num_entities: int = network.config.num_queries
        size = network.config.image_size
        self.size = (size, size) if isinstance(size, int) else tuple(size)

    @property
    def device(self) -> torch.device:
        return self.network.device

    def initial_state(self) -> LastQuery:
        return LastQuery()

    def prepare(self, frame: np.ndarray) -> Tensor:
        """uint8 [H, W, 3] RGB -> normalised [3, S, S], as by `VideomtVideoProcessor`."""
        pixels = torch.from_numpy(frame).to(self.device).permute(2, 0, 1)
        resized = images_to.resize(pixels, list(self.size), antialias=True).float()  # bilinear
        return images_to.normalize(resized / 255, list(MEAN), list(STD))

    def encode(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] -> [B, N, C] the tokens of each frame after the layers that the queries do not enter."""
        tokens = self.network.embeddings(images)
        for layer in self._layers(slice(None, -self.network.config.num_blocks)):
            tokens = layer(tokens)
        return tokens

    def propagate(self, features: Tensor, state: LastQuery) -> tuple[FrameOutput, LastQuery]:
        """The queries on the next frame."""
        query = self.network.query.weight[None]  # [1, Q, C]
        if state.tokens is not None:
            query = self.network.query_updater(state.tokens) + query
        tokens = torch.cat([query, features[None]], dim=1)
        for layer in self._layers(slice(-self.network.config.num_blocks, None)):
            tokens = layer(tokens)
        masks, classes = self.network.predict(self.network.layernorm(tokens))
        score = classes[0].float().softmax(-1)[:, :-1].amax(-1)  # the last class is "no object"
        unknown = torch.zeros(len(score), 2, device=score.device)
        output = FrameOutput(masks[0], score, unknown, unknown, score)
        return output, LastQuery(tokens[:, : self.num_entities])

    def _layers(self, some: slice) -> Any:
        return self.network.layers[some]
