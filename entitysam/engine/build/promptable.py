"""SAM 2.1 behind E-SAM; importing this module adds it to E-SAM's segmenters."""

from typing import Any

from entitysam.engine.build.opening import SAM2, open_model
from entitysam.esam.settings import SEGMENTERS
from entitysam.sam2.image import SAM2Segmenter


@SEGMENTERS.register("sam2")
def sam2_segmenter(
    model: str = "sam2_small",
    weights: str | None = None,
    device: str = "auto",
    amp: str = "fp32",
    overrides: dict[str, Any] | None = None,
) -> SAM2Segmenter:
    """SAM 2.1 as a segmenter of E-SAM.

    Args:
        model: "sam2_tiny", "sam2_small", "sam2_base_plus" or "sam2_large".
        weights: a file; None: its release file in `checkpoints/`; "random": untrained, for tests.
        device: see `engine.build.pick_device`; amp: see `SAM2Segmenter`.
        overrides: of the model's node, e.g. {image_size: 512}.

    Raises:
        ConfigError: unknown model, key or device.
        FileNotFoundError, CheckpointError: no weights, or not those of this model.
    """
    return SAM2Segmenter(open_model(model, weights, device=device, overrides=overrides, kind=SAM2).model, amp)
