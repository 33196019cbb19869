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
COLUMNS = ("kernel", "arch", "registers", "shared", "stack", "spills")


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


def rows(reporter):
    """The records that the tests left, also those of other processes."""
    reports = [r for kind in ("passed", "failed") for r in reporter.stats.get(kind, ())]
    found = [value for r in reports for name, value in r.user_properties if name == "resources"]
    return sorted(map(tuple, found))


def pytest_terminal_summary(terminalreporter):
    """The table of what every kernel takes on a device."""
    found = rows(terminalreporter)
    if found:
        terminalreporter.section(
            "resources of the kernels (bytes of shared memory a block, of stack and spills a thread)"
        )
        table = [COLUMNS, *found]
        widths = [max(len(str(row[i])) for row in table) for i in range(len(COLUMNS))]
        for row in table:
            cells = [
                f"{cell:<{w}}" if i < 2 else f"{cell:>{w}}"
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ]
            terminalreporter.write_line("  ".join(cells))
