"""Read YAML and JSON that anyone may have written: bounded in size, nesting, number of values and digits.

Errors are ``ValueError`` with a text that has "it" for the file; callers name the file and raise an error of their own.
"""

from collections.abc import Iterable
from typing import Any

import yaml

from densevit.limits import limits, too_much
from densevit_runtime.plain_data import (
    check_plain,
    check_scalar,
    check_size,
    parse_json,
    parse_json_config,
    read_text,
)

__all__ = [
    "Loader",
    "check_plain",
    "check_scalar",
    "check_size",
    "parse_json",
    "parse_json_config",
    "parse_yaml",
    "read_text",
]


class Loader(yaml.SafeLoader):
    """Safe YAML with tuples, which rstrudel/segmenter writes for image sizes, and a bound on the number of values."""

    num_nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As in PyYAML, which takes some 20 microseconds for each."""
        self.num_nodes += 1
        if self.num_nodes > limits().nodes:
            raise ValueError(too_much("it has more values", "nodes"))
        return super().compose_node(parent, index)


def _tuple(loader: Loader, node: yaml.SequenceNode) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node))


Loader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


def parse_yaml(text: str) -> Any:
    """Parse YAML into plain data.

    Raises:
        yaml.YAMLError: if it is not YAML.
        ValueError: if a scalar has no value, such as the 30th of February, or a bound is exceeded.
    """
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        check_size(node, _children)  # before construction, since merge keys are expanded there
        data = loader.construct_document(node)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"a value does not fit its type ({type(error).__name__}: {error})") from None
    finally:
        loader.dispose()
    check_plain(data)
    return data


def _children(node: yaml.Node) -> Iterable[yaml.Node] | None:
    """The nodes inside a node of YAML; the length of a number is checked, since its value takes time to compute."""
    if isinstance(node, yaml.MappingNode):
        return [item for pair in node.value for item in pair]
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float") and len(node.value) > limits().digits:
        raise ValueError(too_much(f"a number has {len(node.value):,} digits", "digits"))
    return None
