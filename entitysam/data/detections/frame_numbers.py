"""Which frame of a clip a frame number in a file means.

Files number frames from 0, from 1, or as their images are named, and rarely say so. A rule fits if every number of the
file is a frame of the clip, or every frame of the clip is in the file. The first rule that fits is taken:

| numbers | rules in order |
| --- | --- |
| any | numbers in the image names, where they are the same set |
| `frame_id` (from 0 by its specification) | from 0; from 1; numbers in the image names |
| MOT (from 1 by its specification) | numbers in the image names, where these do not begin at 0; from 1; from 0; numbers in the image names |
| `image_id` of COCO results | numbers in the image names; from 0; from 1 |
| in the image names of the file, for a video | from 0; from 1 |
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from entitysam.data.detections.records import NumberKey

BY_NAME = "the numbers in the image names"
ORDER: Mapping[NumberKey, tuple[str, ...]] = {
    "frame_id": ("0", "1", BY_NAME),
    "mot": ("1", "0", BY_NAME),
    "image_id": (BY_NAME, "0", "1"),
    "name": ("0", "1"),
}
KEY_NAMES: Mapping[NumberKey, str] = {
    "frame_id": "frame_id",
    "mot": "MOT frame number",
    "image_id": "image_id",
    "name": "number in the file's image names",
}
LAST_DIGITS = re.compile(r"(\d+)\D*$")
ESTIMATE = 0.9  # share of a file's numbers that must be in a video whose number of frames is an estimate


@dataclass(frozen=True)
class NumberRule:
    """Attributes: frame_of: number in the file -> position in the clip; text: the rule in words."""

    frame_of: Mapping[int, int]
    text: str


def find_rule(
    numbers: Sequence[int], positions: Sequence[int], names: Sequence[str], key: NumberKey, open_end: bool
) -> NumberRule | None:
    """The rule that a file's frame numbers follow.

    Args:
        numbers: of the file's frames.
        positions: of the clip's frames in the whole video, from 0; with a stride there are gaps.
        names: of the clip's images; empty where it has none (a video).
        key: what the numbers are.
        open_end: the clip may be cut off before the end of the video.

    Returns:
        None where no rule fits.
    """
    listed = set(numbers)
    rules = {first: {place + int(first): i for i, place in enumerate(positions)} for first in ("0", "1")}
    in_names = numbers_in(names)
    if in_names is not None:
        rules[BY_NAME] = in_names
    step = positions[1] - positions[0] if len(positions) > 1 else 1
    covered = {first: range(int(first), int(first) + positions[-1] + step) for first in ("0", "1") if positions}
    order = list(ORDER[key])
    if in_names is not None and (set(in_names) == listed or (key == "mot" and min(in_names) > 0)):
        order.insert(0, BY_NAME)
    for rule in order:
        frames = covered.get(rule, rules.get(rule))
        if frames and _fits(listed, frames, open_end and rule != BY_NAME):
            return NumberRule(rules[rule], _text(key, rule))
    natural = "1" if key == "mot" else "0"
    if not names and positions:  # the number of frames of a video is an estimate
        inside = sum(number in covered[natural] for number in listed)
        if inside >= ESTIMATE * len(listed):
            return NumberRule(rules[natural], _text(key, natural))
    return None


def _fits(listed: set[int], frames: Sequence[int] | Mapping[int, int] | range, open_end: bool) -> bool:
    if isinstance(frames, range):
        if min(listed) < frames.start:
            return False
        return open_end or max(listed) < frames.stop or all(number in listed for number in frames)
    known = set(frames)
    return listed <= known or known <= listed


def numbers_in(names: Sequence[str]) -> dict[int, int] | None:
    """Last number in each name -> position; None where a name has none, or two have the same."""
    found: dict[int, int] = {}
    for position, name in enumerate(names):
        digits = LAST_DIGITS.search(name)
        if digits is None or len(digits[1]) > 15 or int(digits[1]) in found:
            return None
        found[int(digits[1])] = position
    return found or None


def _text(key: NumberKey, rule: str) -> str:
    return f"{KEY_NAMES[key]}, {rule if rule == BY_NAME else f'counted from {rule}'}"
