"""Without the programs that `make parity` installs, their tests are not collected."""

from importlib.util import find_spec

_TESTS = {
    "transformers": ["test_transformers.py", "test_transformers_encoders.py"],
    "segmentation_models_pytorch": ["test_smp.py"],
}
collect_ignore = [name for package, names in _TESTS.items() if not find_spec(package) for name in names]
