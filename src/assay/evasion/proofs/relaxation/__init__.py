"""Bounds of a network over a perturbation set: intervals, CROWN and its refinements."""

from .graph import read_network
from .interval import interval_bounds
from .linear import Slopes
from .margins import Method, certified_margins, certify
from .network import Network
from .region import Ball, Box, Norm, Region

__all__ = ["Ball", "Box", "Method", "Network", "Norm", "Region", "Slopes", "certified_margins", "certify",
           "interval_bounds", "read_network"]
