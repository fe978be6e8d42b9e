"""What stands between a config and its first step: the fast part of ``densevit doctor``, in the words of the run."""

from densevit.data import FolderConfig
from densevit.data.sample import TARGET_FOLDERS
from densevit.doctor.examine import fast_check
from densevit.doctor.rules import Finding
from densevit.errors import DataError
from densevit.training.config import TrainConfig


def check_run(config: TrainConfig) -> list[Finding]:
    """Look at the data of a run for a few seconds.

    Returns:
        Warnings, which the run does not stop for.

    Raises:
        DataError: with every error that was found, since training would stop at it or learn something wrong.
    """
    findings: list[Finding] = []
    for source in config.sources:
        roles = {"train": source.train, "val": source.val}
        places = {role: place for role, place in roles.items() if isinstance(place, FolderConfig)}
        kinds = {TARGET_FOLDERS[config.tasks[head].target] for head in source.heads}
        findings += fast_check(places, kinds=sorted(kinds), crop=(source.augment or config.augment).crop)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        lines = "\n".join(f"  {finding.line()}" for finding in errors)
        raise DataError(
            f"the data has {len(errors)} {'error' if len(errors) == 1 else 'errors'}, found before the first step:\n"
            f"{lines}\n`densevit doctor` shows all of it; --no-check trains without looking"
        )
    return [finding for finding in findings if finding.severity == "warning"]
