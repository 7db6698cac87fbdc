"""Video files, read in their content: what their headers and packets say, and the frames that were chosen.

attachment: a video or an image that came with a request
change: the change signal, where a video changes
edit_lists: the edits of an MP4 file, counted before FFmpeg opens it
frames: decodes the frames that were chosen, in order
key_frames: from which key frame a frame is reached
library: opens attachments, below the media root and within bounds
matroska: the length that a Matroska or WebM file announces
segments: runs of wanted frames, each decoded from the key frame that leads to it
size: height and width of a picture
sound: the sound of a video, for speech recognition
subtitles: timed lines of text, from files and text tracks
thumbnails: the change signal of the pictures
timeline: when each frame is shown, by the container's packets
video: all that is known of a video before it is decoded
"""
