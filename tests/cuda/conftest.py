"""Tests of the kernels for devices, without a device: run in a simulator, or compiled for real GPUs.

Neither can share a process with the other tests, because Numba decides at its first import which of the two it is.
The variable ORTHOKERN_CUDA, which tox sets, says what this process is for: "sim", "compile", or nothing of it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FOLDERS = {"": (), "sim": ("sim", "glue"), "compile": ("compile",)}
MODE = os.environ.get("ORTHOKERN_CUDA", "")


def folder_of(path):
    """The folder of this directory that ``path`` lies in, or is."""
    return path.relative_to(HERE).parts[0]


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out what needs the other Numba."""
    if MODE not in FOLDERS:
        raise pytest.UsageError(f"ORTHOKERN_CUDA is {MODE!r}; expected one of {sorted(FOLDERS)}")
    if collection_path == HERE or collection_path == Path(__file__):
        return None
    return folder_of(collection_path) not in FOLDERS[MODE] or None
