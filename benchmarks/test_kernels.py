"""Every benchmark case of the registry on every backend, for pytest-benchmark.

::

    pytest benchmarks --benchmark-group-by=group --benchmark-columns=median,iqr,rounds

A case is judged before it is timed: a wrong result has no speed.
"""

from __future__ import annotations

from typing import Any

import pytest

from orthokern import use_backend
from orthokern.testing import libraries
from orthokern.testing.checking import check, example
from orthokern.testing.validation import Job, Selection, jobs

JOBS = [job for job in jobs(Selection(libraries=("numpy",))) if job.case.bench]


def _name(job: Job) -> str:
    return f"{job.declaration.name}/{job.case.name}-{job.setting.dtype}-{job.setting.backend}"


@pytest.mark.parametrize("job", JOBS, ids=_name)
def test_kernel(job: Job, request: pytest.FixtureRequest) -> None:
    """Time one case on one backend; compare within the group."""
    outcome = check(job.declaration, job.case, job.setting)
    if outcome.verdict == "refused":
        pytest.skip(outcome.reason)
    assert outcome.verdict == "pass", outcome.reason
    arrays = [
        libraries.to_library(a, "numpy", layout=job.case.layout)
        for a in example(job.declaration, job.case, job.setting.dtype)
    ]
    # Asked for late: the fixture complains of a test that is skipped.
    benchmark: Any = request.getfixturevalue("benchmark")
    benchmark.group = f"{job.declaration.name}/{job.case.name} {job.setting.dtype}"
    benchmark.extra_info["ran"] = outcome.ran
    with use_backend(job.setting.backend):
        benchmark(job.declaration.function, *arrays, **job.case.options)
