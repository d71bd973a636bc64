"""Checks whether the blocks of a GIF or Matroska (WebM) file add up.

FFmpeg ends such a file quietly at the first block that it does not know, and neither format states its number of
frames, so that only the structure tells that frames are missing.
"""

import os
from pathlib import Path
from typing import BinaryIO

from PIL import Image

GIF_IMAGE, GIF_EXTENSION, GIF_TRAILER = 0x2C, 0x21, 0x3B
EBML_HEADER, SEGMENT, CLUSTER, BLOCK_GROUP = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0xA0
# Cluster, Cues, SeekHead, Info, Tracks, Tags, Chapters, Attachments; and Void, CRC-32, which may be anywhere.
SEGMENT_CHILDREN = {CLUSTER, 0x1C53BB6B, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1254C367, 0x1043A770, 0x1941A469}
ANYWHERE = {0xEC, 0xBF}
# Timestamp, SimpleBlock, BlockGroup, Position, PrevSize, SilentTracks, EncryptedBlock.
CLUSTER_CHILDREN = {0xE7, 0xA3, BLOCK_GROUP, 0xA7, 0xAB, 0x5854, 0xAF}
UNKNOWN_SIZE = -1  # of elements that are written live: they end where a parent's sibling starts


class _Damaged(Exception):
    pass


def is_intact(file: Path) -> bool:
    """False where a GIF or Matroska file is truncated or its blocks do not add up; True for all other formats."""
    try:
        with file.open("rb") as stream:
            start = stream.read(6)
            end = stream.seek(0, os.SEEK_END)
            if start[:3] == b"GIF":
                _walk_gif(stream, end)
                _load_frames(file)
            elif start[:4] == EBML_HEADER.to_bytes(4, "big"):
                _walk_matroska(stream, end)
    except (_Damaged, OSError, SyntaxError, ValueError):
        return False
    return True


def _walk_gif(stream: BinaryIO, end: int) -> None:
    """Walks from block to block to the trailer (GIF89a specification, sections 18 to 27)."""
    stream.seek(10)
    _skip_colour_table(stream, _read(stream, 1)[0])
    stream.seek(2, os.SEEK_CUR)  # background and aspect ratio
    while True:
        kind = _read(stream, 1)[0]
        if kind == GIF_TRAILER:
            if stream.read().strip(b"\0"):
                raise _Damaged  # a trailer in the middle
            return
        if kind == GIF_EXTENSION:
            stream.seek(1, os.SEEK_CUR)  # label
        elif kind == GIF_IMAGE:
            stream.seek(8, os.SEEK_CUR)  # position and size
            _skip_colour_table(stream, _read(stream, 1)[0])
            stream.seek(1, os.SEEK_CUR)  # code size
        else:
            raise _Damaged
        while length := _read(stream, 1)[0]:
            stream.seek(length, os.SEEK_CUR)
        if stream.tell() > end:
            raise _Damaged


def _load_frames(file: Path) -> None:
    """Loads all frames with Pillow, which, unlike FFmpeg, refuses compressed data without its end code."""
    with Image.open(file) as image:
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            image.load()


def _skip_colour_table(stream: BinaryIO, flags: int) -> None:
    if flags & 0x80:
        stream.seek(3 * 2 ** ((flags & 7) + 1), os.SEEK_CUR)


def _walk_matroska(stream: BinaryIO, end: int) -> None:
    """Walks over the elements of the segment and of its clusters (RFC 8794, RFC 9559)."""
    stream.seek(0)
    _read_id(stream)
    stream.seek(_read_size(stream), os.SEEK_CUR)
    if _read_id(stream) != SEGMENT:
        raise _Damaged
    size = _read_size(stream)
    segment_end = end if size == UNKNOWN_SIZE else stream.tell() + size
    if segment_end > end:
        raise _Damaged
    allowed, parent_end = SEGMENT_CHILDREN, segment_end
    while stream.tell() < segment_end:
        if stream.tell() == parent_end:
            allowed, parent_end = SEGMENT_CHILDREN, segment_end
        element, size = _read_id(stream), _read_size(stream)
        if element in SEGMENT_CHILDREN and parent_end == segment_end:
            allowed = SEGMENT_CHILDREN  # the end of a cluster of unknown size
        if element not in allowed | ANYWHERE:
            raise _Damaged
        if element == CLUSTER:
            allowed, parent_end = CLUSTER_CHILDREN, segment_end if size == UNKNOWN_SIZE else stream.tell() + size
        elif size == UNKNOWN_SIZE:
            raise _Damaged
        else:
            stream.seek(size, os.SEEK_CUR)
        if stream.tell() > parent_end or parent_end > segment_end:
            raise _Damaged


def _read_id(stream: BinaryIO) -> int:
    """An element id: a variable-length number with its length marker."""
    first = _read(stream, 1)
    length = 9 - first[0].bit_length()
    if length > 4:
        raise _Damaged
    return int.from_bytes(first + _read(stream, length - 1), "big")


def _read_size(stream: BinaryIO) -> int:
    """An element's size: a variable-length number without its length marker."""
    first = _read(stream, 1)
    length = 9 - first[0].bit_length()
    if length > 8:
        raise _Damaged
    value = int.from_bytes(first + _read(stream, length - 1), "big") - (1 << 7 * length)
    return UNKNOWN_SIZE if value == (1 << 7 * length) - 1 else value


def _read(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise _Damaged
    return data
