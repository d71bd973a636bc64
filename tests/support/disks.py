"""File systems of a test: small ones that fill up, and ones that cannot be written."""

import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest


@contextmanager
def mounted(place, options):
    """A file system in memory at a new folder. Skips where none can be mounted: not as root, not on Linux."""
    place.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def resize(place, size):
    """Gives a mounted file system another size, e.g. "64m"."""
    subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True)
