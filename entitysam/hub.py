"""Files of the Hugging Face hub, pinned by revision and checked by SHA-256.

A file whose revision or hash is not known in advance is pinned at its first download: the commit and the hash that the hub
announces are checked against the file and recorded in `$XDG_CACHE_HOME/entitysam/hub.json`; later calls use this record.
"""

import hashlib
import json
import os
import re
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entitysam.errors import CheckpointError
from entitysam.io.files import whole_file

PROBE_TIMEOUT = 3.0  # seconds until the hub counts as unreachable
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class HubFile:
    """A file on the hub.

    Attributes:
        repository: "owner/name".
        path: path in the repository.
        revision: commit; "" = pinned at the first download.
        sha256: hash of the file; "" = pinned at the first download.
    """

    repository: str
    path: str
    revision: str = ""
    sha256: str = ""


def fetch_from_hub(file: HubFile, title: str, local: Path) -> Path:
    """The file from the hub's cache, or downloaded with progress.

    Args:
        file: where it is and what it must be.
        title: what it is, for messages.
        local: where a copy by hand belongs, for messages.

    Raises:
        CheckpointError: no connection (within `PROBE_TIMEOUT` seconds), failed download, or a file that is not the pinned
            one. The file is kept, but not used.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    record = _read_records().get(f"{file.repository}/{file.path}", {})
    revision = file.revision or record.get("revision") or None
    expected = file.sha256 or record.get("sha256") or ""
    found = try_to_load_from_cache(file.repository, file.path, revision=revision)
    if isinstance(found, str):
        path = Path(found)
        # The cache names the content of a large file by its SHA-256.
        expected = expected or _sha256_or_empty(path.resolve().name)
    else:
        try:
            if not hub_is_reachable():
                raise ConnectionError("no connection to the hub")
            metadata = get_hf_file_metadata(hf_hub_url(file.repository, file.path, revision=revision))
            revision = metadata.commit_hash or revision
            expected = expected or _sha256_or_empty(metadata.etag or "")
            path = Path(hf_hub_download(file.repository, file.path, revision=revision))
        except Exception as error:  # offline, refused, removed: the remedy is the same
            raise CheckpointError(
                f"cannot download {title}: {type(error).__name__}. By hand: get '{file.path}' of the hub repository "
                f"'{file.repository}' and put it at {local}, or give it as --weights"
            ) from error
    _verify(file, path, expected, record, revision)
    return path


def _verify(file: HubFile, path: Path, expected: str, record: dict[str, Any], revision: str | None) -> None:
    """Compares the SHA-256 with the expected one, unless this very file was compared before; records it.

    Raises:
        CheckpointError: they differ, or nothing says what the hash must be.
    """
    status = path.stat()
    fingerprint = [status.st_size, status.st_mtime_ns]
    if record.get("file") == fingerprint and record.get("sha256") == expected:
        return
    if not expected:
        raise CheckpointError(f"{path}: the hub gives no SHA-256 for {file.repository}/{file.path}, so it is not used")
    actual = sha256_of(path)
    if actual != expected:
        raise CheckpointError(
            f"{path}: SHA-256 is {actual}, not {expected}: not the pinned {file.repository}/{file.path}; "
            "delete the file to download it again"
        )
    _write_record(
        f"{file.repository}/{file.path}",
        {"revision": revision or "", "sha256": expected, "file": fingerprint},
    )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def hub_is_reachable() -> bool:
    """Whether the hub answers within `PROBE_TIMEOUT` seconds; honours proxy variables and HF_HUB_OFFLINE."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    answered: list[bool] = []

    def probe() -> None:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=PROBE_TIMEOUT).close()
        except urllib.error.HTTPError:
            answered.append(True)  # an error status is an answer
        except OSError:
            return
        else:
            answered.append(True)

    thread = threading.Thread(target=probe, daemon=True)  # name resolution has no timeout of its own
    thread.start()
    thread.join(PROBE_TIMEOUT)
    return bool(answered)


def records_file() -> Path:
    """Where first downloads are recorded: `$XDG_CACHE_HOME/entitysam/hub.json`, or below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "entitysam" / "hub.json"


def _read_records() -> dict[str, dict[str, Any]]:
    """The records by "owner/name/path"; none where the file is missing.

    Raises:
        CheckpointError: the file is broken: without it nothing says what was pinned.
    """
    path = records_file()
    try:
        records = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    if not isinstance(records, dict) or not all(isinstance(record, dict) for record in records.values()):
        raise CheckpointError(f"{path}: is no table of downloads")
    return records


def _write_record(name: str, record: dict[str, Any]) -> None:
    path = records_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps({**_read_records(), name: record}, indent=1), encoding="utf-8")
    except OSError:  # a home that cannot be written to: the hash is checked again next time
        return


def _sha256_or_empty(text: str) -> str:
    return text if SHA256.fullmatch(text) else ""
