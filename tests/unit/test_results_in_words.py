from densevit.tasks import Segmentation
from densevit.training.run.recorder import results_in_words


def test_results__name_the_classes_that_are_never_found() -> None:
    per_class = {
        "ground": {"IoU": 0.9, "Acc": 1.0, "pixels": 90},
        "defect": {"IoU": 0.0, "Acc": 0.0, "pixels": 10},
        "absent": {"IoU": 0.0, "Acc": 0.0, "pixels": 0},
    }
    rows = [
        {"event": "probe", "iteration": 0, "head": "main", "mIoU": 0.6},
        {"event": "eval", "iteration": 2, "head": "main", "mIoU": 0.45, "per_class": per_class},
    ]

    lines = list(results_in_words(rows, {"main": Segmentation(classes=tuple(per_class))}, best=False))

    assert lines == [
        "head main: mIoU 0.45 after 2 steps; a linear probe of the same features has 0.6",
        "head main: never finds 1 of 3 classes of val: defect",
    ]
