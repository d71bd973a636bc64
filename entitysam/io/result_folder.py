"""Result folders: their default names, the files that an earlier run left, and the lock of the run that writes.

`tracks.json` lists the files that its run wrote, and `segments.json` (or the lines of an interrupted run) the masks.
Only these are ever removed; any other file of the same name makes a run refuse to start.
"""

import glob
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entitysam.io.files import OutputError, as_stem, check_folder, make_folder, output_errors
from entitysam.io.paths import split_pattern

if TYPE_CHECKING:
    from entitysam.io.readers.source import FrameSource

try:
    import fcntl
except ImportError:  # Windows: result folders are not locked
    fcntl = None  # type: ignore[assignment]

OVERLAY, MASKS, SEGMENTS, TRACKS, SHEET = "overlay.mp4", "masks", "segments.json", "tracks.json", "contact_sheet.png"
LINES = f"{SEGMENTS}l"
MOT, EVENTS, CROPS, PANOPTIC = "tracks.txt", "events.json", "shown.jpg", "panoptic.json"
CLIP = "clip.mp4"  # the input, where it is made by the run itself
VIDEO_FILES = (OVERLAY, SEGMENTS, LINES, TRACKS, SHEET, MOT, EVENTS, CROPS, CLIP)  # all that runs over a video write
SEGMENT_FILES = (OVERLAY, SEGMENTS, LINES, TRACKS, SHEET)
TRACK_FILES = (OVERLAY, SEGMENTS, TRACKS, SHEET, MOT, EVENTS)
LOCK = ".lock"
READING = ("stride", "max_frames", "start", "end")  # options of `open_frames` that a result may record
ELSEWHERE = "choose another folder with -o"


def default_folder(source: str) -> Path:
    """`out/NAME`, NAME being `source_name(source)`."""
    return Path("out") / source_name(source)


def source_name(source: str) -> str:
    """Name of an input for titles and default folders, fit to be a file name.

    A file gives its stem, a folder its own name also where it is given as "." or "..", a glob pattern the folder that it
    starts from and the literal text of the pattern ("a/*.jpg" -> "a", "a/left_*.jpg" -> "a_left"); an address or camera
    the stem of its text; standard input "stdin".
    """
    path = Path(source)
    if source == "-" or (source.startswith("raw:") and not path.exists()):
        return "stdin"
    if "://" in source:
        return as_stem(path.stem)
    if path.is_dir():
        return as_stem(path.resolve().name)
    if path.exists() or not glob.has_magic(source):
        return as_stem(path.stem)
    root, pattern = split_pattern(source)
    literal = re.sub(r"[*?]|\[[^]]*\]", "", "_".join(Path(part).stem for part in pattern))
    return as_stem("_".join(filter(None, [root.resolve().name, literal.strip("_-. ")])))


@dataclass(frozen=True)
class EarlierResult:
    """What an earlier run left in a folder.

    Attributes:
        files: existing files that the run wrote.
        has_tracks: whether there is a `tracks.json` of a run.
        source: the resolved input of that run; None where it is not known.
    """

    files: list[Path]
    has_tracks: bool
    source: str | None


def read_earlier(folder: Path) -> EarlierResult:
    """Lists the files of an earlier run in a folder; files that no run listed are not among them."""
    head = read_head(folder / TRACKS)
    lines, partial_list = folder / LINES, unfinished(folder / SEGMENTS)
    names = [f"{MASKS}/{name}" for name in listed_masks(folder / SEGMENTS)]
    if head is not None:
        listed = head.get("files", VIDEO_FILES)  # results of earlier versions list nothing
        names += [name for name in VIDEO_FILES if name in listed or name == TRACKS]
    if next(_file_names(lines), None) is not None:
        names.append(lines.name)
    if partial_list.is_file():
        names.append(partial_list.name)
    names += [f".{name}.part" for name in VIDEO_FILES]  # temporary files of a run that was killed
    origin = (head or {}).get("source")
    source = origin.get("source") if isinstance(origin, dict) else None
    return EarlierResult([p for p in (folder / name for name in names) if os.path.lexists(p)], head is not None, source)


def read_head(path: Path) -> dict[str, Any] | None:
    """The keys of a `tracks.json` in front of "tracks", without reading the tracks; None where it is not one of ours."""
    try:
        with path.open(encoding="utf-8") as file:
            head = json.loads(file.readline().rstrip().removesuffix(', "tracks": [') + "}")
    except (OSError, ValueError, RecursionError):
        return None
    return head if isinstance(head, dict) and {"video_id", "frames"} <= head.keys() else None


def origin_of(source: str, stride: int, max_frames: int | None) -> dict[str, Any]:
    """What opens an input's frames again, from any folder: keyword arguments of `io.readers.source.open_frames`."""
    place = source if "://" in source else str(Path(source).resolve())
    return {"source": place, "stride": stride, "max_frames": max_frames}


def recorded_origin(folder: Path, head: Mapping[str, Any]) -> dict[str, Any] | None:
    """What opens the frames of a result again: keyword arguments of `open_frames`; None where it is not recorded.

    Results may come from somebody else: only local files are opened.

    Args:
        folder: of the result, for messages.
        head: of its `tracks.json`.

    Raises:
        InputError: the source is not a local file, folder or glob of images, or not there any more.
    """
    from entitysam.io.readers.base import InputError

    origin = head.get("source")
    if origin is None:
        return None
    source = origin.get("source") if isinstance(origin, dict) else None
    if not isinstance(source, str) or "://" in source or "\0" in source or not _is_there(source):
        raise InputError(f"{folder}: its frames are not in the local file or folder {source!r}; give --input")
    return {"source": source, **{key: origin[key] for key in READING if key in origin}}


def _is_there(source: str) -> bool:
    path = Path(source)  # a device or pipe is no file
    return path.is_file() or path.is_dir() or (glob.has_magic(source) and split_pattern(source)[0] != Path())


def unfinished(path: Path) -> Path:
    """The hidden lines that stand for a `segments.json` until its run is complete: one JSON line per frame."""
    return path.with_name(f".{path.name}l.part")


def listed_masks(path: Path) -> list[str]:
    """File names of the masks that a `segments.json` or else its lines name, without folders.

    Empty where there is none. Lines that were cut off and files of another kind are left out.
    """
    names: list[Any] = []
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError, AttributeError):
        written = json.loads(path.read_text(encoding="utf-8"))
        names += [frame.get("file_name") for video in written["annotations"] for frame in video["annotations"]]
    if not names:
        names += _file_names(path.with_name(f"{path.name}l"))
    names += _file_names(unfinished(path))
    kept = (Path(name).name for name in names if isinstance(name, str) and "\0" not in name)
    return list(dict.fromkeys(name for name in kept if name.endswith(".png")))


def _file_names(lines: Path) -> Iterator[Any]:
    """`file_name` of each line that `frame_lines` may have written; memory does not depend on the length of the file."""
    with suppress(OSError), lines.open("rb") as file:
        for line in file:
            with suppress(ValueError, RecursionError):
                frame = json.loads(line)
                if isinstance(frame, dict) and {"file_name", "segments_info"} <= frame.keys():
                    yield frame["file_name"]


def remove_results(folder: Path) -> None:
    """Removes the files of an earlier run, of any kind, and nothing else."""
    for path in read_earlier(folder).files:
        path.unlink(missing_ok=True)


@contextmanager
def claim_folder(
    out: Path,
    files: Sequence[str],
    frames: "FrameSource",
    source: str,
    origin: Mapping[str, Any] | None,
    inputs: Sequence[Path] = (),
) -> Iterator[Path]:
    """Checks that a run may write to a result folder, creates it and holds its lock while the block runs.

    Args:
        out: the folder; see `hold_folder`.
        files: names of the files that the run writes there, besides `masks/<frame>.png`.
        frames: the opened input.
        source: the input as the user gave it.
        origin: what opens the input again, as `tracks.json` will have it; None where nothing does.
        inputs: further files that the run reads.

    Raises:
        OutputError: the folder cannot be written to; another run writes there; the result would overwrite an input or a
            file that no earlier run listed as its own; it would be read as a frame by the next run; it would replace the
            result of another input.
    """
    check_folder(out)
    names = None if frames.num_frames is None else [frames.name(index) for index in range(frames.num_frames)]
    _check_files(out, files, names, [*frames.files, *inputs])
    if _reads_from(source, out):
        raise OutputError(f"{out}: the next run would read the images of the result as frames of {source}; {ELSEWHERE}")
    _check_source(out, origin)
    with hold_folder(out):
        yield out


@contextmanager
def hold_folder(out: Path) -> Iterator[None]:
    """Creates a result folder and holds its lock while the block runs.

    A folder that is created here is removed again where it stays empty.

    Raises:
        OutputError: the folder cannot be written to; another run writes there.
    """
    created = not out.exists()
    make_folder(out)
    try:
        with lock_folder(out):
            yield
    finally:
        if created:
            with suppress(OSError):  # not empty
                out.rmdir()


def _check_files(out: Path, files: Sequence[str], frames: Iterable[str] | None, inputs: Sequence[Path]) -> None:
    if not out.exists():
        return
    earlier = read_earlier(out).files
    masks = {path.name: path for path in (out / MASKS).glob("*.png")}
    if frames is None:
        replaced = [path for name, path in masks.items() if Path(name).stem.isdecimal()]
    else:
        replaced = [masks[f"{frame}.png"] for frame in frames if f"{frame}.png" in masks]
    replaced += [path for path in (out / name for name in files) if os.path.lexists(path)]
    read = {_identity(path) for path in inputs} - {None}
    for path in (*replaced, *earlier):
        if _identity(path) in read:
            raise OutputError(f"{path}: is an input of this run, and the result would overwrite it; {ELSEWHERE}")
    known = set(earlier)
    foreign = next((path for path in replaced if path not in known), None)
    if foreign is not None:
        raise OutputError(f"{foreign}: exists and was not written by an earlier run; {ELSEWHERE}")


def _identity(path: Path) -> tuple[int, int] | None:
    """What is equal for all names and links of one file; None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _check_source(out: Path, origin: Mapping[str, Any] | None) -> None:
    if os.path.lexists(out / PANOPTIC):
        raise OutputError(f"{out}: holds a result of 'entitysam segment-image'; {ELSEWHERE}")
    earlier = read_earlier(out)
    source = origin.get("source") if origin else None
    if earlier.has_tracks and earlier.source != source:
        other = earlier.source or "an input that is not recorded"
        raise OutputError(f"{out}: holds the result of {other}; remove it, or {ELSEWHERE}")


def _reads_from(source: str, out: Path) -> bool:
    """Whether a folder or glob pattern finds the images of a result in `out` among its own."""
    path = Path(source)
    if path.is_dir():
        return path.resolve() in (out.resolve(), (out / MASKS).resolve())
    if path.exists() or not glob.has_magic(source) or "://" in source:
        return False
    root, pattern = split_pattern(source)
    folder = out.resolve()
    if "**" in pattern:
        return folder.is_relative_to(root.resolve())
    below = glob.escape(str(root.resolve())) + "/" + "/".join(pattern)
    return any((folder / name).match(below) for name in (SHEET, CROPS, f"{MASKS}/00000.png"))


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Holds `.lock` with this process's id in it; the operating system frees it when the process ends.

    Raises:
        OutputError: another run holds it.
    """
    path = folder / LOCK
    with output_errors(path):
        descriptor = _open_lock(path)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            process = os.read(descriptor, 20).decode(errors="replace") or "not known yet"
            os.close(descriptor)
            raise OutputError(f"{path.parent}: another run (process {process}) is writing there") from error
        except OSError:  # a file system without locks
            pass
        # The run before may have removed the file between our open and our lock: then nobody else sees our lock.
        if _identity(path) == (os.fstat(descriptor).st_dev, os.fstat(descriptor).st_ino):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            return descriptor
        os.close(descriptor)
