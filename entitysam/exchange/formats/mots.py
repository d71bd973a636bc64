"""MOTS Challenge and KITTI MOTS as text: frame (from 0), 1000 * class + id, class, height, width, run-length code."""

from pathlib import Path

from entitysam.exchange.formats.maps import MOTS_CLASS, MOTS_IDS, _check_largest, mots_id
from entitysam.exchange.video import Entity, Instance, TrackedVideo, check_video, checked_mask, encode, new_file
from entitysam.io.files import whole_file
from entitysam.io.readers.base import InputError

IGNORED_CLASS = 10


def write_mots_txt(video: TrackedVideo, out: Path) -> None:
    """One line per entity and frame. Masks must not overlap: the smallest one is on top."""
    _check_largest(video, MOTS_IDS - 1, "a MOTS line")
    with whole_file(new_file(out)) as temporary, temporary.open("w", encoding="ascii") as file:
        for index, found in enumerate(video.by_frame()):
            ids = video.id_map(found)
            for entity, _ in found:
                mask = ids == entity.id
                if mask.any():
                    number = MOTS_CLASS * MOTS_IDS + entity.id
                    file.write(f"{index} {number} {MOTS_CLASS} {video.height} {video.width} {encode(mask)['counts']}\n")


def read_mots_txt(path: Path) -> TrackedVideo:
    """A MOTS text file. It has neither names of frames nor those behind the last entity; objects of class 10 are left out.

    Raises:
        InputError: a line that cannot be used.
    """
    entities: dict[int, Entity] = {}
    size: tuple[int, int] | None = None
    last = -1
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    for place, line in enumerate(lines, start=1):
        parts = line.split()
        if not parts:
            continue
        if len(parts) != 6 or not all(part.isdecimal() and len(part) < 10 for part in parts[:5]):
            raise InputError(f"{path}: line {place}: not 'frame id class height width code'")
        frame, number, category, height, width = map(int, parts[:5])
        if size is None:
            size = width, height
        if size != (width, height):
            raise InputError(f"{path}: line {place}: {width}x{height}, not {size[0]}x{size[1]}")
        code = checked_mask({"size": [height, width], "counts": parts[5]}, size, f"{path}: line {place}")
        if frame >= 10**6:
            raise InputError(f"{path}: line {place}: frame {frame} is out of range")
        last = max(last, frame)
        if category == IGNORED_CLASS:
            continue
        entity = entities.setdefault(mots_id(number), Entity(mots_id(number)))
        if frame in entity.instances:
            raise InputError(f"{path}: line {place}: object {number} is on frame {frame} twice")
        entity.instances[frame] = Instance.of_mask(code)
    if size is None:
        raise InputError(f"{path}: no objects")
    frames = [f"{index:05d}" for index in range(last + 1)]
    return check_video(TrackedVideo(path.stem, *size, frames, list(entities.values())), str(path))
