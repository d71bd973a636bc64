"""`OUT/.resume`: what an interrupted run leaves behind for `--resume`."""

import json
import shutil
from pathlib import Path
from typing import Any

from entitysam.inference.logit_store import STATE
from entitysam.io.files import make_folder, whole_file
from entitysam.registry import ConfigError

FOLDER = ".resume"
RECORD = "run.json"


class ResumeFolder:
    """Keeps the intermediate results of one run, and the identity of the run they belong to.

    Args:
        out: the result folder.
        identity: everything that decides the result (input, model, options), as plain data.
        resume: continue an unfinished run. Otherwise what one left is thrown away.

    Attributes:
        path: the folder for intermediate results.
        continues: whether there is something to continue.

    Raises:
        ConfigError: the unfinished run had another identity; the message says what differs.
    """

    def __init__(self, out: Path, identity: dict[str, Any], resume: bool) -> None:
        self._out = out
        self.path = out / FOLDER
        record = self.path / RECORD
        identity = json.loads(json.dumps(identity, default=str))
        self.continues = False
        if resume and record.is_file():
            difference = first_difference(json.loads(record.read_text(encoding="utf-8")), identity)
            if difference:
                raise ConfigError(
                    f"{out}: the unfinished run there was another one ({difference}); start without --resume"
                )
            self.continues = True
            return
        shutil.rmtree(self.path, ignore_errors=True)
        make_folder(self.path)
        with whole_file(record) as temporary:
            temporary.write_text(json.dumps(identity, indent=1), encoding="utf-8")

    def remove(self) -> None:
        """The run is complete: nothing is left to resume."""
        shutil.rmtree(self.path, ignore_errors=True)

    def keep_progress(self, first: str = STATE) -> bool:
        """After an error: whether there is something to resume; where there is not, leaves no trace of the run.

        Args:
            first: name of the file that is there as soon as there is something.
        """
        if (self.path / first).is_file():
            return True
        self.remove()
        if not any(self._out.iterdir()):
            self._out.rmdir()
        return False


def input_identity(source: str) -> list[Any]:
    """What tells whether an input is still the same: absolute path, and size and time of the file or of every file."""
    path = Path(source)
    if not path.exists():
        return [source]
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    return [str(path.resolve()), [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files]]


def origin_of(source: str, stride: int, max_frames: int | None) -> dict[str, Any]:
    """What opens an input's frames again, from any folder: keyword arguments of `io.readers.source.open_frames`."""
    place = source if "://" in source else str(Path(source).resolve())
    return {"source": place, "stride": stride, "max_frames": max_frames}


def first_difference(before: Any, now: Any, where: str = "") -> str:
    """In words, the first place where two pieces of plain data differ; empty where they are equal."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            difference = first_difference(before.get(key), now.get(key), f"{where}.{key}" if where else str(key))
            if difference:
                return difference
        return ""
    if before == now:
        return ""
    old, new = (text if len(text) < 40 else "..." for text in (json.dumps(before), json.dumps(now)))
    return f"{where} changed" if "..." in (old, new) else f"{where} was {old}, is {new}"
