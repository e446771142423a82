"""Blocked flows by cause: what is lost together, where, and in words for people."""

from __future__ import annotations

from netprobe.diagnosis.groups import Diagnosis, Group, Untested, What, diagnose, reason
from netprobe.diagnosis.routes import Route

__all__ = ["Diagnosis", "Group", "Route", "Untested", "What", "diagnose", "reason"]
