"""The fast part of ``densevit doctor``, before the first step of a run."""

from densevit.data import FolderConfig
from densevit.data.sample import TARGET_FOLDERS
from densevit.doctor.examine import fast_check
from densevit.doctor.rules import Finding
from densevit.errors import DataError
from densevit.training.config import TrainConfig


def check_run(config: TrainConfig) -> list[Finding]:
    """Check the data of a run for a few seconds.

    Returns:
        Warnings, which do not stop the run.

    Raises:
        DataError: lists every error, since training would stop at it or learn something wrong.
    """
    findings: list[Finding] = []
    for source in config.sources:
        roles = {"train": source.train, "val": source.val}
        places = {role: place for role, place in roles.items() if isinstance(place, FolderConfig)}
        kinds = {TARGET_FOLDERS[config.tasks[head].target] for head in source.heads}
        findings += fast_check(places, kinds=sorted(kinds), crop=(source.augment or config.augment).crop)
    errors = [finding.line() for finding in findings if finding.severity == "error"]
    if errors:
        lines = "\n  ".join(errors)
        raise DataError(
            f"errors in the data, found before the first step: {len(errors)}\n  {lines}\n"
            "fix them (`densevit doctor` shows all), or train with --no-check"
        )
    return [finding for finding in findings if finding.severity == "warning"]
