"""Media that come in and go out: uploads, contents, URLs and lists of frames.

references: turns the URLs of a request into media
fetch: fetches media over http(s) from allowed hosts
frame_list: a video that comes as its frames
multipart: a form with one file, read as it arrives
storing: writes an upload piece by piece, outside the event loop
contents: sends an uploaded file back, in ranges
pictures: pictures of a video, decoded in processes of their own
picture_worker: the program of these processes
"""
