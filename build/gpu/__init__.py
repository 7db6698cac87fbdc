"""From a checkpoint and a GPU profile to a repository that serves it there: `python -m engines`."""
