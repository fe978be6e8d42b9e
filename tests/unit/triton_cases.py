"""Compares the Triton kernel with the plain form: run by test_upsampling_kernels.py, in a process of its own.

Triton's interpreter must be asked for before triton is imported, and applies to all of a process.
"""

import torch

from densevit.upsampling import Decoded, cuda, plain

SIZES = [((2, 3), (4, 7), False), ((5, 4), (1, 260), True), ((3, 3), (2, 5), False), ((2, 5), (2, 5), False)]
NAN, INFINITY = float("nan"), float("inf")
ODD = {
    "finite": {},
    "NaN": {(0, 1, 1): NAN, (-1, 1, 1): NAN},
    "minus infinity": {(0, 0, 0): -INFINITY, (0, 1, 1): -INFINITY},
    "plus infinity": {(0, 1, 0): INFINITY},
    "both infinities": {(0, 1, 0): INFINITY, (0, 1, 1): -INFINITY, (-1, 0, 0): NAN},
}


def outputs(classes: int, size: tuple[int, int]) -> Decoded:
    dtype = torch.uint8 if classes <= 256 else torch.int32
    return Decoded(torch.zeros(size, dtype=dtype), torch.zeros(size), torch.zeros(size))


def compare(logits: torch.Tensor, new: tuple[int, int], *, align_corners: bool) -> None:
    found, expected = outputs(len(logits), new), outputs(len(logits), new)
    transposed = logits.permute(0, 2, 1).contiguous().permute(0, 2, 1)  # any strides will do
    assert cuda.decode(transposed, align_corners=align_corners, **found._asdict())
    plain.decode(logits, align_corners=align_corners, **expected._asdict())
    assert torch.equal(found.labels, expected.labels)
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-6, equal_nan=True)
    torch.testing.assert_close(found.entropy, expected.entropy, rtol=0, atol=3e-6, equal_nan=True)  # sums of K terms


def main() -> None:
    for classes, sizes in ((1, SIZES[:1]), (2, SIZES[3:]), (7, SIZES), (256, SIZES[2:3]), (300, SIZES[2:3])):
        for old, new, align_corners in sizes:
            logits = torch.randn(classes, *old, generator=torch.Generator().manual_seed(classes))
            for name, values in ODD.items() if classes < 256 else list(ODD.items())[:2]:
                changed = logits.clone()
                for index, value in values.items():
                    changed[index] = value
                try:
                    compare(changed, new, align_corners=align_corners)
                except AssertionError as error:
                    raise AssertionError(f"{classes} classes, {old} -> {new}, {name}: {error}") from error
    half = torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    compare(half, (7, 7), align_corners=False)
    compare(torch.full((4, 2, 2), -INFINITY), (3, 3), align_corners=False)
    masked = torch.randn(4, 2, 2)
    masked[1] = -INFINITY  # a class that is switched off
    compare(masked, (5, 5), align_corners=True)
    print("same")


if __name__ == "__main__":
    main()
