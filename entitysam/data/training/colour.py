"""Strong colour augmentation: brightness, contrast, gamma, colour balance, saturation, greyscale and blur."""

import cv2
import numpy as np


def colour_jitter(pixels: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Changes colours at random.

    Args:
        pixels: uint8 [H, W, 3] RGB.
        strength: 0 changes nothing; 1 changes brightness and contrast by up to a factor of 2.
        rng: draws the same numbers whatever the image is.

    Returns:
        uint8 [H, W, 3], a new array unless `strength` is 0.
    """
    if strength <= 0:
        return pixels
    brightness, contrast, gamma, saturation = np.exp(rng.uniform(-1, 1, 4) * strength * np.log(2))
    balance = np.exp(rng.normal(0, 0.12 * strength, 3))
    grey, blur = rng.random() < 0.2 * strength, rng.random() < 0.2 * strength
    sigma = rng.uniform(0.3, 1.5)
    value = np.linspace(0, 1, 256)[:, None] ** gamma
    table = ((value - 0.5) * contrast + 0.5) * brightness * balance
    changed = cv2.LUT(pixels, (table.clip(0, 1) * 255).astype(np.uint8)[:, None])
    luma = cv2.cvtColor(cv2.cvtColor(changed, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    keep = 0.0 if grey else min(saturation, 2.0)
    changed = cv2.addWeighted(changed, keep, luma, 1 - keep, 0)
    return cv2.GaussianBlur(changed, (0, 0), sigma) if blur else changed
