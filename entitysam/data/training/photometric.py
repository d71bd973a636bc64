"""Photometric augmentation of MASA's views: HSV jitter, and the five transforms of the supplement, section E."""

from collections.abc import Callable

import cv2
import numpy as np

Random = np.random.Generator
HSV_RANGES = np.array([5.0, 30.0, 30.0])  # maximum change of OpenCV's hue (0..179), saturation and value


def hsv_jitter(pixels: np.ndarray, rng: Random) -> np.ndarray:
    """Shifts hue, saturation and value of an image uint8 [H, W, 3] RGB, each with probability 0.5."""
    shift = rng.uniform(-1, 1, 3) * HSV_RANGES * (rng.random(3) < 0.5)
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV).astype(np.int16) + shift.astype(np.int16)
    hsv[..., 0] %= 180
    return cv2.cvtColor(hsv.clip(0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB)


def motion_blur(pixels: np.ndarray, rng: Random) -> np.ndarray:
    """Blurs along a line of random direction, of up to 3 % of the longer side."""
    length = max(3, int(max(pixels.shape) * rng.uniform(0.01, 0.03))) | 1
    line = np.zeros((length, length), np.float32)
    line[length // 2] = 1
    turn = cv2.getRotationMatrix2D((length // 2, length // 2), float(rng.uniform(0, 180)), 1.0)
    kernel = cv2.warpAffine(line, turn, (length, length))
    return cv2.filter2D(pixels, -1, kernel / kernel.sum())


def gaussian_noise(pixels: np.ndarray, rng: Random) -> np.ndarray:
    """Adds Gaussian noise with a standard deviation of 5 to 25 grey levels."""
    noise = rng.standard_normal(pixels.shape, np.float32) * rng.uniform(5, 25)
    return (pixels + noise).round().clip(0, 255).astype(np.uint8)


def snow(pixels: np.ndarray, rng: Random) -> np.ndarray:
    """Adds short white streaks in one direction and brightens the image slightly."""
    flakes = (rng.random(pixels.shape[:2], np.float32) < rng.uniform(0.002, 0.01)).astype(np.uint8) * 255
    streaks = cv2.dilate(motion_blur(cv2.dilate(flakes, np.ones((2, 2), np.uint8)), rng), np.ones((2, 2), np.uint8))
    brighter = pixels.astype(np.float32) * 0.9 + 25
    return np.maximum(brighter, streaks[..., None].astype(np.float32) * 1.5).clip(0, 255).astype(np.uint8)


def fog(pixels: np.ndarray, rng: Random) -> np.ndarray:
    """Blends with light grey, with spatially varying weight."""
    coarse = rng.random((4, 4), np.float32)
    cloud = cv2.resize(coarse, pixels.shape[1::-1], interpolation=cv2.INTER_CUBIC).clip(0, 1)[..., None]
    amount = rng.uniform(0.3, 0.7) * (0.5 + 0.5 * cloud)
    return (pixels * (1 - amount) + 225 * amount).round().clip(0, 255).astype(np.uint8)


def brightness(pixels: np.ndarray, rng: Random) -> np.ndarray:
    """Multiplies by 0.5 to 1.5."""
    return (pixels * rng.uniform(0.5, 1.5)).round().clip(0, 255).astype(np.uint8)


PHOTOMETRIC: list[Callable[[np.ndarray, Random], np.ndarray]] = [motion_blur, gaussian_noise, snow, fog, brightness]
