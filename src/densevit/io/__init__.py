"""Files in and out: photos, label masks, depth maps, JSON. The only package of densevit that imports Pillow.

Everything that comes in is checked here, so the rest sees plain arrays; every file that goes out appears whole or not
at all.
"""

from densevit.io.decode import IMAGE_SUFFIXES, MAX_PIXELS
from densevit.io.find import find_images
from densevit.io.read import as_image, read_depth, read_image, read_labels, read_values
from densevit.io.resample import resize_bicubic
from densevit.io.write import (
    atomic_path,
    encode_jpeg,
    make_folder,
    to_json,
    write_array,
    write_bytes_atomic,
    write_depth_mm,
    write_jpeg,
    write_json,
    write_labels,
    write_png,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "as_image",
    "atomic_path",
    "encode_jpeg",
    "find_images",
    "make_folder",
    "read_depth",
    "read_image",
    "read_labels",
    "read_values",
    "resize_bicubic",
    "to_json",
    "write_array",
    "write_bytes_atomic",
    "write_depth_mm",
    "write_jpeg",
    "write_json",
    "write_labels",
    "write_png",
]
