"""`OUT/.resume`: the records of an unfinished run, for `--resume`."""

import shutil
from pathlib import Path
from typing import Any

from entitysam.errors import ConfigError
from entitysam.io.record_store import RecordStore
from entitysam.io.record_store import file_fingerprint as input_identity
from entitysam.io.record_store import first_difference as first_difference

__all__ = ["FOLDER", "ResumeFolder", "input_identity"]

FOLDER = ".resume"


class ResumeFolder:
    """The record store of one run in its result folder.

    Args:
        out: the result folder.
        fingerprint: everything that determines the result (input, model, options), as plain data.
        resume: continue an unfinished run. Otherwise its records are removed.

    Attributes:
        records: the store.
        path: its folder.
        continues: whether there is an unfinished run to continue.

    Raises:
        ConfigError: the unfinished run had another fingerprint; the message names the first difference.
    """

    def __init__(self, out: Path, fingerprint: dict[str, Any], resume: bool) -> None:
        self.path = out / FOLDER
        if not resume:
            shutil.rmtree(self.path, ignore_errors=True)
        try:
            self.records = RecordStore.start(self.path, fingerprint, resume)
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(self.path), str(out), 1)) from error
        self.continues = self.records.continues

    def remove(self) -> None:
        """Removes the records: the run is complete."""
        self.records.remove()

    def keep_progress(self) -> bool:
        """After an error: whether there are records to resume from. If there are none, the store is removed."""
        if len(self.records):
            return True
        self.remove()
        return False
