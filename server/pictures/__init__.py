"""Pictures that are sent as files or as pixels of any size, made into what a model reads. Knows no request and no loop.

`decode` alone needs Pillow, so that a server without it serves every model that takes no pictures.
"""
