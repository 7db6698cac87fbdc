"""Stage 1: opens media, plans what is looked at, decodes, and makes chunks of temporal patches and prompt tokens."""
