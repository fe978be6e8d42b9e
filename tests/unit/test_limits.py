"""The budget for what files and configs claim."""

import pytest

from densevit.errors import ConfigError
from densevit.limits import VARIABLE, Limits, limits, too_much


def test_limits__are_the_defaults_without_the_variable(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert limits() == Limits()


def test_limits__of_the_variable_replace_the_defaults(monkeypatch):
    monkeypatch.setenv(VARIABLE, "pixels=4e9, classes=200000")
    assert limits() == Limits(pixels=4_000_000_000, classes=200_000)
    assert "up to 200,000 are accepted" in too_much("the head has 300,000 classes", "classes")


@pytest.mark.parametrize("text", ["pixel=5", "pixels", "pixels=-1", "pixels=nan", "pixels=inf", "pixels=many"])
def test_limits__refuse_what_is_no_limit(monkeypatch, text):
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(ConfigError, match=VARIABLE):
        limits()
