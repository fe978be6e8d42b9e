"""Photos of 10 or 12 bits in files of 16, which are almost black when they are read from 0..65535."""

import logging

import numpy as np
from PIL import Image

from densevit_runtime.io.decode import SIXTEEN_BITS

_DARK = 8192  # a photo without larger values
_log = logging.getLogger(__name__)
_named: set[str] = set()  # files are read in every epoch


def warn_if_dark(image: Image.Image, name: str) -> Image.Image:
    """The image itself, decoded from the file ``name``, with a warning, once, if 16 bits make it almost black."""
    if image.mode.startswith("I"):
        peak = int(np.asarray(image).max())
    elif image.mode in {"RGB", "RGBA"} and image.info.get(SIXTEEN_BITS):  # Pillow keeps the upper 8 of them
        peak = max(int(np.asarray(image.getchannel(band)).max()) for band in "RGB") * 256 + 255
    else:
        return image
    if 0 < peak < _DARK and name not in _named:
        _named.add(name)
        white = max((1 << peak.bit_length()) - 1, 255)
        _log.warning(
            "%s holds 16-bit values up to %d, of which 65535 becomes white, so the photo is almost black; if that is "
            "not meant, run TIFFs and PNGs by densevit predict with --stream --range 0,%d, or scale the values up to "
            "65535",
            name, peak, white,
        )  # fmt: skip
    return image
