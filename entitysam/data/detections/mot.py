"""MOT Challenge text: frame, id, x, y, width, height, confidence, ... of one object per line."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entitysam.data.images import DataError
from entitysam.data.index import read_text

SEPARATOR = re.compile(r"\s*[,;\t]\s*|\s+")
COLUMNS = "frame, id, x, y, width, height, confidence"


def read_mot(path: Path) -> dict[int, list[Mapping[str, Any]]]:
    """Reads boxes separated by commas, semicolons, tabs or spaces, with or without byte order mark or a header line.

    Returns:
        frame number as the file has it -> objects {bbox: [x, y, width, height], score, track_id}; tracks of annotations
        have ids, detections -1.

    Raises:
        DataError: no such file, or a line of another format; names the line and what is wrong with it.
    """
    rows: dict[int, list[Mapping[str, Any]]] = {}
    header_may_follow = True
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        cells = [cell for cell in SEPARATOR.split(line.strip()) if cell]
        if not cells:
            continue
        is_header = header_may_follow and not any(map(_is_number, cells))
        header_may_follow = False
        if not is_header:
            frame, entry = _read_line(cells, f"{path}: line {number}")
            rows.setdefault(frame, []).append(entry)
    return rows


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_line(cells: list[str], where: str) -> tuple[int, Mapping[str, Any]]:
    wrong = next((cell for cell in cells[:7] if not _is_number(cell)), None)
    if wrong is not None:
        raise DataError(f"{where}: '{wrong[:40]}' is not a number; a line is {COLUMNS}")
    if len(cells) < 6:
        raise DataError(f"{where}: {len(cells)} columns; a line is {COLUMNS}")
    frame, track, *box = map(float, cells[:6])
    if not (frame == frame // 1 and 0 <= frame < 2**31):
        raise DataError(f"{where}: frame {cells[0]} is not a whole number from 0 on")
    if not (track == track // 1 and abs(track) < 2**53):
        raise DataError(f"{where}: id {cells[1]} is not a whole number")
    score = float(cells[6]) if len(cells) > 6 else 1.0
    return int(frame), {"bbox": box, "score": score, "track_id": None if track < 0 else int(track)}
