"""``densevit-runtime``: predict photos with an exported file, or show what the file says about itself."""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from densevit_runtime import __version__
from densevit_runtime.boundary import FAULT, ended_by_signals, open_standard_streams, printable, report_fault
from densevit_runtime.errors import DensevitError, OutputError
from densevit_runtime.licences import in_words

_PROGRAM = "densevit-runtime"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Exit codes: 0; 2 for what the user can fix; 70 for a fault of densevit; 128 + a signal.
    """
    open_standard_streams()
    with ended_by_signals():
        sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    """The exit code of the command; messages go to standard error."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except KeyboardInterrupt as error:
        code, message = getattr(error, "code", 130), str(error) or "interrupted"
    except DensevitError as error:
        code, message = 2, str(error)
    except MemoryError:
        code, message = 2, "not enough memory for this photo and model; use a smaller one"
    except Exception as error:
        if os.environ.get("DENSEVIT_DEBUG"):
            raise
        code, message = FAULT, report_fault(error, _PROGRAM).replace("--debug shows", "DENSEVIT_DEBUG=1 shows")
    print(printable(f"{_PROGRAM}: {message}", lines=True), file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description="Run models that densevit has exported.")
    parser.add_argument("--version", action="version", version=f"{_PROGRAM} {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    predict = commands.add_parser("predict", help="Label photos and estimate their depth.")
    predict.set_defaults(command=_predict)
    predict.add_argument("model", metavar="MODEL", help="Exported file: .onnx, or .xml of OpenVINO.")
    predict.add_argument("sources", metavar="PHOTO", nargs="+", help="Photos, folders or quoted globs.")
    predict.add_argument("--out", type=Path, required=True, help="Folder for the results; created if necessary.")
    predict.add_argument("--head", action="append", help="Head to run; may be repeated. All by default.")
    predict.add_argument("--json", type=Path, dest="json_file", help="Also write the records of all photos here.")
    predict.add_argument("--engine", help="onnxruntime or openvino.")
    predict.add_argument("--threads", type=int, help="Threads of the engine; as many as processors by default.")
    predict.add_argument(
        "--overwrite", action="store_true", help="Replace files that densevit did not write, or that were changed."
    )
    info = commands.add_parser("info", help="Show what an exported file says about itself, without running it.")
    info.set_defaults(command=_info)
    info.add_argument("model", metavar="MODEL", help="Exported file: .onnx, or .xml of OpenVINO.")
    info.add_argument("--json", action="store_true", dest="as_json", help="Print the metadata as JSON.")
    return parser


def _predict(options: argparse.Namespace) -> int:
    """Predict photos one after the other; one that fails is reported and the others go on."""
    from densevit_runtime.io.find import find_photos, unique_stems
    from densevit_runtime.io.outputs import claim
    from densevit_runtime.io.write import make_folder, write_json
    from densevit_runtime.results import result_files
    from densevit_runtime.runtime import Runtime

    found = find_photos(options.sources)
    model = Runtime.load(options.model, heads=options.head, engine=options.engine, threads=options.threads)
    print(printable(f"licence of the weights: {in_words(model.metadata.licence)}"), file=sys.stderr)
    photos = list(zip(found.photos, unique_stems(found.photos), strict=True))
    files = [options.out / name for _, stem in photos for name in result_files(model.heads, stem)]
    report = [] if options.json_file is None else [options.json_file]
    read = [*found.photos, model.path, model.path.with_suffix(".bin")]
    claim([*files, *report], inputs=read, overwrite=options.overwrite)
    make_folder(options.out)
    records: list[dict[str, Any]] = []
    failures: list[str] = []
    for photo, stem in photos:
        try:
            stamp = _stamp(photo, options.model) | {"quality": model.metadata.quality}
            began = time.perf_counter()
            prediction = model.predict(photo)
            stamp["seconds"] = round(time.perf_counter() - began, 3)
            records.append(prediction.save(options.out, stem, extra=stamp))
        except DensevitError as error:
            failures.append(str(error))
            print(printable(f"failed {error}"), file=sys.stderr)
            if isinstance(error, OutputError) and error.everywhere:
                break
    if options.json_file is not None:
        passed_over = [{"source": path, "reason": reason} for path, reason in found.passed_over.items()]
        summary = {"model": options.model, "photos": records, "failures": failures, "passed_over": passed_over}
        write_json(options.json_file, summary)
    for path, reason in found.passed_over.items():
        print(printable(f"passed over {path.name}: {reason}"), file=sys.stderr)
    text = f"{len(records)} predicted, {len(failures)} failed; pictures in {options.out}"
    print(printable(text), file=sys.stderr)
    return 2 if failures else 0


def _stamp(photo: Path, model: str) -> dict[str, Any]:
    """The photo and the model that a result is made from, as its record states them."""
    status = photo.stat() if photo.exists() else None
    size, changed = (status.st_size, status.st_mtime_ns) if status else (-1, -1)
    return {"source": str(photo), "bytes": size, "changed_ns": changed, "model": model}


def _info(options: argparse.Namespace) -> int:
    from densevit_runtime.runtime import read_metadata

    metadata = read_metadata(Path(options.model))
    if options.as_json:
        print(json.dumps(json.loads(metadata.to_json()), indent=2))
        return 0
    lines = [
        f"{metadata.name or 'unnamed'}, {metadata.precision}, quality {metadata.quality}",
        f"licence of the weights: {in_words(metadata.licence)}",
    ]
    for name, head in metadata.heads.items():
        what = f"{len(head.classes)} classes" if head.classes else ", ".join(head.channels) or f"unit {head.unit}"
        figures = "".join(f", {key} {value:.3f}" for key, value in head.metrics.items() if isinstance(value, float))
        lines.append(f"{name}: {head.task}, {what}, short side {head.short_side}{figures}")
    if metadata.verified.sizes:
        sizes = ", ".join(f"{batch} x {height} x {width}" for batch, height, width in metadata.verified.sizes)
        lines.append(f"compared with the model at {sizes}")
    print(printable("\n".join(lines), lines=True))
    return 0


if __name__ == "__main__":
    main()
