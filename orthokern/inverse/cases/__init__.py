"""Examples of the inverse family, and how its results are judged."""

from __future__ import annotations

from . import ridge, selfcalibration

__all__ = ["ridge", "selfcalibration"]
