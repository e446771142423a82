"""
A run without a coordinator: planned here, carried out by programmes on the hosts, and judged here again.

The same course is followed twice. First a scribe stands in the place of the agents: it writes down who is
asked what, and when, and nobody answers. The second time, the answers are there, and whoever asks hears them.
So what a packet means is said in one place, for live runs and for these.
"""

from __future__ import annotations

from netprobe.offline.collate import collate
from netprobe.offline.directory import Plan, PlanError, draw_up

__all__ = ["Plan", "PlanError", "collate", "draw_up"]
