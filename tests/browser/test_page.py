"""The page of a web export in headless Chromium, as on a phone: ``make browser``. Screenshots go to browser-shots/."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from densevit.io import read_image
from tests.browser.devtools import Chromium, find_browser
from tests.browser.server import Site
from tests.web_models import CLASSES, tiny_predictor

pytestmark = pytest.mark.browser

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
SHOTS = Path(__file__).parents[2] / "browser-shots"
ON_A_GPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A web export of a tiny model of all tasks."""
    from densevit.export.web import export_web

    assert find_browser(), "no Chromium was found; install chromium, or set BROWSER_PATH"
    out = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("densevit.export.verify.SIZES", ((1, 40, 60), (3, 48, 48)))
        export_web(tiny_predictor(), out, scores=True)
    return out


@pytest.fixture
def site(folder: Path) -> Iterator[Site]:
    with Site(folder) as site:
        yield site


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Chromium]:
    with Chromium(tmp_path / "chromium") as page:
        yield page


def start(page: Chromium, site: Site, query: str = "?engine=wasm") -> None:
    page.open(f"{site.address}/{query}")
    page.wait("document.body.dataset.ready")


def show(page: Chromium, photo: Path, head: str) -> None:
    """Choose a photo and a head, and wait for the result."""
    page.choose_file("#choose", photo)
    show_head(page, head)


def show_head(page: Chromium, head: str) -> None:
    page.evaluate(f"document.querySelector('#heads input[value={head}]').click()")
    page.wait(
        f"!document.querySelector('#result').hidden && document.querySelector('#result').dataset.head === '{head}'"
        " && document.querySelector('#working').hidden",
        timeout_s=1200,
    )


def text(page: Chromium, selector: str) -> str:
    return str(page.evaluate(f"document.querySelector({json.dumps(selector)}).textContent"))


def saved(page: Chromium, number: int, name: str) -> Path:
    """The file that a button saves."""
    page.evaluate(f"document.querySelectorAll('#downloads button')[{number}].click()")
    return page.downloaded(name)


def answers(folder: Path, photo: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """What the graphs of a folder give in Python."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # otherwise it also rounds activations
    found = {}
    for graph in json.loads((folder / "model.json").read_text(encoding="utf-8"))["graphs"]:
        session = onnxruntime.InferenceSession(folder / graph["file"], options)
        outputs = session.run(graph["heads"], {"image": photo[None]})
        found |= {head: output[0] for head, output in zip(graph["heads"], outputs, strict=True)}
    return found


def write_photo(path: Path, kind: str) -> Path:
    """A photo of 100 x 60 pixels; "rotated" is a JPEG that its EXIF orientation turns upright."""
    image = Image.fromarray(read_image(PHOTOS / "street.jpg")).resize((100, 60))
    if kind == "transparent":
        image.putalpha(Image.linear_gradient("L").resize((100, 60)).point(lambda value: 255 * (value > 128)))
    exif = Image.Exif()
    if kind == "rotated":
        exif[0x0112] = 6
    file = path / f"my photo.{'jpg' if kind == 'rotated' else 'png'}"
    image.save(file, exif=exif, quality=95)
    return file


@pytest.mark.parametrize("kind", ["plain", "transparent", "rotated"])
def test_page__gives_what_python_gives(page: Chromium, site: Site, folder: Path, tmp_path: Path, kind: str) -> None:
    file = write_photo(tmp_path, kind)
    photo = read_image(file)
    expected = answers(folder, photo)
    least = 0.97 if kind == "rotated" else 0.999  # decoders of JPEG may differ by a grey level
    start(page, site)

    show(page, file, "things")
    labels = np.asarray(Image.open(saved(page, 0, "my photo.things.labels.png")))
    picture = Image.open(saved(page, 1, "my photo.things.overlay.png"))
    show_head(page, "distance")
    millimetres = np.asarray(Image.open(saved(page, 0, "my photo.distance.mm.png")))
    show_head(page, "normals")
    normals = np.load(saved(page, 0, "my photo.normals.npy"))

    assert labels.shape == photo.shape[:2] == ((100, 60) if kind == "rotated" else (60, 100))
    assert picture.size == photo.shape[1::-1]
    assert (labels == expected["things"]).mean() >= least
    assert np.abs(millimetres / 1000 - expected["distance"]).max() <= (0.1 if kind == "rotated" else 0.002)
    assert np.abs(normals - expected["normals"]).mean() <= (0.02 if kind == "rotated" else 1e-3)
    assert page.messages == []


def test_page__reads_values_by_pointer_and_keys(page: Chromium, site: Site, folder: Path, tmp_path: Path) -> None:
    file = write_photo(tmp_path, "plain")
    expected = answers(folder, read_image(file))
    start(page, site)
    show(page, file, "distance")

    box = page.evaluate(
        "(({left, top, width, height}) => [left, top, width, height])"
        "(document.querySelector('#stage').getBoundingClientRect())"
    )
    page.click_at(box[0] + 0.305 * box[2], box[1] + 0.508 * box[3])

    assert text(page, "#reading") == f"{expected['distance'][30, 30]:#.3g} m at 30, 30"
    page.evaluate("document.querySelector('#stage').focus()")
    page.press("ArrowRight")
    page.press("ArrowDown")
    assert text(page, "#reading").endswith("at 32, 32")
    show_head(page, "things")
    assert text(page, "#reading").startswith(CLASSES[expected["things"][32, 32]] + " (")
    show_head(page, "normals")
    assert text(page, "#reading").startswith("x ")


def test_page__shows_names_as_text(page: Chromium, site: Site, folder: Path, tmp_path: Path) -> None:
    start(page, site)
    show(page, write_photo(tmp_path, "plain"), "things")

    assert text(page, "h1") == "tiny & <small>"
    assert page.evaluate("document.querySelectorAll('main b > b, main span > b').length") == 0
    shares = page.evaluate("[...document.querySelectorAll('#classes li')].map((row) => row.innerText)")
    assert shares
    assert all(any(name in share for name in CLASSES) for share in shares)
    facts = text(page, "#facts")
    assert "CC0-1.0" in facts
    assert "mIoU 0.500" in facts
    assert "WebAssembly, 1 thread" in facts


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_page__fits_and_has_names_and_contrast(tmp_path: Path, site: Site, width: int) -> None:
    with Chromium(tmp_path / "chromium", size=(width, 800)) as page:
        start(page, site)
        show(page, write_photo(tmp_path, "plain"), "things")
        page.evaluate("document.querySelector('details').open = true")
        for scheme in ("light", "dark"):
            page.screenshot(SHOTS / f"tiny-{width}-{scheme}.png", dark=scheme == "dark")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(LOW_CONTRAST) == []
        small = "[...document.querySelectorAll('button, .button')].filter((one) => one.offsetHeight < 44).length"
        assert page.evaluate(small) == 0
        page.call("Accessibility.enable")
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        roles = {"button", "radio", "slider", "radiogroup", "application", "progressbar", "list"}
        shown = [node for node in nodes if not node["ignored"] and node["role"]["value"] in roles]
        assert {node["role"]["value"] for node in shown} >= {"button", "radio", "slider", "application"}
        assert [node["role"]["value"] for node in shown if not node.get("name", {}).get("value")] == []


# Texts whose contrast with the colour behind them is below 4.5.
LOW_CONTRAST = """
(() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3)
      .map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const parent = node.parentElement;
    if (!node.data.trim() || !parent.offsetParent || parent.tagName === "NOSCRIPT") continue;
    const [a, b] = [light(getComputedStyle(parent).color), light(behind(parent))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) found.push(node.data.trim());
  }
  return found;
})()
"""


def test_page__works_without_a_network(page: Chromium, folder: Path, tmp_path: Path) -> None:
    file = write_photo(tmp_path, "plain")
    with Site(folder) as site:
        start(page, site)
        page.wait("Boolean(navigator.serviceWorker.controller)")
        show(page, file, "things")
        show_head(page, "distance")
        kept = "caches.keys().then((names) => caches.open(names[0])).then((c) => c.keys()).then((all) => all.length)"
        page.wait(f"{kept}.then((number) => number >= 20)")
    before = len(site.requests)

    start(page, site)
    show(page, file, "distance")

    assert "WebAssembly" in text(page, "#facts")
    assert len(site.requests) == before


def test_page__takes_another_photo_and_head_while_it_computes(
    page: Chromium, site: Site, folder: Path, tmp_path: Path
) -> None:
    first, second = write_photo(tmp_path, "rotated"), write_photo(tmp_path, "plain")
    start(page, site)
    show(page, second, "things")

    page.choose_file("#choose", first)
    for head in ("distance", "normals", "things", "distance"):
        page.evaluate(f"document.querySelector('#heads input[value={head}]').click()")
    page.choose_file("#choose", second)
    show_head(page, "things")
    labels = np.asarray(Image.open(saved(page, 0, "my photo.things.labels.png")))

    assert (labels == answers(folder, read_image(second))["things"]).mean() >= 0.999
    assert page.messages == []


def test_page__loads_the_model_with_the_first_photo(page: Chromium, site: Site, tmp_path: Path) -> None:
    start(page, site)
    assert not any("weights.bin" in path or path.endswith(".wasm") for path in site.requests)

    show(page, write_photo(tmp_path, "plain"), "things")

    assert any("weights.bin" in path for path in site.requests)
    assert not any("asyncify" in path for path in site.requests)  # only for graphics processors


def test_page__reduces_large_photos(page: Chromium, site: Site, tmp_path: Path) -> None:
    Image.fromarray(read_image(PHOTOS / "street.jpg")).resize((2000, 3000)).save(tmp_path / "large.jpg")
    start(page, site)

    show(page, tmp_path / "large.jpg", "things")

    assert Image.open(saved(page, 0, "large.things.labels.png")).size == (683, 1024)


def problem(page: Chromium) -> str:
    page.wait("!document.querySelector('#problem').hidden")
    return text(page, "#problem")


def test_page__says_what_is_wrong(page: Chromium, folder: Path, tmp_path: Path) -> None:
    no_photo = tmp_path / "notes.txt"
    no_photo.write_text("no photo")
    with Site(folder) as site:
        start(page, site)
        page.choose_file("#choose", no_photo)
        assert problem(page) == "notes.txt is not a photo that this browser can read; JPEG, PNG and WebP are accepted"
    damaged = (folder / "weights.bin").read_bytes()[:-1] + b"?"
    with Site(folder, {"/weights.bin": damaged}) as site:
        start(page, site)
        page.choose_file("#choose", write_photo(tmp_path, "plain"))
        assert problem(page).startswith("weights.bin is damaged or of another version; reload the page")
    with Site(folder, {"/model.json": b"{}"}) as site:
        page.open(site.address)
        assert problem(page) == "model.json is of another version than this page; copy the whole folder again"


def test_page__as_a_file_says_how_to_open_it(page: Chromium, folder: Path) -> None:
    page.open((folder / "index.html").as_uri())

    assert "python -m http.server" in problem(page)


def test_graphics_processor__is_used_if_its_answer_is_right(folder: Path, tmp_path: Path) -> None:
    file = write_photo(tmp_path, "plain")
    with Site(folder) as site, Chromium(tmp_path / "chromium", flags=ON_A_GPU) as page:
        if not page.evaluate("navigator.gpu ? navigator.gpu.requestAdapter().then(Boolean) : false"):
            page.open(site.address)  # about:blank may not have it
            if not page.evaluate("navigator.gpu ? navigator.gpu.requestAdapter().then(Boolean) : false"):
                pytest.skip("this Chromium has no WebGPU")
        start(page, site, "")
        show(page, file, "things")
        assert "EngineWebGPU" in text(page, "#facts")
        labels = np.asarray(Image.open(saved(page, 0, "my photo.things.labels.png")))
    assert (labels == answers(folder, read_image(file))["things"]).mean() >= 0.999


def test_graphics_processor__is_left_if_its_answer_is_wrong(folder: Path, tmp_path: Path) -> None:
    import hashlib

    about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    proof = bytearray((folder / "proof.bin").read_bytes())
    place = about["proof"]["outputs"]["things"]
    for at in range(place["offset"], place["offset"] + place["length"] // 50):
        proof[at] = (proof[at] + 1) % len(CLASSES)  # two per cent of the labels
    about["files"]["proof.bin"]["sha256"] = hashlib.sha256(proof).hexdigest()
    changed = {"/proof.bin": bytes(proof), "/model.json": json.dumps(about).encode()}
    with Site(folder, changed) as site, Chromium(tmp_path / "chromium", flags=ON_A_GPU) as page:
        start(page, site, "")
        show(page, write_photo(tmp_path, "plain"), "things")
        facts = text(page, "#facts")
    assert "EngineWebAssembly" in facts
    assert "webgpu is not used: " in facts


@pytest.mark.timeout(3600)
def test_default_model__at_full_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The model that ships, on one thread: labels and depth as in Python; time and memory are printed."""
    from densevit.export.web import export_web

    export_web("default", tmp_path / "site")
    expected = answers(tmp_path / "site", read_image(PHOTOS / "garage.png"))
    with Site(tmp_path / "site") as site, Chromium(tmp_path / "chromium") as page:
        start(page, site)
        page.choose_file("#choose", PHOTOS / "garage.png")
        for head, answer in expected.items():
            show_head(page, head)
            page.click_at(195, 500)
            page.screenshot(SHOTS / f"default-{head}.png")
            name = f"garage.{head}.{'mm' if head == 'depth' else 'labels'}.png"
            actual = np.asarray(Image.open(saved(page, 0, name)))
            if head == "depth":
                assert np.abs(actual / 1000 - answer).max() <= 0.005
            else:
                assert (actual == answer).mean() >= 0.999
            peak, seconds = page.renderer()
            facts = page.evaluate(
                "Object.fromEntries([...document.querySelectorAll('#facts tr')]"
                ".map((row) => [row.cells[0].textContent, row.cells[1].textContent]))"
            )
            with capsys.disabled():
                print(
                    f"\n{head}: {facts['Last prediction']}, WebAssembly's memory {facts['Memory of WebAssembly']}; "
                    f"the process so far {seconds:.0f} CPU seconds and at most {peak:.0f} MB"
                )
