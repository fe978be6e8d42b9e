"""The losses of the tasks: pure functions, float32 inside, invalid pixels masked.

Two rules hold for all of them. Without a single valid pixel the loss is 0 and still has a gradient (of zeros), so an
unlucky crop never breaks a step. The value of an invalid pixel, NaN included, changes neither loss nor gradient.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from densevit.errors import ShapeError
from densevit.upsampling import upsample_cross_entropy
from densevit.upsampling.loss import check_class_weights, check_ids, check_range

_TINY = 1e-6
"""Smallest scale, in units of the prediction, by which a map is divided."""


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    align_corners: bool = False,
    ignore_index: int = 255,
    denominator: Literal["valid", "all"] = "valid",
    class_weights: Tensor | None = None,
) -> Tensor:
    """Pixel-wise cross entropy of logits that are resized to the target; the resized ones are never in memory.

    Args:
        logits: (B, K, h, w).
        target: (B, H, W) int64 class ids.
        align_corners: of the bilinear resize.
        ignore_index: id of the pixels that add nothing to the sum.
        denominator: what the sum is divided by. ``"valid"``: the valid pixels, each with its class weight, as torch
            and the official Segmenter do. ``"all"``: B * H * W, ignored pixels included and weights left out, as SETR
            and mmsegmentation (``avg_non_ignore=False``) do; their learning rates were tuned for this smaller loss.
        class_weights: (K,), factor on the loss of each class.
    """
    check_class_weights(class_weights, logits.shape[1] if logits.ndim == 4 else 0)
    weights = None if class_weights is None else class_weights.to(logits.device, torch.float32)
    total = upsample_cross_entropy(
        logits, target, align_corners=align_corners, ignore_index=ignore_index, class_weights=weights
    )
    if denominator == "all":
        return total / max(target.numel(), 1)
    count = valid_count(target, ignore_index=ignore_index, class_weights=weights)
    return total / torch.where(count > 0, count, 1)


def valid_count(target: Tensor, *, ignore_index: int = 255, class_weights: Tensor | None = None) -> Tensor:
    """Valid pixels, or the sum of their class weights (K,): the denominator ``"valid"``, a float32 scalar."""
    valid = target != ignore_index
    if class_weights is None:
        return valid.sum().float()
    return (class_weights[target.masked_fill(~valid, 0)] * valid).sum()


def ohem(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = 255,
    threshold: float = 0.7,
    min_kept: int = 100_000,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Online hard example mining: cross entropy averaged over the hard pixels only.

    Hard is a pixel whose true class has a probability below ``threshold``; when fewer than ``min_kept`` per image are
    hard, the ``B * min_kept`` pixels of the largest loss are taken. Source: Shrivastava et al., "Training
    Region-based Object Detectors with Online Hard Example Mining", 2016; per pixel as in mmsegmentation's sampler.

    Args:
        logits: (B, K, H, W).
        target: (B, H, W) int64 class ids.
        ignore_index: id of the pixels that are never taken.
        threshold: probability in (0, 1].
        min_kept: pixels per image; pooled over the batch, so an easy image may leave its share to a hard one.
        class_weights: (K,), of the pixels in the average; which ones are hard does not depend on them.
    """
    _check(logits, target, ignore_index)
    check_class_weights(class_weights, logits.shape[1])
    losses = F.cross_entropy(logits.float(), target, ignore_index=ignore_index, reduction="none")  # (B,H,W)
    valid = target != ignore_index
    losses, ids = losses[valid], target[valid]  # (valid,)
    hard = losses.detach() > -math.log(threshold)
    fewest = min(min_kept * target.shape[0], losses.numel())
    kept = hard.nonzero().flatten() if hard.sum() >= fewest else losses.detach().topk(fewest).indices
    weights = torch.ones_like(losses) if class_weights is None else class_weights.to(losses)[ids]
    total = weights[kept].sum()
    return (weights[kept] * losses[kept]).sum() / torch.where(total > 0, total, 1)


def dice(logits: Tensor, target: Tensor, *, ignore_index: int = 255) -> Tensor:
    """Soft Dice loss, 1 - 2 |p t| / (|p| + |t|), averaged over the classes that occur in the target.

    Sums run over the whole batch. No smoothing constant is needed because absent classes are left out. Source:
    Milletari et al., "V-Net", 2016; differs from it: plain sums, not squares, in the denominator.

    Args:
        logits: (B, K, H, W).
        target: (B, H, W) int64 class ids.
        ignore_index: id of the pixels that count nowhere.
    """
    scores, ids = _flat_scores(logits, target, ignore_index)
    if not ids.numel():
        return scores.sum()
    of_truth = scores.gather(1, ids.unsqueeze(1)).squeeze(1)  # (valid,)
    counts = ids.bincount(minlength=scores.shape[1])  # (K,)
    overlap = scores.new_zeros(scores.shape[1]).index_add(0, ids, of_truth)
    present = counts > 0
    return (1 - 2 * overlap[present] / (scores.sum(0) + counts)[present]).mean()


def lovasz_softmax(logits: Tensor, target: Tensor, *, ignore_index: int = 255) -> Tensor:
    """Lovász extension of the Jaccard loss (1 - IoU) over the classes that occur in the target.

    Per class, the pixels are sorted by their error |t - p|, largest first, and each error is weighted by how much the
    Jaccard loss grows when that pixel joins the wrong ones. Source: Berman et al., "The Lovász-Softmax loss", 2018,
    in the form ``classes="present"`` with the batch taken as one image. The arguments are those of ``dice``.
    """
    scores, ids = _flat_scores(logits, target, ignore_index)
    if not ids.numel():
        return scores.sum()
    losses = []
    for class_id in ids.bincount().nonzero().flatten().tolist():
        truth = (ids == class_id).float()  # (valid,)
        errors, order = (truth - scores[:, class_id]).abs().sort(descending=True)
        wrong_truth = truth[order].cumsum(0)
        union = truth.sum() + torch.arange(1, truth.numel() + 1, device=truth.device) - wrong_truth
        jaccard = 1 - (truth.sum() - wrong_truth) / union
        growth = jaccard.diff(prepend=jaccard.new_zeros(1))
        losses.append((errors * growth).sum())  # not a dot product: autocast would run that in half precision
    return torch.stack(losses).mean()


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over pixels of the Kullback-Leibler divergence of softmax(student) from softmax(teacher), (B, K, H, W).

    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, at temperature 1.
    """
    _check_same(student, teacher)
    learnt = student.float().log_softmax(dim=1)
    wanted = teacher.float().log_softmax(dim=1)
    return F.kl_div(learnt, wanted, reduction="none", log_target=True).sum(dim=1).mean()


def silog(depth: Tensor, target: Tensor, *, variance_focus: float = 0.85, eps: float = 1e-6) -> Tensor:
    """Scale-invariant log loss, sqrt(mean(g^2) - variance_focus * mean(g)^2) with g = log depth - log target.

    Source: Eigen et al., "Depth Map Prediction from a Single Image", 2014, eq. 4 (there 0.5 and without the root);
    root and 0.85 from Lee et al., "From Big to Small" (BTS), 2019, who also multiply by 10: put that into the weight
    of the loss. The means run over all valid pixels of the batch, as in BTS.

    Args:
        depth: prediction in metres, any shape.
        target: same shape, metres; 0 or NaN is invalid.
        variance_focus: 1 ignores a wrong overall scale altogether, 0 is the plain RMS log error.
        eps: least depth in metres, and least value under the root: both derivatives stay finite. A depth below it
            gets no gradient, so the head must give positive depth (sigmoid, softplus, exp).
    """
    _check_same(depth, target)
    mask = target > 0
    ratio = torch.where(mask, depth, 1.0).float().clamp(min=eps) / torch.where(mask, target, 1.0).float()
    errors = ratio.log()
    mean = _masked_mean(errors, mask)
    # The variance is taken about the mean: the difference of two large means in the formula cancels in float32.
    variance = _masked_mean((errors - mean).square(), mask)
    term = variance + (1 - variance_focus) * mean.square()
    return torch.where(mask.any(), term.clamp(min=eps).sqrt(), term)


def l1(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute error over the valid pixels, and over the channels when there are any.

    Args:
        prediction: (B, H, W), or (B, C, H, W).
        target: the same shape and unit.
        mask: (B, H, W) bool, True = valid.
    """
    residual, mask = _residual(prediction, target, mask)
    return _masked_mean(residual.abs(), mask)


def berhu(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Reverse Huber loss: |r| up to c, (r^2 + c^2) / (2 c) beyond, with c a fifth of the batch's largest error.

    Source: Laina et al., "Deeper Depth Prediction with Fully Convolutional Residual Networks", 2016. c is a constant
    of the step: no gradient runs through it. The arguments are those of ``l1``.
    """
    residual, mask = _residual(prediction, target, mask)
    size = residual.abs()
    limit = 0.2 * size.detach().amax().clamp(min=_TINY) if size.numel() else size.new_tensor(_TINY)
    return _masked_mean(torch.where(size <= limit, size, (size.square() + limit**2) / (2 * limit)), mask)


def remove_scale_shift(values: Tensor, mask: Tensor) -> Tensor:
    """Each image moved to median 0 and mean absolute deviation 1 over its valid pixels; 0 where invalid.

    Source: Ranftl et al., "Towards Robust Monocular Depth Estimation" (MiDaS), 2020, eq. 5 and 6.

    Args:
        values: (B, H, W), disparity as a rule.
        mask: (B, H, W) bool, True = valid.
    """
    _check_same(values, mask)
    images = []
    for image, valid in zip(torch.where(mask, values, 0.0).float(), mask, strict=True):
        if valid.any():
            centred = image - image[valid].median()
            image = torch.where(valid, centred / centred[valid].abs().mean().clamp(min=_TINY), 0.0)
        images.append(image)
    return torch.stack(images)


def scale_shift_invariant(prediction: Tensor, target: Tensor, mask: Tensor, *, trim: float = 0.0) -> Tensor:
    """Trimmed absolute error after scale and shift of both maps are removed, for relative disparity.

    Per image, sum of the kept errors / (2 M) with M valid pixels, then the mean over the images that have any.
    Source: Ranftl et al. (MiDaS), 2020, eq. 7; the paper trims 0.2.

    Args:
        prediction: (B, H, W) disparity, any scale and shift.
        target: (B, H, W) disparity, any scale and shift.
        mask: (B, H, W) bool, True = valid.
        trim: share of each image's largest errors that is dropped as likely faults of the target, in [0, 1).
    """
    _check_same(prediction, target)
    errors = (remove_scale_shift(prediction, mask) - remove_scale_shift(target, mask)).abs()
    losses = []
    for image, valid in zip(errors, mask, strict=True):
        sizes = image[valid]  # (M,)
        kept = sizes.sort().values[: sizes.numel() - int(trim * sizes.numel())]
        losses.append(kept.sum() / max(2 * sizes.numel(), 1))
    return torch.stack(losses).sum() / mask.flatten(1).any(1).sum().clamp(min=1)


def gradient_matching(prediction: Tensor, target: Tensor, mask: Tensor, *, scales: int = 4) -> Tensor:
    """Multi-scale gradient matching: edges in the residual map are penalised.

    Sum over ``scales`` of the mean of |d/dx R| + |d/dy R| with R = prediction - target at every 2^k-th pixel; a
    difference counts when both of its pixels are valid, the mean divides by the valid pixels of that scale. Per
    image, then the mean over the images that have a valid pixel. Source: Ranftl et al. (MiDaS), 2020, eq. 11, after
    Li and Snavely, "MegaDepth", 2018.

    Args:
        prediction: (B, H, W), in the unit of ``target``: for relative disparity pass both maps through
            ``remove_scale_shift`` first, for metric depth their logarithms are usual.
        target: (B, H, W).
        mask: (B, H, W) bool, True = valid.
        scales: number of resolutions, each half of the one before.
    """
    full, _ = _residual(prediction, target, mask)
    losses = full.new_zeros(len(full))
    for step in (2**k for k in range(scales)):
        residual, valid = full[:, ::step, ::step], mask[:, ::step, ::step]
        across = residual.diff(dim=2).abs() * (valid[:, :, 1:] & valid[:, :, :-1])
        down = residual.diff(dim=1).abs() * (valid[:, 1:] & valid[:, :-1])
        edges = across.flatten(1).sum(1) + down.flatten(1).sum(1)  # (B,)
        losses = losses + edges / valid.flatten(1).sum(1).clamp(min=1)
    return losses.sum() / mask.flatten(1).any(1).sum().clamp(min=1)


def cosine(normals: Tensor, target: Tensor) -> Tensor:
    """Mean of 1 - cos(angle) between predicted and true directions, for surface normals.

    Source: the dot-product loss of Eigen and Fergus, "Predicting Depth, Surface Normals and Semantic Labels", 2015.

    Args:
        normals: (B, 3, H, W), any length; normalised here.
        target: (B, 3, H, W), any length; a vector of zeros, or with NaN or infinity in it, is invalid.
    """
    _check_same(normals, target)
    mask = target.isfinite().all(1) & target.ne(0).any(1)  # (B,H,W)
    kept = mask.unsqueeze(1)
    truth = torch.where(kept, target, 0.0).float()
    angle_cos = F.cosine_similarity(torch.where(kept, normals, 1.0).float(), truth, dim=1)  # (B,H,W)
    return _masked_mean(1 - angle_cos, mask)


def _flat_scores(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Softmax scores (valid, K) and class ids (valid,) of the valid pixels."""
    _check(logits, target, ignore_index)
    valid = target != ignore_index
    return logits.movedim(1, -1)[valid].float().softmax(1), target[valid]


def _residual(prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Prediction - target in float32 with 0 where invalid, and the mask in the same shape."""
    _check_same(prediction, target)
    _check_same(prediction[:, 0] if prediction.ndim == 4 else prediction, mask)
    if prediction.ndim == 4:
        mask = mask.unsqueeze(1).expand_as(prediction)  # (B,C,H,W)
    return torch.where(mask, prediction.float() - target.float(), 0.0), mask


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def _check(logits: Tensor, target: Tensor, ignore_index: int) -> None:
    if logits.ndim != 4 or logits.shape[:1] + logits.shape[2:] != target.shape:
        raise ShapeError(
            f"logits are {tuple(logits.shape)} and the target is {tuple(target.shape)}, but (B, K, H, W) and "
            "(B, H, W) belong together; resize the logits to the target first"
        )
    check_ids(target, logits)
    check_range(target, logits.shape[1], ignore_index)


def _check_same(first: Tensor, second: Tensor) -> None:
    # Without this, (B, 1, H, W) against (B, H, W) would broadcast to (B, B, H, W) and train on nonsense.
    if first.shape != second.shape:
        raise ShapeError(
            f"prediction, target and mask are {tuple(first.shape)} and {tuple(second.shape)}, but equal shapes are "
            "needed; squeeze the channel or resize first"
        )
