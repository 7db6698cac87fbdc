"""The web page: drop a video, ask, and see which frames are looked at.

routes: the page's files, its users' files, and answers as they are written
asked: the bodies that the page sends
conversation: the page's conversation as the client library wants it
kinds: the kind of a file, by its name
replies: the lines that the page hears while a question is answered
rendering: answers as HTML
static/: the page's own files
"""
