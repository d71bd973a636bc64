"""Single frames of an input by their number, for looking at a result."""

from collections.abc import Iterator, Sequence
from typing import Any

import av
import numpy as np

from entitysam.io.readers.base import InputError
from entitysam.io.readers.images import ImagesDecoder, read_image
from entitysam.io.readers.source import FrameSource
from entitysam.io.readers.video import VideoDecoder

AHEAD = 48  # frames that are decoded one after the other instead of seeking
SAME_TIME = 1e-4  # seconds; results keep times with six digits


class RandomAccess:
    """Gives frames in any order; those that follow each other are decoded without a seek.

    In a video the key frame before the wanted time is sought and the frames after it are decoded. Times that the container
    does not keep (and inputs without times) are read from the start. Not for several threads at once.

    Args:
        source: an opened input that is not live; it is closed by `close`.
        times: seconds of each frame from the first, as the result has them; None where it has none.
    """

    def __init__(self, source: FrameSource, times: Sequence[float | None]):
        self.source = source
        self._times = times
        self._iterator: Iterator[np.ndarray] = iter(())
        self._next = -AHEAD  # index that the iterator gives next
        self._container: Any = None
        decoder = source.decoder
        self._video = decoder if isinstance(decoder, VideoDecoder) and None not in times else None
        self._images = decoder if isinstance(decoder, ImagesDecoder) else None

    def __getitem__(self, index: int) -> np.ndarray:
        """Frame `index` of the result: uint8 [H, W, 3] RGB.

        Raises:
            InputError: it cannot be decoded.
        """
        if self._images is not None:
            return read_image(self._images.files[index * self.source.stride], self._images.levels)
        if not self._next <= index < self._next + AHEAD:
            self._seek(index)
        for frame in self._iterator:
            self._next += 1
            if self._next > index:
                return frame
        self._next = -AHEAD
        raise InputError(f"frame {index} cannot be decoded")

    def _seek(self, index: int) -> None:
        self._close_container()
        if self._video is not None and index > 0:
            found = self._from_key_frame(self._video, index)
            first = next(found, None)
            if first is not None:
                self._iterator, self._next = _chain(first, found), index
                return
            self._video = None  # its times are not those of the result
        self._iterator, self._next = iter(self.source), 0

    def _from_key_frame(self, video: VideoDecoder, index: int) -> Iterator[np.ndarray]:
        """Frames `index`, `index + 1`, ... of the result; nothing where frame `index` is not at its time."""
        self._container = container = video.open()
        stream = container.streams.video[0]
        stream.thread_type = "SLICE"
        origin = next((frame.time for frame in container.decode(stream)), None)
        if origin is None:
            return
        wanted = origin + (self._times[index] or 0.0)
        container.seek(int((wanted + SAME_TIME) / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            if index >= len(self._times) or frame.time is None:
                return
            wanted = origin + (self._times[index] or 0.0)
            if frame.time < wanted - SAME_TIME:
                continue
            if frame.time > wanted + SAME_TIME:
                return
            yield video.upright(frame)
            index += 1

    def _close_container(self) -> None:
        if self._container is not None:
            self._iterator = iter(())
            self._container.close()
            self._container = None

    def close(self) -> None:
        """Releases the input."""
        self._close_container()
        self.source.close()


def _chain(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    try:
        yield from rest
    except av.error.FFmpegError as error:
        raise InputError(f"a frame cannot be decoded ({error})") from error
