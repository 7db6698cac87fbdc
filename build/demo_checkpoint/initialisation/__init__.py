"""The weights that the decoder starts from, set by hand.

slots: the dimensions of the hidden state, and what each carries
heads: the ways in which a head looks and copies
decoder: the table of all heads, and the embeddings
"""
