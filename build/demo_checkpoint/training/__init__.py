"""The steps of the training, from a pool of videos to a decoder that answers.

schedule: how much is trained, and where
pool: videos as the served sampler sees them, on disk
served: stage 1's own sampler
vision_training: the first stage: the vision tower
decoder_training: the second stage: the decoder
composing: training videos, composed of slices of the pool's
prompts: a video with its questions as one sequence
writer: tokens with positions and pointers
batches: padded sequences
attention_supervision: where the decoder's heads are taught to look
probes: what hidden states are taught to know
optimizers: Muon and AdamW
progress: the state in files, the means in lines
"""
