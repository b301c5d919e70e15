"""Temporary: moved to weights.preprocessing; import it from there."""

from weights.preprocessing import FLOW_ZERO, Preprocessing

__all__ = ["FLOW_ZERO", "Preprocessing"]
