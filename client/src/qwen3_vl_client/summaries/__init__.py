"""Summaries of video of any length."""

from .cutting import Part
from .formats import FORMATS, brief, clock
from .journal import journals_of, sweep_journals
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
    "brief",
    "clock",
    "journals_of",
    "summarize",
    "sweep_journals",
]
