"""Real matrices: digits, patches of a photograph, colour histograms, gradients of a network.

``README.md`` in this folder says what each array is, where it comes from and under which licence.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["load", "names"]


def names() -> tuple[str, ...]:
    """Names of the data sets, sorted."""
    files = (entry.name for entry in resources.files(__name__).iterdir())
    return tuple(sorted(file.removesuffix(".npz") for file in files if file.endswith(".npz")))


def load(name: str, /) -> dict[str, npt.NDArray[Any]]:
    """Arrays of one data set, read anew at each call.

    Parameters
    ----------
    name
        One of `names`.

    Returns
    -------
    dict
        The arrays by name, in the dtype in which they are stored: unsigned 8-bit integers where
        the data are small integers, float32 otherwise.

    Raises
    ------
    ValueError
        If there is no data set of that name.

    Examples
    --------
    >>> from orthokern.testing import data
    >>> data.names()
    ('digits', 'gradients', 'histograms', 'patches')
    >>> data.load("patches")["patches"].shape
    (512, 64)
    """
    if name not in names():
        message = f"expected the name of a data set ({', '.join(names())}), got {name!r}"
        raise ValueError(message)
    with (
        resources.files(__name__).joinpath(f"{name}.npz").open("rb") as stream,
        np.load(stream, allow_pickle=False) as arrays,
    ):
        return dict(arrays)
