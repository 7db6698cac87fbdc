"""Stage 1: opens media, plans what is looked at, decodes, and sends chunks of temporal patches.

Rooms and modules import downwards only; those on one line do not import each other:

service: requests in, sessions served by a bounded pool, heartbeats for all of them
session | parameters: one request from its inputs to its end | the parameters of config.pbtxt
chunks: the prompt in pieces, each with the pictures that it shows
plan: which frames are looked at, and the whole prompt, before anything is decoded
workers | request: processes that read media, and what a request reads with | a request, checked
cache | images | sampling: the disk cache, and speech | still images | which frames are looked at
media: video files: containers, timelines, frames, subtitles, sound
credits | directories | errors | in_order | quiet_log | settings | signing | turns: small modules that import no room
"""
