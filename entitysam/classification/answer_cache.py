"""Caches answers on disk by the content of the question: a second run asks nothing, a killed run continues."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

from entitysam.classification.classifier import Answer
from entitysam.io.files import OutputError, whole_file


class AnswerCache:
    """One small file per answer; several processes can share a folder.

    Args:
        folder: created when the first answer is written.
        question: everything but the image that an answer depends on: model, prompt, class list, settings.
    """

    def __init__(self, folder: Path, question: str) -> None:
        self.folder = folder
        self._question = hashlib.sha256(question.encode("utf-8")).digest()

    def key(self, image: bytes) -> str:
        """Key of the answer for an encoded image: SHA-256 of question and image."""
        return hashlib.sha256(self._question + hashlib.sha256(image).digest()).hexdigest()

    def read(self, key: str) -> Answer | None:
        """The answer; None where there is none, its file is broken, or it is unknown."""
        try:
            record = json.loads(self._path(key).read_bytes())
            name, index, confidence = record["name"], record["index"], float(record["confidence"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        valid = isinstance(name, str) and (index is None or isinstance(index, int)) and 0 <= confidence <= 1
        return Answer(name, index, confidence) if valid else None

    def write(self, key: str, answer: Answer) -> None:
        """Stores a valid answer.

        Raises:
            ValueError: the answer is unknown; a later run may get a better one.
            OutputError: the folder cannot be written to.
        """
        if answer.name is None:
            raise ValueError("an unknown answer is not cached")
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{path.parent}: cannot be written to ({error.strerror or error})") from error
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(asdict(answer)), encoding="utf-8")

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


def default_folder() -> Path:
    """Default folder of the cache: `$XDG_CACHE_HOME/entitysam/answers`, or below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "entitysam" / "answers"
