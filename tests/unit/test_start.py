"""The start of a run: who speaks."""

from pathlib import Path

import pytest

from densevit.errors import ConfigError
from densevit.training.start import RunRequest, start_run


@pytest.mark.parametrize(("rank", "said"), [("0", ["the config sets freeze, so laptop mode plans nothing"]), ("1", [])])
def test_start_run__speaks_in_the_first_process_only(
    rank: str, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = {"WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "here", "MASTER_PORT": "29500"}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    heard: list[str] = []
    request = RunRequest(out=tmp_path, config={"freeze": "encoder"}, decoders=["none such"])
    with pytest.raises(ConfigError, match="there is no decoder 'none such'"):
        start_run(request, heard.append)
    assert heard == said
