"""Tables that the registry writes: op x backend, kernel x array library x dtype, and the declared cases.

Directives ``support-ops``, ``support-libraries``, ``support-cases NAME``; each is filled when the page is built.
"""

from __future__ import annotations

import numpy as np
from docutils import nodes
from docutils.parsers.rst import Directive

from orthokern._core import random  # noqa: F401 - declares the op random_bits
from orthokern._core.backends import ARRAY_API, DEFAULT_ORDER, installed, load, priority
from orthokern._core.dispatch import OPS
from orthokern._core.registry import Case, Declaration, load_all
from orthokern.testing import libraries, report, validation

PRECISIONS = ("float64", "float32")


def _first_line(text: str | None) -> str:
    return (text or "").strip().split("\n\n")[0].replace("\n", " ")


def _paragraph(text: str) -> nodes.paragraph:
    """A paragraph in which `` ``...`` `` becomes literal text."""
    paragraph = nodes.paragraph()
    for i, part in enumerate(text.split("``")):
        paragraph += nodes.literal(text=part) if i % 2 else nodes.Text(part)
    return paragraph


def _row(cells: list[str]) -> nodes.row:
    row = nodes.row()
    for cell in cells:
        entry = nodes.entry()
        entry += _paragraph(cell)
        row += entry
    return row


def _table(head: list[str], body: list[list[str]], widths: list[int]) -> nodes.table:
    group = nodes.tgroup(cols=len(head))
    for width in widths:
        group += nodes.colspec(colwidth=width)
    top, rows = nodes.thead(), nodes.tbody()
    top += _row(head)
    for cells in body:
        rows += _row(cells)
    group += top
    group += rows
    table = nodes.table(classes=["wide"])
    table += group
    return table


def _examples(case: Case) -> tuple[np.ndarray, ...]:
    return case.arrays(np.random.default_rng(0))


def _views(backend: str) -> bool:
    """Whether a backend gets the arrays of other libraries in the memory of the host."""
    return ("numpy", "cpu") in load(backend).serves


def _serves(backend: str, library: str) -> bool:
    """Whether arrays of ``library`` reach a backend, where they lie when it is validated."""
    if backend == ARRAY_API:
        return True
    return library == "cupy" if not _views(backend) else library != "cupy"


def _is_complex(declaration: Declaration) -> bool:
    return any(np.iscomplexobj(array) for case in declaration.cases for array in _examples(case))


class Ops(Directive):
    """Each op, and which backend replaces its body."""

    def run(self) -> list[nodes.Node]:
        load_all()
        names = [name for name in installed() if name in DEFAULT_ORDER]
        body = [
            [f"``{op}``", _first_line(OPS[op].__doc__), "the body", "yes" if OPS[op].jvp else ""]
            + ["yes" if op in load(name).entries else "" for name in names]
            for op in sorted(OPS)
        ]
        served = {
            name: ", ".join(f"{lib} on {dev}" for lib, dev in sorted(load(name).serves))
            for name in names
        }
        body.append(
            [
                "accepts",
                "",
                "any array",
                "",
                *(served[name] + (", and views of it" if _views(name) else "") for name in names),
            ]
        )
        body.append(
            [
                "asked by default",
                "",
                "last",
                "",
                *("yes" if n in priority() else "no" for n in names),
            ]
        )
        head = [
            "op",
            "what it computes",
            ARRAY_API,
            "tangent rule",
            *(f"``{name}``" for name in names),
        ]
        return [_table(head, body, [18, 44, 10, 10] + [14] * len(names))]


class Libraries(Directive):
    """Each declared kernel and op: how many cases ``orthokern validate`` runs on which library, in which dtypes."""

    def run(self) -> list[nodes.Node]:
        backends = [name for name in installed() if name in DEFAULT_ORDER]
        names = list(libraries.MODULES)
        body = []
        for declaration in load_all().values():
            cells = [self._cell(declaration, library, backends) for library in names]
            real = sum(case.real for case in declaration.cases)
            dtypes = ", ".join(PRECISIONS) + (
                ", complex128, complex64" if _is_complex(declaration) else ""
            )
            body.append(
                [
                    f"``{declaration.name}``",
                    f"{len(declaration.cases)} ({real} real)",
                    dtypes,
                    *cells,
                ]
            )
        return [
            _table(
                ["kernel or op", "cases", "dtypes", *names], body, [18, 12, 16] + [11] * len(names)
            )
        ]

    def _cell(self, declaration: Declaration, library: str, backends: list[str]) -> str:
        """Number of cases on the reference and on each backend, by the rule that ``validate`` uses."""
        found = []
        for backend in (ARRAY_API, *backends):
            count = sum(
                validation.wanted(
                    validation.Selection(), declaration, case, library, "float64", backend
                )
                for case in declaration.cases
            )
            if count and _serves(backend, library):
                found.append(f"{backend}: {count}")
        return ", ".join(found)


class Cases(Directive):
    """The declared cases of one kernel."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        declaration = load_all()[self.arguments[0]]
        body = []
        for case in declaration.cases:
            array = _examples(case)[0]
            shape = " x ".join(map(str, array.shape)) + (
                ", complex" if np.iscomplexobj(array) else ""
            )
            options = ", ".join(f"``{key}={value!r}``" for key, value in case.options.items())
            marks = [
                word
                for word, on in (("real data", case.real), ("timed by bench", case.bench))
                if on
            ]
            marks += [] if case.layout == "contiguous" else [case.layout]
            distance = "" if case.forward is None else f"{case.forward:g} eps"
            body.append([case.name, shape, options, distance, ", ".join(marks)])
        head = ["case", "shape", "options", "limit of the distance to the reference", ""]
        return [_table(head, body, [20, 18, 22, 16, 20])]


class Validated(Directive):
    """The table of ``orthokern validate`` for one kernel on NumPy arrays, without timings."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        selection = validation.Selection(kernels=[self.arguments[0]], libraries=["numpy"])
        rows = [validation.run(job, repeats=0) for job in validation.jobs(selection)]
        drop = {"speed-up", "kernel", "library"}
        kept = [i for i, name in enumerate(report.COLUMNS) if name not in drop]
        body = [[report.cells(row)[i] for i in kept] for row in report.condensed(rows)]
        return [_table([report.COLUMNS[i] for i in kept], body, [22, 18, 12, 18, 12, 12, 10])]


def setup(app: object) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("support-ops", Ops)
    app.add_directive("support-libraries", Libraries)
    app.add_directive("support-cases", Cases)
    app.add_directive("validate-table", Validated)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
