"""The web page: drop a video, ask, and see what was looked at."""
