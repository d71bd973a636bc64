"""Single images, folders and globs of images, through Pillow."""

import glob
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
from natsort import natsorted
from PIL import ExifTags, Image, ImageOps

from entitysam.io.readers.base import Decoder, InputError, composite_on_black

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


class ImagesDecoder(Decoder):
    """The images of a list, in its order, as the frames of a video.

    The headers of all files are checked when it is opened, so that a run does not fail halfway.

    Raises:
        InputError: no files, a file that is no image, sizes that differ (after EXIF rotation), two equal stems.
    """

    fps = None
    is_live = False

    def __init__(self, files: Sequence[Path], label: str) -> None:
        if not files:
            raise InputError(f"{label}: no images ({', '.join(SUFFIXES)}) there")
        self.files = list(files)
        self.num_frames = len(self.files)
        self.warnings: list[str] = []
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

    def name(self, index: int) -> str:
        return self.files[index].stem

    def frames(self, stride: int) -> Generator[np.ndarray, None, None]:
        return (read_image(file) for file in self.files[::stride])


def list_images(source: str | Path) -> list[Path]:
    """Image files of a folder or of a glob pattern in natural order ("2" before "10"); hidden files are left out."""
    path = Path(source)
    found = path.iterdir() if path.is_dir() else (Path(name) for name in glob.glob(str(source), recursive=True))
    kept = (p for p in found if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file())
    return natsorted(kept, key=str)


def image_size(file: Path) -> tuple[int, int]:
    """(width, height) after EXIF rotation, from the header alone."""
    try:
        with Image.open(file) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return (image.height, image.width) if turned else (image.width, image.height)
    except UNREADABLE as error:
        raise InputError(f"{file.name}: not an image that can be read ({_reason(error)})") from error


def read_image(file: Path) -> np.ndarray:
    """uint8 [H, W, 3] RGB of an image file of any mode, EXIF rotation applied.

    Transparent pixels become black; 16-bit grey is scaled by 255/65535 (16-bit colour keeps its high bytes);
    CMYK and other colour spaces are converted without a colour profile.

    Raises:
        InputError: the file is no image or breaks off.
    """
    try:
        with Image.open(file) as image:
            return _to_rgb(ImageOps.exif_transpose(image))
    except UNREADABLE as error:
        raise InputError(f"{file.name}: the image cannot be read ({_reason(error)})") from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.int64).clip(0, 65535)
        return np.repeat(((grey * 255 + 32767) // 65535).astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        return composite_on_black(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0].replace(" %r", "") if str(error) else type(error).__name__
