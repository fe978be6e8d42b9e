"""Without transformers, which `make parity` installs, its tests are not collected."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("transformers") else ["test_transformers.py", "test_transformers_encoders.py"]
