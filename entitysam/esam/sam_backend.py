"""Published SAM ViT-B, ViT-L and ViT-H from the `segment-anything` package (extra `sam`)."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from entitysam.checkpoint import CheckpointError, read_weights
from entitysam.esam.interpolation import resample
from entitysam.hub import HubFile, fetch_from_hub
from entitysam.precision import AMP, autocast
from entitysam.registry import ConfigError
from entitysam.shipped import RANDOM

SHA256 = {  # of SAM's release
    "sam_vit_b_01ec64.pth": "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    "sam_vit_l_0b3195.pth": "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    "sam_vit_h_4b8939.pth": "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
}
HUB_REPOSITORY, HUB_REVISION = "ybelkada/segment-anything", "7790786db131bcdc639f24a915d9f2c331d843ee"
HUB_FILES = {
    name[4:9]: HubFile(HUB_REPOSITORY, f"checkpoints/{name}", HUB_REVISION, sha256) for name, sha256 in SHA256.items()
}
PATCH, MASK_STRIDE = 16, 4


@dataclass(frozen=True)
class SAMArchitecture:
    """Size of a SAM model.

    Attributes:
        width, depth, heads: of the ViT.
        global_layers: layers with global attention; the others use window attention.
        image_size: S, side of the square input; a multiple of 16.
        channels: C of the features.
    """

    width: int
    depth: int
    heads: int
    global_layers: tuple[int, ...]
    image_size: int = 1024
    channels: int = 256


ARCHITECTURES = {
    "vit_b": SAMArchitecture(768, 12, 12, (2, 5, 8, 11)),
    "vit_l": SAMArchitecture(1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": SAMArchitecture(1280, 32, 16, (7, 15, 23, 31)),
}


class SAMSegmenter:
    """A frozen SAM; see `entitysam.esam.protocol.PromptableSegmenter`.

    Args:
        model: a `segment_anything.modeling.Sam`; put into eval mode.
        device: "auto" (CUDA where there is one, else CPU) or a torch device. On a device other than CPU and CUDA the
            network runs there and its masks are copied to the CPU.
        amp: "fp32", "bf16" or "fp16", precision of the image encoder.
    """

    def __init__(self, model: Any, device: str = "auto", amp: str = "fp32"):
        if amp not in AMP:
            raise ConfigError(f"amp: fp32, bf16 or fp16, not '{amp}'")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.amp = amp
        self.model = model.to(self.device).eval().requires_grad_(False)

    @torch.no_grad()
    def encode(self, image: Tensor) -> "SAMImage":
        """Encodes one RGB image, uint8 [3, H, W]; resized and padded as in SAM."""
        side = self.model.image_encoder.img_size
        scale = side / max(image.shape[1:])
        height, width = (max(1, int(length * scale + 0.5)) for length in image.shape[1:])
        # SAM is trained with Pillow's antialiased resize.
        pixels = Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())
        resized = torch.from_numpy(np.array(pixels.resize((width, height), Image.Resampling.BILINEAR)))
        batch = self.model.preprocess(resized.permute(2, 0, 1)[None].to(self.device))
        with autocast(self.amp, self.device):
            features = self.model.image_encoder(batch)
        return SAMImage(self.model, features.float(), (height, width), scale)


class SAMImage:
    """An image encoded by `SAMSegmenter`; see `entitysam.esam.protocol.PromptableImage`."""

    def __init__(self, model: Any, padded: Tensor, input_size: tuple[int, int], scale: float):
        self._model = model
        self._padded = padded
        self._input_size = input_size
        self._scale = scale
        self._home = padded.device if padded.device.type in ("cpu", "cuda") else torch.device("cpu")
        self.features = _without_padding(padded[0], input_size, PATCH).to(self._home)
        self.mask_size = _grid(input_size, MASK_STRIDE)

    @torch.no_grad()
    def predict(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """See the protocol. Points are scaled to the input as by SAM's automatic mask generator."""
        encoder = self._model.prompt_encoder
        coordinates = (points.to(self._padded) * self._scale)[:, None]
        labels = torch.ones(coordinates.shape[:2], dtype=torch.int, device=coordinates.device)
        sparse, dense = encoder(points=(coordinates, labels), boxes=None, masks=None)
        logits, scores = self._model.mask_decoder(
            image_embeddings=self._padded,
            image_pe=encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        return _without_padding(logits, self._input_size, MASK_STRIDE).to(self._home), scores.to(self._home)


def _grid(input_size: tuple[int, int], stride: int) -> tuple[int, int]:
    return math.ceil(input_size[0] / stride), math.ceil(input_size[1] / stride)


def _without_padding(maps: Tensor, input_size: tuple[int, int], stride: int) -> Tensor:
    """Crops maps [..., S / stride, S / stride] to the image; resampled by less than a cell so that the borders coincide."""
    height, width = _grid(input_size, stride)
    if input_size == (height * stride, width * stride):
        return maps[..., :height, :width]
    scales = input_size[0] / stride / height, input_size[1] / stride / width
    return resample(maps, (0, height), (0, width), *scales)


def build_sam(architecture: SAMArchitecture) -> nn.Module:
    """A SAM with random weights.

    Raises:
        ConfigError: the package is not installed.
    """
    try:
        from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
    except ImportError as error:
        raise ConfigError("SAM needs the package segment-anything: pip install 'entitysam[sam]'") from error
    grid = architecture.image_size // PATCH
    channels = architecture.channels
    encoder = ImageEncoderViT(
        img_size=architecture.image_size,
        patch_size=PATCH,
        embed_dim=architecture.width,
        depth=architecture.depth,
        num_heads=architecture.heads,
        mlp_ratio=4,
        out_chans=channels,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=architecture.global_layers,
    )
    prompts = PromptEncoder(
        channels, (grid, grid), (architecture.image_size, architecture.image_size), mask_in_chans=16
    )
    transformer = TwoWayTransformer(depth=2, embedding_dim=channels, num_heads=8, mlp_dim=8 * channels)
    decoder = MaskDecoder(transformer_dim=channels, transformer=transformer)
    return Sam(encoder, prompts, decoder)


def sam_segmenter(
    model: str = "vit_h", weights: str | None = None, device: str = "auto", amp: str = "fp32"
) -> SAMSegmenter:
    """A published SAM.

    Args:
        model: "vit_b", "vit_l" or "vit_h".
        weights: a file; None: `checkpoints/` and then the hub; "random": untrained, for tests.
        device, amp: see `SAMSegmenter`.

    Raises:
        ConfigError: unknown model; package not installed.
        FileNotFoundError, CheckpointError: no weights, or not those of this model.
    """
    if model not in ARCHITECTURES:
        raise ConfigError(f"unknown SAM '{model}'; known: {', '.join(ARCHITECTURES)}")
    network = build_sam(ARCHITECTURES[model])
    if weights != RANDOM:
        _load(network, fetch_sam_weights(model) if weights is None else Path(weights), model)
    return SAMSegmenter(network, device, amp)


def fetch_sam_weights(model: str, folder: str | Path = "checkpoints") -> Path:
    """The published weights: from `folder`, the hub's cache, or downloaded with progress.

    Raises:
        CheckpointError: not to be had; the message says what to download and where to put it.
    """
    file = HUB_FILES[model]
    local = Path(folder) / Path(file.path).name
    if local.is_file():
        return local
    return fetch_from_hub(file, f"the weights of SAM {model}", local)


def _load(network: nn.Module, path: Path, model: str) -> None:
    state: dict[str, Any] = read_weights(path)[0]
    for name, value in state.items():
        dense = isinstance(value, Tensor) and value.layout == torch.strided and value.is_floating_point()
        if not isinstance(name, str) or not dense:
            raise CheckpointError(f"{path}: not the weights of SAM {model}: '{name}' is no dense floating-point tensor")
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: not the weights of SAM {model}: {reason}") from error
    for name, value in network.state_dict().items():
        if not bool(value.isfinite().all()):
            raise CheckpointError(f"{path}: '{name}' has values that are not finite")
