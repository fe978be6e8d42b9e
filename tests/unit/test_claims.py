"""What image, array and raster files claim beyond what they hold, and where they may lead."""

import io
import logging
import struct
import threading
import zipfile
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densevit.errors import DataError
from densevit.io import read_bands, read_image, read_labels, read_values
from densevit.limits import VARIABLE
from densevit_runtime.io.decode import check_pixels


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, pixels: bytes, *, depth: int = 8, colour: int = 0, interlaced: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def encoded(kind: str, size: tuple[int, int] = (16, 16)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 10, 10)).save(buffer, format=kind)
    return buffer.getvalue()


def claiming(kind: str, width: int, height: int) -> bytes:
    """A small file whose header claims another size."""
    data = encoded(kind)
    if kind == "GIF":
        return data[:6] + struct.pack("<HH", width, height) + data[10:]
    if kind == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]
    if kind == "BMP":
        return data[:18] + struct.pack("<ii", width, height) + data[26:]
    if kind == "PPM":
        return data.replace(b"16 16", f"{width} {height}".encode())
    at = data.index(b"ihdr") + 4  # JPEG 2000, whose codestream has the size too
    data = data[:at] + struct.pack(">II", height, width) + data[at + 8 :]
    at = data.index(b"\xff\x4f\xff\x51") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


@pytest.mark.parametrize("kind", ["GIF", "JPEG", "BMP", "PPM", "JPEG2000"])
def test_image__that_claims_more_than_its_bytes_can_hold_is_refused_before_decoding(kind, tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(claiming(kind, 30000, 30000))
    with pytest.raises(DataError, match=r"30000 x 30000 pixels in|pixels_per_byte"):
        read_image(path)


def test_budget__of_pixels_is_that_of_the_variable(monkeypatch, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG"))
    read_image(path)
    monkeypatch.setenv(VARIABLE, "pixels=100")
    with pytest.raises(DataError, match=f"{VARIABLE}=pixels=NUMBER"):
        read_image(path)


@pytest.mark.parametrize(
    ("size", "stored"), [((0, 5), None), ((5, 0), 10), ((40_000, 40_000), None), ((9_000, 9_000), 9)]
)
def test_check_pixels__refuses(size, stored):
    with pytest.raises(DataError):
        check_pixels("a.png", size, stored)


@pytest.mark.parametrize(("size", "stored"), [((1, 1), 1), ((8_000, 8_000), 10), ((30_000, 30_000), 700_000)])
def test_check_pixels__takes_what_honest_files_have(size, stored):
    check_pixels("a.png", size, stored)


@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize(
    ("depth", "colour", "width"), [(8, 0, 9), (1, 0, 9), (16, 0, 9), (8, 2, 9), (8, 6, 9), (4, 3, 9)]
)
def test_png__without_its_last_rows_is_refused_and_a_black_one_is_not(tmp_path, depth, colour, width, interlaced):
    channels = {0: 1, 2: 3, 3: 1, 6: 4}[colour]
    passes = [(9, 9)] if not interlaced else [(2, 2), (2, 1), (1, 3), (3, 2), (2, 5), (5, 4), (4, 9)]
    whole = bytes(sum(rows * (1 + (columns * depth * channels + 7) // 8) for rows, columns in passes))
    palette = chunk(b"PLTE", bytes(48)) if colour == 3 else b""
    for pixels, complete in ((whole, True), (whole[: len(whole) // 2], False)):
        data = png(width, 9, pixels, depth=depth, colour=colour, interlaced=interlaced)
        path = tmp_path / f"{complete}.png"
        path.write_bytes(data[:33] + palette + data[33:])
        if complete:
            assert read_image(path).shape == (9, 9, 3)
        else:
            with pytest.raises(DataError, match=r"ends after|cut short"):
                read_image(path)


@pytest.mark.parametrize("read", [read_labels, read_values])
def test_array__that_claims_more_than_its_file_holds_is_refused_before_memory_is_taken(read, tmp_path):
    path = tmp_path / "a.npy"
    header = np.lib.format.header_data_from_array_1_0(np.zeros((2, 2, 2), np.float32)) | {"shape": (10**6, 10**6, 3)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(32))
    with pytest.raises(DataError, match=r"claims an array \(1000000, 1000000, 3\)"):
        read(path)


class TestRasters:
    """With rasterio."""

    @pytest.fixture(autouse=True)
    def _rasterio(self):
        pytest.importorskip("rasterio")

    def write(self, path: Path, values: np.ndarray, **options: object) -> Path:
        import rasterio

        count, height, width = values.shape
        place = rasterio.transform.from_origin(5e5, 5e6, 0.5, 0.5)
        profile = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": values.dtype}
        with rasterio.open(path, "w", **profile, crs="EPSG:32633", transform=place, **options) as dataset:
            dataset.write(values)
        return path

    def test_reference__to_the_network_or_another_file_is_not_followed(self, tmp_path):
        from densevit.io.gdal import read_head
        from densevit.io.raster import open_raster

        requests: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append(self.path)
                self.send_error(404)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        other = self.write(tmp_path / "other.tif", np.zeros((3, 8, 8), np.uint8))
        sources = (f"/vsicurl/http://127.0.0.1:{server.server_port}/a.tif", str(other))
        for number, source in enumerate(sources):
            path = tmp_path / f"{number}.png"
            path.write_text(
                '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
                f"<SourceFilename>{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
                "</VRTDataset>"
            )
            for read in (read_head, lambda p: open_raster(p).__enter__(), lambda p: read_bands(p, bands=[1])):
                with pytest.raises(DataError, match="neither a TIFF nor a PNG"):
                    read(path)
        server.shutdown()
        assert requests == []

    def test_archive__is_read_by_the_same_drivers(self, tmp_path):
        raster = self.write(tmp_path / "a.tif", np.full((2, 8, 8), 7, np.uint8))
        with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
            archive.write(raster, "a.tif")
            archive.writestr("b.tif", "<VRTDataset/>")
        assert (read_bands(tmp_path / "data.zip!/a.tif", bands=[2]) == 7).all()
        with pytest.raises(DataError, match="neither a TIFF nor a PNG"):
            read_bands(tmp_path / "data.zip!/b.tif", bands=[1])

    @pytest.mark.parametrize(
        ("dtype", "low", "high", "outcome"),
        [
            ("float32", 0, 255, "refused"),
            ("float32", 0, 1, "silent"),
            ("float32", 0, 1.3, "clipped"),
            ("uint16", 0, 4095, "almost black"),
            ("uint16", 0, 60000, "silent"),
            ("uint8", 0, 20, "silent"),
        ],
    )
    def test_values__that_the_default_range_can_hardly_mean_are_told(self, tmp_path, caplog, dtype, low, high, outcome):
        from densevit.io.raster import open_raster

        values = np.random.default_rng(0).uniform(low, high, (3, 64, 64)).astype(dtype)
        path = self.write(tmp_path / "a.tif", values)
        with caplog.at_level(logging.WARNING):
            if outcome == "refused":
                with pytest.raises(DataError, match=r"--range -?\d+,\d+"), open_raster(path):
                    pass
            else:
                with open_raster(path):
                    pass
        assert (outcome in caplog.text) if outcome in {"clipped", "almost black"} else (caplog.text == "")
        caplog.clear()
        with open_raster(path, limits=(low, high)):
            assert caplog.text == ""

    def test_alpha__with_values_in_between_is_told(self, tmp_path, caplog):
        from densevit.io.raster import open_raster

        values = np.random.default_rng(0).integers(1, 255, (4, 32, 32), dtype=np.uint8)
        with open_raster(self.write(tmp_path / "infrared.tif", values)):
            assert "--bands 1,2,3" in caplog.text
        caplog.clear()
        values[3] = np.where(values[3] > 128, 255, 0)
        with open_raster(self.write(tmp_path / "alpha.tif", values)):
            assert caplog.text == ""

    def test_nan__is_no_data_without_a_tag(self, tmp_path):
        from densevit.io.raster import open_raster

        values = np.random.default_rng(0).random((3, 32, 32), dtype=np.float32)
        values[1, :4] = np.nan
        with open_raster(self.write(tmp_path / "a.tif", values)) as source:
            valid = source.valid(slice(0, 32), slice(0, 32))
        assert valid is not None
        assert valid.sum(axis=1).tolist() == [0] * 4 + [32] * 28
