"""Summaries of video of any length."""

from .cutting import Part
from .formats import FORMATS, clock
from .notes import Chapter, Note
from .summarizing import SummaryOptions, summarize
from .summary import Cut, Merged, PartDone, Summary, SummaryEvent

__all__ = [
    "FORMATS",
    "Chapter",
    "Cut",
    "Merged",
    "Note",
    "Part",
    "PartDone",
    "Summary",
    "SummaryEvent",
    "SummaryOptions",
    "clock",
    "summarize",
]
