"""One module a format: the bytes of a file → Raster, or an ImageError that says what to do.

The containers (PNG chunks, JPEG segments, RIFF chunks, TIFF tags) are read here, and Pillow gets
only the parts that carry pixels. There are two reasons. Sizes, bands and bit depths are checked
before anything is decoded. And Pillow reports oddities in metadata through `warnings`, whose
filters all threads share and which `warnings.catch_warnings` cannot guard in a pool of threads
before Python 3.14: without the metadata there is nothing to warn of.
"""
