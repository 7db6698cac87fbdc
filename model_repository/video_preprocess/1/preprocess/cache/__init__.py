"""Results that are kept on disk, and the transcripts that are worth it.

disk_cache: files by the digest of all that they depend on; the least recently used go
speech: speech as lines of text, by faster-whisper or another transcriber
"""
