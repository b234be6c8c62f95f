"""How a class is learnt from a few labelled windows: logistic regression on frozen embeddings.

One regression per class, so that a window may hold several classes, or none.  Windows that nobody
has labelled are weak negatives: 500 of them at a twentieth of a label's weight, because nearly all
windows lack a given class (perch-hoplite does the same: Dumoulin et al. 2025, "The Search for
Squawk", https://arxiv.org/abs/2505.03071).

Features are the embeddings, centred, in one of two forms: as they are (`RAW`), or softly whitened
by the covariance C of the windows to be searched (`WHITE`): with C = U Λ Uᵀ, they are multiplied by
U (Λ + λ·mean(Λ))^(-1/2).  What varies in all recordings, such as wind or distance, then counts
less, which helps with sounds that the network was not trained for, and costs a little with those
that it was.  So both are fitted for each class, and the mean of their logits is taken (`BOTH`),
unless one of them is clearly better on windows that were left out.  In any case the result is a
weight vector and a bias on plain embeddings.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

RAW, WHITE, BOTH = "raw", "white", "both"
WEAK_NEGATIVES = 500
WEAK_WEIGHT = 0.05
SOFTNESS = 5.0
"""λ: of the mean eigenvalue, what is added to each."""

_C = 10.0  # inverse strength of the penalty, at features of mean square length 1
_BIAS_VARIANCE = 100.0
_FEWEST = 20  # windows with the class, from which on the better features can be told
_SURE = 3.0  # standard errors
_MOST_LEFT_OUT = 1200  # examples; the time grows with their cube


class Whitening(NamedTuple):
    """Mean and covariance of the windows to be searched.

    Attributes
    ----------
    mean : np.ndarray, float32, shape (dim,)
    variances : np.ndarray, float32, shape (dim,)
        Eigenvalues of the covariance.
    directions : np.ndarray, float32, shape (dim, dim)
        Its eigenvectors, one per column.
    """

    mean: np.ndarray
    variances: np.ndarray
    directions: np.ndarray

    @classmethod
    def of(cls, embeddings: np.ndarray) -> Whitening:
        """Of windows, float32 of shape (n, dim)."""
        mean = embeddings.mean(axis=0, dtype=np.float64)
        centred = embeddings - mean.astype(np.float32)
        covariance = centred.T @ centred / max(1, len(centred))
        variances, directions = np.linalg.eigh(covariance.astype(np.float64))
        return cls(
            mean.astype(np.float32),
            np.maximum(variances, 0).astype(np.float32),
            directions.astype(np.float32),
        )

    def matrix(self, kind: str) -> np.ndarray:
        """What centred embeddings are multiplied by to become features of mean square length 1.

        Shape (dim, dim), or (1,) where a number does.
        """
        total = float(self.variances.sum())
        if total <= 0:  # all windows are alike
            return np.ones(1, np.float32)
        if kind == RAW:
            return np.full(1, total**-0.5, np.float32)
        scale = (self.variances + SOFTNESS * self.variances.mean()) ** -0.5
        scale /= np.sqrt((self.variances * scale**2).sum())
        matrix: np.ndarray = self.directions * scale
        return matrix

    def features(self, embeddings: np.ndarray, kind: str) -> np.ndarray:
        """Features of embeddings, float32 of their shape or with the same number of columns."""
        centred = embeddings - self.mean
        matrix = self.matrix(kind)
        features: np.ndarray = centred * matrix if matrix.ndim == 1 else centred @ matrix
        return features

    def on_embeddings(self, weight: np.ndarray, bias: float, kind: str) -> tuple[np.ndarray, float]:
        """Weights and bias that give for embeddings what these give for features."""
        matrix = self.matrix(kind)
        plain = weight * matrix if matrix.ndim == 1 else matrix @ weight
        return plain, bias - float(plain @ self.mean)


class Examples(NamedTuple):
    """What one class is learnt from.

    Attributes
    ----------
    embeddings : np.ndarray, float32, shape (n, dim)
        The labelled windows first, then weak negatives.
    present : np.ndarray, bool, shape (n,)
        Whether the class was heard.
    labelled : int
        Number of labelled windows.
    """

    embeddings: np.ndarray
    present: np.ndarray
    labelled: int

    @property
    def weights(self) -> np.ndarray:
        """1 for labels, `WEAK_WEIGHT` for the others."""
        weights = np.full(len(self.present), WEAK_WEIGHT)
        weights[: self.labelled] = 1.0
        return weights


class Learnt(NamedTuple):
    """What was learnt of a class: weights and bias on embeddings, and how.

    Attributes
    ----------
    weight : np.ndarray, float32, shape (dim,)
    bias : float
    features : str
        `RAW`, `WHITE` or `BOTH`.
    precision : dict
        Average precision of raw and of whitened features on windows that were left out.
    """

    weight: np.ndarray
    bias: float
    features: str
    precision: dict[str, float]


def learn(examples: Examples, whitening: Whitening, seed: int = 0) -> Learnt:
    """Learn a class; features are chosen by what they achieve on windows that are left out."""
    order = np.random.default_rng(seed).permutation(len(examples.present))
    heard = examples.present[order]
    some = np.concatenate([order[heard == value][: _MOST_LEFT_OUT // 2] for value in (True, False)])
    fits = {kind: _fit(examples, whitening, kind, some) for kind in (RAW, WHITE)}
    better = fits[WHITE].precisions - fits[RAW].precisions
    # With few labels chance decides which is the better one, and the mean of both is safe.
    sure = _SURE * better.std(ddof=1) / len(better) ** 0.5 if len(better) >= _FEWEST else np.inf
    kind = BOTH if abs(better.mean()) <= sure else WHITE if better.mean() > 0 else RAW
    used = [fits[RAW], fits[WHITE]] if kind == BOTH else [fits[kind]]
    return Learnt(
        np.mean([item.weight for item in used], axis=0).astype(np.float32),
        float(np.mean([item.bias for item in used])),
        kind,
        {kind: float(item.precisions.mean()) for kind, item in fits.items()},
    )


class _Fit(NamedTuple):
    weight: np.ndarray  # on embeddings
    bias: float
    precisions: np.ndarray  # at each window with the class, scored by what the others tell


def _fit(examples: Examples, whitening: Whitening, kind: str, some: np.ndarray) -> _Fit:
    x = whitening.features(examples.embeddings, kind)
    present, weights = examples.present, examples.weights
    weight, bias = fit(x, present, weights)
    left_out = logits_by_others(x[some], present[some], weights[some], x[some] @ weight + bias)
    ranked = present[some][np.argsort(-left_out, kind="stable")]
    precisions = (np.cumsum(ranked) / np.arange(1, len(ranked) + 1))[ranked]
    order = np.argsort(np.argsort(-left_out[present[some]], kind="stable"))
    return _Fit(*whitening.on_embeddings(weight, bias, kind), precisions[order])


def fit(x: np.ndarray, present: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights and bias of a penalised logistic regression; both outcomes must occur."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=_C, max_iter=500, tol=1e-3)
    model.fit(x, present, sample_weight=weights)
    return model.coef_[0].astype(np.float64), float(model.intercept_[0])


def logits_by_others(
    x: np.ndarray, present: np.ndarray, weights: np.ndarray, logits: np.ndarray
) -> np.ndarray:
    """Logit of each example if it had been left out, to first order, without any further fit.

    By the leverage of each example at the optimum (Rad & Maleki 2020,
    https://arxiv.org/abs/1801.10243).

    Parameters
    ----------
    x : np.ndarray, float32, shape (n, dim)
    present : np.ndarray, bool, shape (n,)
    weights : np.ndarray, float64, shape (n,)
    logits : np.ndarray, shape (n,)
        What `fit` gives for `x`.

    Returns
    -------
    np.ndarray, float64, shape (n,)
    """
    from scipy.linalg import cholesky, solve_triangular
    from scipy.special import expit

    p = expit(logits.astype(np.float64))
    curvature = np.maximum(weights * p * (1 - p), 1e-12)
    root = np.sqrt(curvature)
    # Among the examples instead of the features, of which there are more; the bias is a feature
    # that is hardly penalised.
    kernel = _C * (x @ x.T).astype(np.float64) + _BIAS_VARIANCE
    scaled = root[:, None] * kernel
    factor = cholesky(np.eye(len(x)) + scaled * root, lower=True)
    half = solve_triangular(factor, scaled, lower=True)
    leverage = np.diag(kernel) - (half**2).sum(axis=0)
    slope = weights * (p - present)
    shifted: np.ndarray = logits + slope * leverage / np.maximum(1 - curvature * leverage, 1e-6)
    return shifted
