"""Backends of strangers: registered in this process, or installed as packages on a path of another one."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager

from orthokern._core import backends


@contextmanager
def registered(*strangers):
    """Make backends known inside the block, and this process as it was before after it."""
    before = dict(backends._registered)
    for stranger in strangers:
        backends.register(stranger)
    try:
        yield
    finally:
        backends._registered.clear()
        backends._registered.update(before)
        backends.load.cache_clear()
        backends._forget()


def install(folder, module, source, **names):
    """Leave a module, and the metadata of its backends (name=attribute) as pip writes them, in ``folder``."""
    folder.joinpath(f"{module}.py").write_text(source, encoding="utf-8")
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    points = "".join(f"{name} = {module}:{attribute}\n" for name, attribute in names.items())
    info.joinpath("entry_points.txt").write_text(f"[orthokern.backends]\n{points}")
    return folder


def python(*arguments, path=(), **environment):
    """Run Python on ``arguments`` with ``path`` importable; an environment variable that is None is removed."""
    folders = [*map(str, path), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(folders)} | environment
    return subprocess.run(
        [sys.executable, *arguments],
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def answer(code, *, path=(), **environment):
    """What ``code`` prints when it is run by another Python."""
    done = python("-W", "error", "-c", code, path=path, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout
