"""Photos that belong together by their names, such as frames of a video, and are in several splits."""

import re
from collections.abc import Sequence

from densevit.doctor.layout import Split
from densevit.doctor.rules import Findings, listed

_EXPORTED = r"(?:_(?:png|jpe?g|bmp|tiff?))?(?:\.rf\.[0-9a-f]+)?$"
"""What Roboflow adds to the names of photos."""

PATTERNS = (
    rf"^(.+?){_EXPORTED}",  # the photo from which Roboflow made several
    r"^(.+)/[^/]*$",  # a folder
    rf"^((?:(?!\.rf\.).)*\D)\d+\D*?{_EXPORTED}",  # all but the last number: patient12_003, drive_0001_sync_0000000005
    r"^(\D*\d+)\D+\d",  # the first number: 12_tile_3_4
)
"""Regular expressions for ``splits.by`` whose first group may be what photos have in common; the first that fits."""

_MIN_GROUPS, _MIN_SIZE = 3, 2.0
"""Fewer groups, or fewer photos in each on average, are a coincidence of names."""


def group_by_name(names: Sequence[str]) -> tuple[str, dict[str, str]] | None:
    """The pattern by which the names form groups, and the group of each name; None if they seem to form none."""
    for pattern in PATTERNS:
        matches = {name: re.search(pattern, name) for name in names}
        groups = {name: match[1] for name, match in matches.items() if match}
        number = len(set(groups.values()))
        if len(groups) == len(matches) and number >= _MIN_GROUPS and number * _MIN_SIZE <= len(groups):
            return pattern, groups
    return None


def check_groups(splits: Sequence[Split], findings: Findings) -> None:
    """Find groups that are in several splits."""
    found = group_by_name(list(dict.fromkeys(name for split in splits for name in split.photos)))
    if found is None or len(splits) < 2:
        return
    pattern, groups = found
    of_split = {split.name: {groups[name] for name in split.photos} for split in splits}
    members = sorted({group for group in groups.values() if sum(group in own for own in of_split.values()) > 1})
    if not members:
        return
    files = [path for split in splits for name, path in split.photos.items() if groups[name] in {*members}]
    text = (
        f"by their names, photos form {len(set(groups.values()))} groups, of which {len(members)} are in several "
        f"splits: {listed([repr(member) for member in members], 4)}"
    )
    hint = f"If so, set splits.by: '{pattern}' (--split-by)."
    if splits[0].config.splits is None:  # the data have their splits
        hint = "If so, move the photos of each group into one split."
    findings.add("leak-groups", text, files, hint=hint)
