"""Sets of binary masks, packed 64 cells per word.

E-SAM compares thousands of masks. On the mask grid (256 cells along the longer side) a packed mask takes 5 KB: the
64 x 64 gallery fits in 50 MB, and an intersection takes a few hundred `and` + popcount instructions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

WORD = 64
_GATHER_BITS = 0x0102040810204080  # product with 8 bytes of 0 or 1: the top byte has their bits, first byte lowest


def pack(masks: Tensor) -> Tensor:
    """bool [N, h, w] -> int64 [N, h, ceil(w / 64)]; bits beyond w are 0."""
    padded = F.pad(masks, (0, -masks.shape[-1] % WORD))
    if masks.device.type == "cpu":  # torch has no packing operation; numpy's is vectorised
        return _from_octets(np.packbits(padded.numpy(), bitorder="little"), padded.shape)
    octets = (padded.contiguous().view(torch.int64) * _GATHER_BITS) >> 56  # 8 bools of a byte each -> 8 bits
    return octets.to(torch.uint8).view(torch.int64)  # 8 octets -> a word


def pack_above(logits: Tensor, threshold: float, index: Tensor | None = None) -> Tensor:
    """`pack(logits[index] > threshold)`, on a CPU without a copy of the logits.

    Args:
        logits: float [N, h, w].
        index: int64 [n] selected masks; None = all.
    """
    if logits.device.type != "cpu":
        return pack((logits if index is None else logits[index]) > threshold)
    chosen = range(len(logits)) if index is None else index.tolist()
    height, width = logits.shape[1:]
    above = np.zeros((height, width + -width % WORD), bool)
    octets = np.empty((len(chosen), above.size // 8), np.uint8)
    values = logits.float().numpy()
    # One mask at a time fits in the cache: ten times as fast as all masks at once.
    for row, number in enumerate(chosen):
        np.greater(values[number], threshold, out=above[:, :width])
        octets[row] = np.packbits(above.reshape(-1), bitorder="little")
    return _from_octets(octets, torch.Size((len(chosen), *above.shape)))


def _from_octets(octets: np.ndarray, shape: torch.Size) -> Tensor:
    """uint8 with 8 cells each -> int64 words of bool masks of a shape [N, h, a multiple of 64]."""
    return torch.from_numpy(octets.view(np.int64)).view(*shape[:2], shape[2] // WORD)


def unpack(words: Tensor, width: int) -> Tensor:
    """int64 [..., W] -> bool [..., width]; the inverse of `pack` along the last dimension."""
    octets = words.contiguous().view(torch.uint8)
    if words.device.type == "cpu":
        bits = np.unpackbits(octets.numpy(), axis=-1, count=width, bitorder="little")
        return torch.from_numpy(bits.view(bool))
    shifts = torch.arange(8, dtype=torch.uint8, device=words.device)
    return ((octets[..., None] >> shifts) & 1).flatten(-2)[..., :width].bool()


def popcount(words: Tensor) -> Tensor:
    """Set bits of every word: int64 -> int64 (uint8 range 0..64) of the same shape."""
    if words.device.type == "cpu" and hasattr(np, "bitwise_count"):  # numpy >= 2: one instruction per word
        # For signed words numpy counts the bits of the absolute value.
        return torch.from_numpy(np.bitwise_count(words.numpy().view(np.uint64)).astype(np.int64))
    # Counts of 2, 4 and 8 bits side by side; the product adds the eight bytes up in the top one.
    words = words - ((words >> 1) & 0x5555555555555555)
    words = (words & 0x3333333333333333) + ((words >> 2) & 0x3333333333333333)
    words = (words + (words >> 4)) & 0x0F0F0F0F0F0F0F0F
    return (words * 0x0101010101010101) >> 56


def areas(words: Tensor) -> Tensor:
    """Cells of every packed mask [N, h, W] -> int64 [N]."""
    return popcount(words).sum((-2, -1))


def boxes(words: Tensor, width: int) -> Tensor:
    """Smallest boxes around packed masks [N, h, W] -> int64 [N, 4] as (x0, y0, x1, y1), ends exclusive; empty: zeros."""
    count = len(words)
    if not count:
        return torch.zeros(0, 4, dtype=torch.int64, device=words.device)
    columns = unpack(_or_reduce(words), width)  # [N, w] columns with a cell
    rows = (words != 0).any(2)  # [N, h] rows with a cell
    x0, x1 = _span(columns)
    y0, y1 = _span(rows)
    return torch.stack([x0, y0, x1, y1], 1) * rows.any(1, keepdim=True)


def _or_reduce(words: Tensor) -> Tensor:
    """Bitwise or over the rows of packed masks: [N, h, W] -> [N, W]."""
    if words.device.type == "cpu":
        return torch.from_numpy(np.bitwise_or.reduce(words.numpy(), axis=1))
    while words.shape[1] > 1:
        half = words.shape[1] // 2
        rest = words[:, 2 * half :]
        words = torch.cat([words[:, :half] | words[:, half : 2 * half], rest], 1)
    return words[:, 0]


def _span(present: Tensor) -> tuple[Tensor, Tensor]:
    """First and one past the last True of each row of [N, n]."""
    first = present.int().argmax(1)
    return first, present.shape[1] - present.flip(1).int().argmax(1)


def to_half(logits: Tensor, index: Tensor | None = None) -> Tensor:
    """Logits [N, h, w] (those at `index`, int64 [n]) in half precision; large values may become infinite."""
    if index is None:
        return logits.half()
    if logits.device.type != "cpu":
        return logits[index].half()
    kept = torch.empty(len(index), *logits.shape[1:], dtype=torch.half)
    for row, number in enumerate(index.tolist()):  # as in `pack_above`
        kept[row].copy_(logits[number])
    return kept


@dataclass
class MaskSet:
    """N binary masks on one grid, with scores, prompts and areas.

    Attributes:
        words: int64 [N, h, ceil(w / 64)], packed.
        width: w.
        scores: float [N] predicted IoU in 0..1.
        points: float [N, 2] (x, y) image pixels of the prompt of each mask.
        areas: int64 [N] in cells.
        logits: half [N, h, w] mask logits, only if the masks are rendered later; else None.
    """

    words: Tensor
    width: int
    scores: Tensor
    points: Tensor
    areas: Tensor
    logits: Tensor | None = None

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index: Tensor | slice) -> "MaskSet":
        """The masks at a slice, an index or a bool tensor."""
        logits = None if self.logits is None else self.logits[index]
        return replace(
            self,
            words=self.words[index],
            scores=self.scores[index],
            points=self.points[index],
            areas=self.areas[index],
            logits=logits,
        )

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the grid."""
        return self.words.shape[1], self.width

    @property
    def masks(self) -> Tensor:
        """bool [N, h, w]."""
        return unpack(self.words, self.width)

    @staticmethod
    def from_logits(logits: Tensor, scores: Tensor, points: Tensor) -> "MaskSet":
        """Masks = logits [N, h, w] > 0; the logits are kept."""
        words = pack_above(logits, 0.0)
        return MaskSet(words, logits.shape[-1], scores, points, areas(words), to_half(logits))

    @staticmethod
    def cat(sets: Sequence["MaskSet"]) -> "MaskSet":
        """All masks of several sets on the same grid, in order. Logits are kept if every set has them."""
        kept = [s.logits for s in sets if s.logits is not None]
        return MaskSet(
            torch.cat([s.words for s in sets]),
            sets[0].width,
            torch.cat([s.scores for s in sets]),
            torch.cat([s.points for s in sets]),
            torch.cat([s.areas for s in sets]),
            torch.cat(kept) if len(kept) == len(sets) else None,
        )


def label_counts(masks: MaskSet, labels: Tensor, num_labels: int) -> Tensor:
    """Number of cells of each label inside each mask.

    Args:
        masks: N masks.
        labels: int64 [h, w] in 0..num_labels - 1.

    Returns:
        float32 [N, num_labels], exact.
    """
    values = torch.arange(num_labels, device=labels.device)[:, None, None]
    regions = pack(labels == values)  # [num_labels, h, W]
    counts = torch.zeros(len(masks), num_labels, device=labels.device)
    step = max(1, (1 << 21) // max(1, regions.numel()))  # bounds the intersections to 16 MB
    for start in range(0, len(masks), step):
        shared = masks.words[start : start + step, None] & regions  # [step, num_labels, h, W]
        counts[start : start + step] = popcount(shared).sum((2, 3)).float()
    return counts
