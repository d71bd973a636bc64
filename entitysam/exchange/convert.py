"""Every format by its name, and the two functions that convert."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import chain, count
from pathlib import Path
from typing import Any

from entitysam.errors import ConfigError
from entitysam.exchange.video import TrackedVideo, new_folder, read_result, write_result
from entitysam.io.files import as_stem
from entitysam.io.readers.base import InputError
from entitysam.io.record_store import file_stem
from entitysam.io.result_folder import TRACKS


@dataclass(frozen=True)
class Format:
    """A format of another program.

    Attributes:
        title: what it is.
        loses: what it cannot hold.
        module: below `exchange.formats`, with `write_<name>` and `read_<name>`.
        suffix: of its file; "" for a folder.
        several: one file or folder holds several videos.
        imports: it can be read.
        options: keyword arguments of its writer that a user may set.
    """

    title: str
    loses: str
    module: str
    suffix: str = ""
    several: bool = False
    imports: bool = True
    options: tuple[str, ...] = ()

    def writer(self, name: str) -> Callable[..., None]:
        return getattr(self._module(), f"write_{name.replace('-', '_')}")

    def reader(self, name: str) -> Callable[[Path], Any]:
        return getattr(self._module(), f"read_{name.replace('-', '_')}")

    def _module(self) -> Any:
        return import_module(f"entitysam.exchange.formats.{self.module}")


MAX_STEM = 150  # bytes of a file name, without suffix
NO_SCORES = "scores, names, times"
FORMATS = {
    "youtube-vis": Format("YouTube-VIS / OVIS json", "nothing", "coco", ".json", several=True),
    "coco-vid": Format("CocoVID json (MMTracking)", "nothing", "coco", ".json", several=True),
    "davis": Format("DAVIS palette PNGs", f"{NO_SCORES}, overlaps; ids end at 255", "maps"),
    "mots-png": Format("MOTS PNGs of 16 bits", f"{NO_SCORES}, overlaps; ids end at 999", "maps"),
    "mots-txt": Format("MOTS text", f"{NO_SCORES}, overlaps, names of frames; ids end at 999", "mots", ".txt"),
    "vipseg": Format("VIPSeg panoptic PNGs and json", "times, overlaps", "maps", several=False),
    "cvat": Format(
        "CVAT for video 1.1 (XML)", "scores, times, names of frames", "cvat", ".xml", options=("tolerance",)
    ),
    "label-studio": Format(
        "Label Studio video json", "masks, scores of frames, names of frames", "label_studio", ".json"
    ),
    "labelme": Format("LabelMe json per frame", "times, scores of entities", "labelme", options=("tolerance",)),
    "yolo": Format("YOLO segmentation (Ultralytics)", "ids, scores, times", "yolo", options=("tolerance",)),
    "fiftyone": Format("FiftyOne data set", "times, scores of entities", "fiftyone", several=True, imports=False),
    "rerun": Format("Rerun recording", "nothing", "rerun", ".rrd", imports=False),
    "sa-v": Format("SA-V json", "names, times, names of frames, scores of single frames", "sav", ".json"),
}


def export_result(result: str | Path, format: str, out: str | Path, **options: Any) -> Path:
    """Writes a result in the format of another program.

    Args:
        result: a result folder of `entitysam segment`, `track` or `label`, or an output of `entitysam bulk`.
        format: a name of `FORMATS`.
        out: file or folder to write, which must not exist (a folder may be empty). Where `result` holds several videos and
            the format one, a folder with a file or folder per video.
        options: of the format.

    Returns:
        `out`.

    Raises:
        ConfigError: unknown format or option.
        InputError: a result that cannot be read, or that the format cannot hold.
        OutputError: `out` exists, or cannot be written.
    """
    kind, out = find_format(format), Path(out)
    unknown = [name for name in options if name not in kind.options]
    if unknown:
        raise ConfigError(f"--to {format} has no option '{unknown[0]}'")
    videos = read_videos(Path(result))
    write = kind.writer(format)
    if kind.several:
        listed = list(videos)
        if not listed:
            raise InputError(f"{result}: no finished videos")
        write(listed, out, **options)
        return out
    first, second = next(videos, None), next(videos, None)
    if first is None:
        raise InputError(f"{result}: no finished videos")
    if second is None:
        write(first, out, **options)
        return out
    new_folder(out)
    stems = Stems()
    for video in chain([first, second], videos):  # one in memory at a time
        write(video, out / f"{stems.add(video.id)}{kind.suffix}", **options)
    return out


def import_result(path: str | Path, format: str, out: str | Path) -> Path:
    """Makes a result folder of a file or folder of another program.

    Args:
        path: to read.
        format: a name of `FORMATS`.
        out: result folder, which must not exist or be empty; for several videos, a folder with a result folder for each.

    Returns:
        `out`.

    Raises:
        ConfigError: unknown format, or one that cannot be read.
        InputError: `path` cannot be read; the message says where.
        OutputError: `out` is not empty, or cannot be written.
    """
    kind, path, out = find_format(format), Path(path), Path(out)
    if not kind.imports:
        raise ConfigError(f"--from {format}: this format can only be written")
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    found = kind.reader(format)(path)
    videos: Sequence[TrackedVideo] = found if isinstance(found, list) else [found]
    if not videos:
        raise InputError(f"{path}: no videos")
    if len(videos) == 1:
        write_result(videos[0], out)
        return out
    new_folder(out)
    stems = Stems()
    for video in videos:
        write_result(video, out / stems.add(video.id))
    return out


class Stems:
    """File names for videos: their names where these are short and differ also where capitals are ignored."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def add(self, name: str) -> str:
        stem = as_stem(name)
        if len(stem.encode("utf-8", "surrogatepass")) > MAX_STEM:
            stem = file_stem(name)
        numbered = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
        stem = next(candidate for candidate in numbered if candidate.lower() not in self._used)
        self._used.add(stem.lower())
        return stem


def find_format(name: str) -> Format:
    """Raises ConfigError for an unknown name."""
    if name not in FORMATS:
        raise ConfigError(f"unknown format '{name}'; known: {', '.join(FORMATS)}")
    return FORMATS[name]


def read_videos(result: Path) -> Iterator[TrackedVideo]:
    """The videos of a result folder, or of an output of `entitysam bulk`, one after the other."""
    if not (result / TRACKS).is_file() and (result / "videos.parquet").is_file():
        from entitysam.exchange.collection import read_collection

        return read_collection(result)
    return iter([read_result(result)])
