"""Videos at addresses, copied to this machine while they are segmented."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from entitysam.bulk.inputs import ADDRESS
from entitysam.io.readers.base import InputError

TRIES = 3
PAUSE = 1.0  # seconds after the first failure, doubled after each


@contextmanager
def fetched(path: str) -> Iterator[str]:
    """A local path of a video. One at an address is removed at the end of the block.

    Raises:
        InputError: nothing there, or the connection broke `TRIES` times.
    """
    if not ADDRESS.match(path):
        yield path
        return
    name = PurePosixPath(unquote(urlsplit(path).path)).name or "video"
    with tempfile.TemporaryDirectory(prefix="entitysam_") as folder:
        target = Path(folder) / f"video{Path(name).suffix[:10]}"
        _copy(path, target)
        yield str(target)


def _copy(address: str, target: Path) -> None:
    import fsspec

    for attempt in range(TRIES):
        try:
            files, place = fsspec.core.url_to_fs(address)
            files.get_file(place, str(target))
            return
        except FileNotFoundError as error:
            raise InputError(f"{address}: no such file") from error
        except ImportError as error:
            raise InputError(f"{address}: {' '.join(str(error).split())}") from error
        except Exception as error:  # every file system has errors of its own
            if attempt == TRIES - 1:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise InputError(f"{address}: cannot be fetched ({reason}), tried {TRIES} times") from error
            time.sleep(PAUSE * 2**attempt)
