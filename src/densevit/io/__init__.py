"""Read and write photos, label masks, depth maps and JSON. The only package of densevit that imports Pillow.

Readers check their input, so the rest of the library sees plain arrays. Files are written atomically.
"""

from densevit.io.bands import BAND_SUFFIXES, read_bands
from densevit.io.depth import read_depth
from densevit.io.masks import decode_mask, read_colours, read_labels, read_mask, read_region
from densevit.io.mat import mat_length, read_mat_item, read_small_mat
from densevit.io.stored import resize_pillow
from densevit.io.text import read_json, read_lines, read_rows
from densevit.io.walk import Listing, is_litter, walk
from densevit_runtime.io.decode import IMAGE_SUFFIXES, check_pixels
from densevit_runtime.io.find import FoundPhotos, find_images, find_photos, natural_key
from densevit_runtime.io.outputs import claim, file_sha256
from densevit_runtime.io.read import as_image, read_image, read_values
from densevit_runtime.io.write import (
    append_line,
    atomic_path,
    encode_jpeg,
    link_or_copy,
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
from densevit_runtime.io.zipped import ZipPath, place

__all__ = [
    "BAND_SUFFIXES",
    "IMAGE_SUFFIXES",
    "FoundPhotos",
    "Listing",
    "ZipPath",
    "append_line",
    "as_image",
    "atomic_path",
    "check_pixels",
    "claim",
    "decode_mask",
    "encode_jpeg",
    "file_sha256",
    "find_images",
    "find_photos",
    "is_litter",
    "link_or_copy",
    "make_folder",
    "mat_length",
    "natural_key",
    "place",
    "read_bands",
    "read_colours",
    "read_depth",
    "read_image",
    "read_json",
    "read_labels",
    "read_lines",
    "read_mask",
    "read_mat_item",
    "read_region",
    "read_rows",
    "read_small_mat",
    "read_values",
    "resize_pillow",
    "to_json",
    "walk",
    "write_array",
    "write_bytes_atomic",
    "write_depth_mm",
    "write_jpeg",
    "write_json",
    "write_labels",
    "write_png",
]
