"""Summaries of video of any length.

summarizing: describes the parts by requests in flight together, and merges the descriptions level by level
blocking: the same for ordinary code
asks: what a summary needs of a client
cutting: cuts a video into parts at its own boundaries
grouping: which notes are merged at once
notes: the answers about parts, read and checked
prompts: the questions that are asked
summary: a summary, and what is told while it is made
formats: summaries as Markdown, JSON, SRT and WebVTT
journal: answers on disk, so that an interrupted summary goes on where it was
"""

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
