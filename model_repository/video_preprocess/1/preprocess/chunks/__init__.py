"""The prompt in pieces that are decoded, encoded and prefilled one after the other.

chunks: cuts the prompt into chunks
decode: the chosen frames and images, resized
patches: cuts pictures into the vision tower's patches
video_patches: a video's temporal patches, decoded or out of the cache
vision_positions: each patch's place, as the vision tower is told it
"""
