"""The dashboard: look at and listen to the results of models, in a browser."""

from __future__ import annotations

from bacpipe.dashboard.server import app, visualize_using_dashboard

__all__ = ["app", "visualize_using_dashboard"]
