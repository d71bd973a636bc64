"""How many wrong ids the review list of `entitysam serve` shows first.

Errors are made in exact maps of synthetic videos: two entities exchange their ids, an entity gets another id, is given to another
one, or is lost for three frames. An error is found by an entry on its frame (one more or less) that names one of its entities.

Example: python tools/benchmark.py review --videos 20 --frames 72 --errors 8
"""

import argparse
from collections import Counter

import numpy as np

from entitysam.data.synthetic.render import render_video
from entitysam.edits.review import find_instabilities

KINDS = ("swap", "split", "merge", "gap")
FIRST = (5, 10, 20)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--videos", type=int, default=20, metavar="N")
    parser.add_argument("--frames", type=int, default=72, metavar="N", help="per video")
    parser.add_argument("--errors", type=int, default=8, metavar="N", help="per video, a multiple of 4")
    parser.add_argument("--noise", type=float, default=0.0, metavar="P", help="share of border pixels that are wrong")


def run(arguments: argparse.Namespace) -> None:
    found: Counter[tuple[bool, int, str]] = Counter()
    total: Counter[str] = Counter()
    entries = 0
    for seed in range(arguments.videos):
        frames, ids, _ = render_video([seed, 77], arguments.frames)
        wrong, errors = inject_errors(ids, np.random.default_rng(seed), arguments.errors)
        if arguments.noise:
            wrong = jitter_borders(wrong, arguments.noise, np.random.default_rng([seed, 1]))
        total.update(kind for _, kind, _ in errors)
        for with_frames in (True, False):
            findings = find_instabilities(wrong, frames if with_frames else None)
            entries += len(findings) if with_frames else 0
            for count in FIRST:
                for frame, kind, entities in errors:
                    hit = any(abs(f.frame - frame) <= 1 and entities & set(f.ids) for f in findings[:count])
                    found[with_frames, count, kind] += hit
    print(
        f"{sum(total.values())} errors in {arguments.videos} videos; {entries / arguments.videos:.0f} entries per video"
    )
    print(f"{'':22}" + "".join(f"{kind:>10}" for kind in (*KINDS, "all")))
    for with_frames in (True, False):
        for count in FIRST:
            row = [found[with_frames, count, kind] for kind in KINDS]
            cells = [f"{hits}/{total[kind]}" for hits, kind in zip(row, KINDS)] + [
                f"{sum(row) / sum(total.values()):.3f}"
            ]
            name = f"{'maps and frames' if with_frames else 'maps alone'}, {count}"
            print(f"{name:22}" + "".join(f"{cell:>10}" for cell in cells))


def inject_errors(
    ids: np.ndarray, rng: np.random.Generator, count: int
) -> tuple[np.ndarray, list[tuple[int, str, set[int]]]]:
    """Maps [T, H, W] with errors, and (frame, kind, entities) of each; entities of at least 150 pixels are chosen."""
    ids, errors, new = ids.copy(), [], int(ids.max()) + 1
    times = np.sort(rng.choice(np.arange(4, len(ids) - 4, 7), count, replace=False))
    for time, kind in zip(times.tolist(), rng.permutation(list(KINDS) * (count // len(KINDS))).tolist()):
        sizes = zip(*np.unique(ids[time], return_counts=True))
        large = [int(i) for i, n in sizes if i and n > 150 and (ids[time - 1] == i).sum() > 150]
        if len(large) < 2:
            continue
        one, other = rng.choice(large, 2, replace=False).tolist()
        rest = ids[time:]
        if kind == "swap":
            first, second = rest == one, rest == other
            rest[first], rest[second] = other, one
            errors.append((time, kind, {one, other}))
        elif kind == "split":
            rest[rest == one] = new
            errors.append((time, kind, {one, new}))
            new += 1
        elif kind == "merge":
            rest[rest == one] = other
            errors.append((time, kind, {one, other}))
        else:
            gap = ids[time : time + 3]
            gap[gap == one] = 0
            errors.append((time, kind, {one}))
    return ids, errors


def jitter_borders(ids: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Moves whole rows and columns of the maps by up to 2 pixels and drops a share of the pixels near borders, anew per frame."""
    noisy = np.empty_like(ids)
    for frame, id_map in enumerate(ids):
        moved = np.roll(id_map, rng.integers(-2, 3, 2).tolist(), (0, 1))
        border = np.zeros(id_map.shape, bool)
        border[1:] |= moved[1:] != moved[:-1]
        border[:, 1:] |= moved[:, 1:] != moved[:, :-1]
        noisy[frame] = np.where(border & (rng.random(id_map.shape) < share), 0, moved)
    return noisy
