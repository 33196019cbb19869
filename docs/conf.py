"""Configuration of the manual: ``sphinx-build -W -n -b html docs docs/_build/html``."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
try:
    import orthokern
except ImportError:  # a plain checkout, nothing installed
    sys.path[:0] = [str(HERE.parent), str(HERE.parent / "backends")]
    import orthokern

# The manual describes the default choice of backends, whatever the environment of the build asks for.
os.environ.pop("ORTHOKERN_BACKENDS", None)

project = "orthokern"
author = "The orthokern developers"
copyright = author  # noqa: A001
version = release = orthokern.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "contract",
    "support",
]
exclude_patterns = [
    "_build",
    "gallery/*.md",
    "gallery/*.rst",
    "gallery/*.py",
    "sg_execution_times.rst",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "substitution"]
myst_heading_anchors = 3
# Constants of the code that pages mention, so that they cannot disagree.
_request = importlib.import_module("orthokern.spectral.request")
_factor = importlib.import_module("orthokern.spectral.factor")
_coefficients = importlib.import_module("orthokern.spectral.coefficients")
_calibration = importlib.import_module("orthokern.inverse.selfcalibration")
myst_substitutions = {
    "default_lower_bound": f"{_request.DEFAULT_LOWER_BOUND:g}",
    "unfinished": f"{_factor.UNFINISHED:g}",
    "most_closing_steps": f"{_factor.MOST_CLOSING_STEPS}",
    "least_gap": f"{_calibration.LEAST_GAP:g}",
    "presets": ", ".join(f'`"{name}"`' for name in _coefficients.PRESETS),
}

autodoc_typehints = "none"
autodoc_member_order = "bysource"
# Types in docstrings are written for readers ("array (..., m, n)"), not for the cross-reference parser.
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_use_ivar = False
napoleon_google_docstring = False
nitpick_ignore = [("py:class", "typing.Any"), ("py:class", "NamedTuple")]

doctest_global_setup = """
import warnings
import numpy as np
import orthokern
np.set_printoptions(precision=6, suppress=True)
"""
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "generated/gallery",
    "filename_pattern": r"plot_",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
    "min_reported_time": 1e9,
    "write_computation_times": False,
    "abort_on_example_error": True,
}

html_theme = "furo"
html_title = f"orthokern {release}"
html_static_path = ["_static"]
html_css_files = ["orthokern.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": True,
    "light_css_variables": {"color-brand-primary": "#2452c7", "color-brand-content": "#2452c7"},
    "dark_css_variables": {"color-brand-primary": "#8fb0ff", "color-brand-content": "#8fb0ff"},
}
