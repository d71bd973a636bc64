"""Answers on disk, by the content of the question: a second run asks nothing, a killed one goes on where it was."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

from entitysam.classification.classifier import Answer
from entitysam.io.files import OutputError, whole_file


class AnswerCache:
    """One small file per answer, so that several processes can share a folder.

    Args:
        folder: created when the first answer is written.
        question: everything but the picture that decides an answer: model, words, class list, settings.
    """

    def __init__(self, folder: Path, question: str) -> None:
        self.folder = folder
        self._question = hashlib.sha256(question.encode("utf-8")).digest()

    def key(self, picture: bytes) -> str:
        """The name of an encoded picture's answer."""
        return hashlib.sha256(self._question + hashlib.sha256(picture).digest()).hexdigest()

    def read(self, key: str) -> Answer | None:
        """The answer, or None where there is none or its file is broken."""
        try:
            record = json.loads(self._path(key).read_bytes())
            return Answer(record["name"], record["index"], float(record["confidence"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, key: str, answer: Answer) -> None:
        """Keeps an answer.

        Raises:
            OutputError: the folder cannot be written to.
        """
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
    """Where answers are kept when nothing else is said: `$XDG_CACHE_HOME/entitysam/answers`, or below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "entitysam" / "answers"
