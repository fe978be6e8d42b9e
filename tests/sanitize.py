"""Runs the tests of the C kernels under AddressSanitizer and UndefinedBehaviorSanitizer: ``python -m tests.sanitize``.

The kernels are built with the sanitizers' flags; their runtime must be in the process before Python's own libraries, so
everything here is a process with ``LD_PRELOAD``. Before the tests, faults are planted, and each must be found.
Further arguments go to pytest.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLAGS = "-g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined"
TESTS = (
    "test_kernels",
    "test_int8_convolution",
    "test_kernel_arguments",
    "test_linear_training",
    "test_mixed_attention",
    "test_training_kernels",
    "test_upsampled_loss",
    "test_upsampling",
    "test_upsampling_kernels",
)

LOADED = """
from densevit.kernels import attention, mixed_attention
from densevit.kernels.cpu_training import attention as training, linear
from densevit.upsampling import loss, native
found = {"decode.c": native.load(), "cross_entropy.c": loss.load(), "attention.c": attention.load(),
         "mixed_attention.c": mixed_attention.load(),
         "attention_backward.c": training.load(16), "linear.c": linear.load()}
for name, library in found.items():
    print(name, "is tested" if library else "is not used on this processor")
if not found["decode.c"] or not found["cross_entropy.c"]:
    raise SystemExit("the kernels could not be built with the sanitizers")
"""

PLANTED = """
#include <limits.h>
float beyond(const float *x, int n) { return x[n]; }
void write_beyond(float *x, int n) { x[n] = 1; }
int overflow(int n) { return INT_MAX + n; }
int shift(int n) { return 1 << (31 + n); }
"""
CALL = """
import sys, torch
from pathlib import Path
from densevit.kernels import build
x = torch.zeros(8)
types = {"beyond": (build.FLOAT, [build.POINTER, build.INT]), "write_beyond": (None, [build.POINTER, build.INT]),
         "overflow": (build.INT, [build.INT]), "shift": (build.INT, [build.INT])}
planted = build.library(Path(sys.argv[1]), "nothing is found", types)
"""
TOO_FEW_WEIGHTS = """
import torch
from densevit.upsampling import loss
loss.checked, loss.check_class_weights = lambda tensor, *_, **__: tensor, lambda *_: None
loss.upsample_cross_entropy(torch.zeros(1, 5, 4, 4), torch.full((1, 8, 8), 4), align_corners=False,
                            class_weights=torch.ones(2))
"""
FAULTS = {
    "a read beyond a tensor": (CALL + "planted.beyond(x.data_ptr(), 8)", "heap-buffer-overflow"),
    "a write beyond a tensor": (CALL + "planted.write_beyond(x.data_ptr(), 8)", "heap-buffer-overflow"),
    "a signed overflow": (CALL + "planted.overflow(1)", "signed integer overflow"),
    "a shift that is too far": (CALL + "planted.shift(2)", "shift exponent"),
    "class weights that are too few, unchecked": (TOO_FEW_WEIGHTS, "heap-buffer-overflow"),
}


def runtime(compiler: str) -> list[str]:
    """The libraries to load first: AddressSanitizer's, and C++'s, whose exceptions it must find."""
    found = []
    for name in ("libasan.so", "libstdc++.so.6"):
        command = [compiler, f"-print-file-name={name}"]
        path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        if not Path(path).is_absolute() or not Path(path).exists():  # the bare name: there is none
            sys.exit(f"{compiler} has no {name}; install it (Debian: libgcc-12-dev for gcc 12), or name a gcc in CC")
        found.append(str(Path(path).resolve()))
    return found


def main() -> int:
    compiler = os.environ.get("CC") or "gcc"
    if sys.platform != "linux" or shutil.which(compiler) is None:
        sys.exit(f"the sanitizers need Linux and gcc, and {compiler} is not here; install gcc, or name one in CC")
    with tempfile.TemporaryDirectory() as scratch:
        env = {
            **os.environ,
            "CC": compiler,
            "DENSEVIT_NATIVE": "1",
            "DENSEVIT_NATIVE_FLAGS": FLAGS,
            "LD_PRELOAD": " ".join(runtime(compiler)),
            # Python keeps memory until it ends; CUDA maps the addresses that ASan would protect.
            # Stacks are not checked after return, for gcc before 14 then misaligns vectors on them (its bug 110027).
            "ASAN_OPTIONS": "detect_leaks=0:protect_shadow_gap=0:detect_stack_use_after_return=0",
            "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
            "XDG_CACHE_HOME": scratch,
            "OMP_NUM_THREADS": "1",
        }
        planted = Path(scratch) / "planted.c"
        planted.write_text(PLANTED)
        subprocess.run([sys.executable, "-c", LOADED], env=env, cwd=ROOT, check=True)
        for name, (program, message) in FAULTS.items():
            command = [sys.executable, "-c", program, str(planted)]
            done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode == 0 or message not in done.stderr:
                sys.exit(f"the sanitizers did not find {name}, which was planted:\n{done.stderr[-2000:]}")
            print(f"found, as it should be: {name}")
        # Without pytest's fault handler, which hides the sanitizers' report.
        files = [f"tests/unit/{name}.py" for name in TESTS]
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:faulthandler",
            "-k",
            "not triton",
            *files,
        ]
        return subprocess.run([*command, *sys.argv[1:]], env=env, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
