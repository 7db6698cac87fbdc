"""Stage 3: sessions in front of an engine with in-flight batching and a paged KV cache."""
