"""Class activation maps of a linear layer on the mean and the maximum of feature maps: what a class was told by.

The network is small enough that its gradients are written down instead of computed: the score of a class is linear in
the mean and in the maximum of every channel.
"""

import numpy as np


def pooled(activations: np.ndarray) -> np.ndarray:
    """Mean and maximum of each channel, float (2 d,), of activations, float (p, d) at p places."""
    return np.concatenate([activations.mean(axis=0), activations.max(axis=0)])


def grad_cam_plus_plus(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """How much each place speaks for a class, float (p,), 0 or more.

    Source: A. Chattopadhay et al., Grad-CAM++, WACV 2018, eq. 10, 19 and 20; the factor exp(score), which is the same
    everywhere, is left out.

    Args:
        activations: float (p, d).
        weights: float (2 d,), of the score of the class, for what `pooled` gives.
    """
    places, channels = activations.shape
    gradient = np.repeat(weights[None, :channels] / places, places, axis=0)
    gradient[activations.argmax(axis=0), np.arange(channels)] += weights[channels:]
    square = gradient**2
    below = 2 * square + (activations * gradient**3).sum(axis=0)
    share = np.divide(square, below, out=np.zeros_like(square), where=np.abs(below) > 1e-20)
    of_channel = (share * np.maximum(gradient, 0)).sum(axis=0)
    result: np.ndarray = np.maximum(activations @ of_channel, 0)
    return result


def score_cam(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """What a class is told by where all but the places of one channel is masked, float (p,), 0 or more.

    Each channel, scaled to 0 to 1, masks the places; the softmax of the scores that are left weighs the channels.

    Source: H. Wang et al., Score-CAM, CVPR Workshops 2020, eq. 5 to 8. There the mask is laid over the picture, and the
    network runs once for each channel; here it is laid over the activations, which stand for their surroundings alone.

    Args:
        activations: float (p, d).
        weights: float (2 d,), of the score of the class, for what `pooled` gives.
    """
    low, high = activations.min(axis=0), activations.max(axis=0)
    masks = (activations - low) / np.maximum(high - low, 1e-12)
    scores = np.array([pooled(activations * mask[:, None]) @ weights for mask in masks.T])
    of_channel = np.exp(scores - scores.max())
    result: np.ndarray = np.maximum(activations @ (of_channel / of_channel.sum()), 0)
    return result


def eigen_cam(activations: np.ndarray) -> np.ndarray:
    """Projection of each place on the first principal direction of the activations, float (p,); it knows no class.

    Source: M. B. Muhammad and M. Yeasin, Eigen-CAM, IJCNN 2020, eq. 2 and 3.
    """
    _, directions = np.linalg.eigh(activations.T @ activations)
    projection: np.ndarray = activations @ directions[:, -1]
    return projection if projection.sum() >= 0 else -projection


def peak_on(heat: np.ndarray, mask: np.ndarray, tolerance: float) -> bool:
    """Pointing game: whether the highest value lies on the mask, or so many pixels beside it.

    Source: J. Zhang et al., Top-down neural attention by excitation backprop, IJCV 2018, section 4.2.

    Args:
        heat: float (height, width).
        mask: bool of the same shape, not empty.
        tolerance: in pixels.
    """
    rows, columns = np.nonzero(mask)
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    return bool(((rows - row) ** 2 + (columns - column) ** 2).min() <= tolerance**2)


def iou_at_area(heat: np.ndarray, mask: np.ndarray) -> float:
    """Intersection over union of the mask and the hottest pixels, as many as the mask has."""
    count = int(mask.sum())
    hottest = np.zeros(heat.size, bool)
    hottest[np.argpartition(heat.ravel(), -count)[-count:]] = True
    both = int((hottest & mask.ravel()).sum())
    return both / (2 * count - both)
