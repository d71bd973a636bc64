"""Interface of the promptable segmenter: a point prompt gives three masks with scores."""

from typing import Protocol

from torch import Tensor


class PromptableImage(Protocol):
    """One encoded image that can be prompted with points.

    Attributes:
        features: float [C, fh, fw] image features whose grid covers the image exactly (no padding).
        mask_size: (h, w) of the mask grid, which covers the image exactly; about 256 cells along the longer side.
    """

    features: Tensor
    mask_size: tuple[int, int]

    def predict(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Prompts every point on its own (one positive click).

        Args:
            points: float [P, 2] as (x, y) pixels of the image; pixel centres lie at .5.

        Returns:
            mask logits [P, 3, h, w], positive inside, in any order, and the predicted IoU of each mask, [P, 3] in 0..1.
        """
        ...


class PromptableSegmenter(Protocol):
    """A frozen promptable segmenter, such as SAM. Stateless: `encode` returns everything that belongs to the image."""

    def encode(self, image: Tensor) -> PromptableImage:
        """Encodes one RGB image, uint8 [3, H, W]."""
        ...
