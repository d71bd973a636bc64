"""Reads single images, folders and globs of images through Pillow."""

import glob
from collections.abc import Generator, Sequence
from pathlib import Path

import cv2
import numpy as np
from natsort import natsorted
from PIL import ExifTags, Image, ImageOps, TiffTags

from entitysam.io.paths import split_pattern
from entitysam.io.readers.base import Decoder, InputError, composite_on_black
from entitysam.io.readers.levels import EIGHT_BITS, Levels, find_levels

SUFFIXES = (".jpg", ".jpeg", ".png", ".apng", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
PAGED_FORMATS = ("TIFF", "WEBP", "PNG")  # not JPEG: the further images of a phone's file are depth or gain maps
REDUCED_IMAGE = 1  # bit of TIFF's NewSubfileType: a thumbnail of another page
PAGED_SUFFIXES = (".tif", ".tiff", ".webp", ".png", ".apng")
DAMAGED = "the image cannot be read"
SAMPLED = 8  # images from which the levels of deep images are guessed


def open_images(files: Sequence[Path], label: str) -> Decoder:
    """A decoder for images: the pages of a file that has several and is the only one, otherwise one frame per file.

    Raises:
        InputError: see `ImagesDecoder` and `PagesDecoder`.
    """
    if len(files) == 1 and len(list_pages(files[0])) > 1:
        return PagesDecoder(files[0])
    return ImagesDecoder(files, label)


class ImagesDecoder(Decoder):
    """The images of a list, in its order, as the frames of a video.

    The headers of all files are checked here, so that a run does not fail halfway.

    Raises:
        InputError: no files, a file that is not an image, different sizes (after EXIF rotation), two equal stems.
    """

    fps = None
    is_live = False

    def __init__(self, files: Sequence[Path], label: str) -> None:
        if not files:
            raise InputError(f"{label}: no images ({', '.join(SUFFIXES)})")
        self.files = list(files)
        self.num_frames = len(self.files)
        self.width, self.height = image_size(self.files[0])
        seen: dict[str, Path] = {}
        for file in self.files:
            if file.stem in seen:
                raise InputError(f"{label}: '{seen[file.stem].name}' and '{file.name}' would be the same frame's name")
            seen[file.stem] = file
            width, height = image_size(file)
            if (width, height) != (self.width, self.height):
                first = f"{self.width}x{self.height} of the first, {self.files[0].name}"
                raise InputError(f"{label}: frames differ in size: {file.name} is {width}x{height}, not {first}")
        step = -(-len(self.files) // SAMPLED)
        self.levels = find_levels(_sample(self.files[::step]))
        self.warnings = [f"{label}: {self.levels.guess}"] if self.levels.guess else []
        paged = next((f for f in self.files if f.suffix.lower() in PAGED_SUFFIXES and len(list_pages(f)) > 1), None)
        if paged is not None:
            self.warnings.append(f"{label}: only the first page of {paged.name} (and of other such files) is a frame")

    def name(self, index: int) -> str:
        return self.files[index].stem

    def frames(self, stride: int) -> Generator[np.ndarray, None, None]:
        return (read_image(file, self.levels) for file in self.files[::stride])


class PagesDecoder(Decoder):
    """The pages of a TIFF, or the frames of an animated WebP or PNG, as the frames of a video.

    Raises:
        InputError: pages of different sizes.
    """

    is_live = False

    def __init__(self, file: Path) -> None:
        self.files = [file]
        self._pages = list_pages(file)
        self.num_frames = len(self._pages)
        step = -(-self.num_frames // SAMPLED)
        sampled, duration = [], 0.0
        try:
            with Image.open(file) as image:
                self.width, self.height = _upright_size(image)
                for page in self._pages:
                    _seek(image, page)
                    if (size := _upright_size(image)) != (self.width, self.height):
                        first = f"{self.width}x{self.height} of the first"
                        raise InputError(f"{file.name}: page {page} is {size[0]}x{size[1]}, not {first}")
                    duration += _duration(image)
                    if page % step == 0 and _depth(image) > 8:
                        sampled.append((np.asarray(image), _stated_bits(image, file)))
        except UNREADABLE as error:
            raise _unreadable(file, error) from error
        self.fps = self.num_frames / duration if duration else None
        self._levels = find_levels(sampled)
        self.warnings = [f"{file.name}: {self._levels.guess}"] if self._levels.guess else []

    def name(self, index: int) -> str:
        return f"{index:05d}"

    def frames(self, stride: int) -> Generator[np.ndarray, None, None]:
        file = self.files[0]
        start = 0.0
        try:
            with Image.open(file) as image:
                for index, page in enumerate(self._pages):
                    _seek(image, page)
                    if index % stride == 0:
                        self.time = start if self.fps else None
                        yield to_rgb(ImageOps.exif_transpose(image), self._levels)
                    start += _duration(image)
        except UNREADABLE as error:
            raise _unreadable(file, error, DAMAGED) from error


def _seek(image: Image.Image, page: int) -> None:
    image.seek(page)
    if image.format != "TIFF":
        image.load()  # WebP knows the duration of a frame only then


def _duration(image: Image.Image) -> float:
    """Seconds that the frame of an animation is shown."""
    return float(image.info.get("duration", 0.0)) / 1000


def list_images(source: str | Path) -> list[Path]:
    """Image files of a folder or glob pattern in natural order ("2" before "10"); hidden files are left out.

    The leading part of a pattern that exists is taken as written, so that `[set 1]/*.jpg` finds files of that folder.
    """
    path = Path(source)
    if path.is_dir():
        found = path.iterdir()
    else:
        root, pattern = split_pattern(str(source))
        names = glob.iglob(str(Path(glob.escape(str(root)), *pattern)), recursive=True)
        found = (Path(name) for name in names)
    kept = (p for p in found if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file())
    return natsorted(kept, key=str)


def list_pages(file: Path) -> list[int]:
    """Numbers of the pages (frames of an animation) of an image file; without thumbnails and posters.

    Raises:
        InputError: the file is not an image.
    """
    try:
        with Image.open(file) as image:
            count = getattr(image, "n_frames", 1) if image.format in PAGED_FORMATS else 1
            if count > 1 and image.format == "TIFF":
                return [page for page in range(count) if not _is_thumbnail(image, page)] or [0]
            # The default image of an APNG may be outside the animation, for programs that show one image only.
            return list(range(1 if image.info.get("default_image") and count > 1 else 0, count))
    except UNREADABLE as error:
        raise _unreadable(file, error) from error


def _is_thumbnail(image: Image.Image, page: int) -> bool:
    image.seek(page)
    return bool(_tiff_tag(image, "NewSubfileType", 0) & REDUCED_IMAGE)


def image_size(file: Path) -> tuple[int, int]:
    """(width, height) after EXIF rotation, from the header alone."""
    try:
        with Image.open(file) as image:
            return _upright_size(image)
    except UNREADABLE as error:
        raise _unreadable(file, error) from error


def _upright_size(image: Image.Image) -> tuple[int, int]:
    is_turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    return (image.height, image.width) if is_turned else (image.width, image.height)


def read_image(file: Path, levels: Levels | None = None) -> np.ndarray:
    """uint8 [H, W, 3] RGB of an image file of any mode, EXIF rotation applied.

    Transparent pixels become black; more than 8 bits and floating point are scaled to 0..255; CMYK and other colour
    spaces are converted without a colour profile. Of several pages the first one is read.

    Args:
        file: the image.
        levels: value range of deep images; None finds it from this image.

    Raises:
        InputError: the file is not an image or is truncated.
    """
    try:
        with Image.open(file) as image:
            if levels is None and _depth(image) > 8:
                levels = find_levels(_sample([file]))
            if image.mode in ("RGB", "RGBA") and _depth(image) == 16:  # Pillow keeps only the high bytes
                deep = _read_deep_colour(file)
                if deep is not None:
                    scaled = Image.fromarray((levels or EIGHT_BITS).scale(deep))
                    return to_rgb(_transposed_like(image, scaled))
            return to_rgb(ImageOps.exif_transpose(image), levels)
    except UNREADABLE as error:
        raise _unreadable(file, error, DAMAGED) from error


def _transposed_like(image: Image.Image, scaled: Image.Image) -> Image.Image:
    """Applies the EXIF rotation of one image to another."""
    scaled.getexif()[ExifTags.Base.Orientation] = image.getexif().get(ExifTags.Base.Orientation, 1)
    return ImageOps.exif_transpose(scaled)


def to_rgb(image: Image.Image, levels: Levels | None = None) -> np.ndarray:
    """uint8 [H, W, 3] of a Pillow image of any mode.

    Args:
        image: any mode.
        levels: value range of an image of more than 8 bits; None finds it from this image.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        values = np.asarray(image)
        grey = (levels or find_levels([(values, None)])).scale(values)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        return composite_on_black(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))


def _sample(files: Sequence[Path]) -> list[tuple[np.ndarray, int | None]]:
    """Values of the files with more than 8 bits, and the number of bits that the file states."""
    found: list[tuple[np.ndarray, int | None]] = []
    for file in files:
        try:
            with Image.open(file) as image:
                if _depth(image) > 8:
                    colour = _read_deep_colour(file) if image.mode in ("RGB", "RGBA") else None
                    found.append((np.asarray(image) if colour is None else colour, _stated_bits(image, file)))
        except UNREADABLE:  # is reported when the frame is read
            continue
    return found


def _depth(image: Image.Image) -> int:
    """Bits per sample as stored: 8 or fewer, 16, or 32."""
    if image.mode in ("I", "F"):
        return 32
    if image.mode.startswith("I;"):
        return 16
    tiles = getattr(image, "tile", [])  # of images that are not loaded: codec, box, offset, raw mode such as "RGB;16B"
    return 16 if tiles and ";16" in str(tiles[0][3]) else 8


def _read_deep_colour(file: Path) -> np.ndarray | None:
    """uint16 [H, W, 3 or 4] RGB(A) of a 16-bit colour image, not rotated; None where OpenCV cannot read it."""
    data = np.frombuffer(file.read_bytes(), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16 or image.ndim != 3:
        return None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)


def _stated_bits(image: Image.Image, file: Path) -> int | None:
    """Significant bits per sample that the file states (PNG's sBIT chunk, TIFF's BitsPerSample); None without."""
    if image.format == "PNG":
        return _png_significant_bits(file)
    if image.format == "TIFF" and image.mode != "F":
        bits = _tiff_tag(image, "BitsPerSample", 16)
        return bits if bits < 16 else None
    return None


def _png_significant_bits(file: Path) -> int | None:
    with file.open("rb") as stream:
        stream.seek(8)  # signature
        while True:
            header = stream.read(8)
            length, kind = int.from_bytes(header[:4], "big"), header[4:]
            if kind == b"sBIT":
                return max(stream.read(length)[:3], default=None)
            if len(header) < 8 or kind == b"IDAT":
                return None
            stream.seek(length + 4, 1)  # data and checksum


def _tiff_tag(image: Image.Image, name: str, default: int) -> int:
    number = {tag.name: value for value, tag in TiffTags.TAGS_V2.items()}[name]
    value = getattr(image, "tag_v2", {}).get(number, default)
    return int(value[0] if isinstance(value, tuple) else value)


def _unreadable(file: Path, error: Exception, what: str = "not an image that can be read") -> InputError:
    if isinstance(error, InputError):
        return error
    reason = str(error).splitlines()[0].replace(" %r", "") if str(error) else type(error).__name__
    return InputError(f"{file.name}: {what} ({reason})")
