"""Still images: opened within bounds, measured, decoded.

images: opens an image, reads its size, decodes it upright
jpeg_scans: the scans of a JPEG file, counted before it is decoded
webp: the size of a WebP image out of its first bytes
"""
