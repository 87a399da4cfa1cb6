"""Lens distortion: where a lens puts a ray that a pinhole would put elsewhere.

One formula holds for the polynomial models of OpenCV, COLMAP and Metashape. With (a, b) = (x/z, y/z), or for a
fisheye (x/z, y/z) times atan(r)/r, r its length, and q = a^2 + b^2:

    factor = (1 + k1 q + k2 q^2 + ...) / (1 + d1 q + d2 q^2 + ...)
    a' = a factor + 2 p1 a b + p2 (q + 2 a^2) + s1 q
    b' = b factor + 2 p2 a b + p1 (q + 2 b^2) + s2 q

Sources: Brown 1966, Decentering distortion of lenses; Kannala and Brandt 2006, A generic camera model (fisheye).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

OPENCV_COUNTS = (4, 5, 8)
"""How many numbers OpenCV's distortion may have here: its thin prisms and tilted sensors are not among them."""


@dataclass(frozen=True, kw_only=True)
class Lens:
    """The coefficients of a distorting lens."""

    radial: tuple[float, ...] = ()
    """k1, k2, ...: factors of q, q^2, ..."""
    divisor: tuple[float, ...] = ()
    """d1, d2, ... likewise, of what is divided by: OpenCV's k4, k5, k6."""
    tangential: tuple[float, ...] = (0.0, 0.0)
    """p1, p2 as in OpenCV."""
    prism: tuple[float, ...] = (0.0, 0.0)
    """s1, s2: OpenCV's s1 and s3, COLMAP's sx1 and sy1."""
    fisheye: bool = False
    """Whether a ray's angle to the axis is distorted, not its tangent."""

    def __post_init__(self) -> None:
        for name in ("radial", "divisor", "tangential", "prism"):
            values = tuple(float(value) for value in getattr(self, name))
            pair = name in ("tangential", "prism")
            if not all(map(math.isfinite, values)) or (pair and len(values) != 2):
                what = "two finite numbers" if pair else "finite numbers"
                raise ValueError(f"Lens: '{name}' of the distortion must be {what}, got {values}")
            kept = values if pair else tuple(_without_end_zeros(list(values), 0))
            object.__setattr__(self, name, kept)

    @classmethod
    def opencv(cls, values: Iterable[float]) -> Lens:
        """The lens of OpenCV's k1, k2, p1, p2[, k3[, k4, k5, k6]].

        Raises:
            ValueError: there are not 4, 5 or 8 finite numbers.
        """
        found = tuple(float(value) for value in values)
        if len(found) not in OPENCV_COUNTS or not all(map(math.isfinite, found)):
            raise ValueError(
                f"'distortion' must be 4, 5 or 8 finite numbers k1, k2, p1, p2, k3, k4, k5, k6, got {list(found)}"
            )
        return cls(radial=(*found[:2], *found[4:5]), tangential=found[2:4], divisor=found[5:])

    @property
    def bends(self) -> bool:
        """Whether it differs from a pinhole."""
        return self.fisheye or any(
            (*self.radial, *self.divisor, *self.tangential, *self.prism),
        )

    @cached_property
    def limit(self) -> float:
        """The q up to which the distorted radius grows with the radius.

        Beyond it the model folds back, and points far outside the image would appear in it.
        """
        over, under = (_without_end_zeros([1.0, *each]) for each in (self.radial, self.divisor))
        # d/dr of r N(q) / D(q) has the sign of (N + 2 q N') D - N 2 q D'
        slope = [
            one - other
            for one, other in zip(
                _product(_weighted(over, 1), under),
                _product(over, _weighted(under, 0)),
                strict=True,
            )
        ]
        return min(_first_root(_without_end_zeros(slope)), _first_root(under))

    def distort(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Distort rays.

        Args:
            x: x/z of rays, of any shape.
            y: y/z, of the same shape.

        Returns:
            a' and b'; NaN beyond the angle up to which the distortion is one to one.
        """
        if self.fisheye:
            radius = torch.hypot(x, y)
            scale = torch.where(radius > 1e-12, radius.atan() / radius, 1.0)
            x, y = x * scale, y * scale
        return self._bend(x, y)

    def undistort(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The rays x/z, y/z that are distorted to (x, y), by Newton's iteration; NaN where there is none."""
        p1, p2 = self.tangential
        s1, s2 = self.prism
        a, b = x, y
        for _ in range(20):
            square = a * a + b * b
            factor, slope = self._factor(square)
            error_x = a * factor + 2 * p1 * a * b + p2 * (square + 2 * a * a) + s1 * square - x
            error_y = b * factor + p1 * (square + 2 * b * b) + 2 * p2 * a * b + s2 * square - y
            xx = factor + slope * a * a + 2 * p1 * b + 6 * p2 * a + 2 * s1 * a
            yy = factor + slope * b * b + 6 * p1 * b + 2 * p2 * a + 2 * s2 * b
            both = slope * a * b + 2 * p1 * a + 2 * p2 * b
            xy, yx = both + 2 * s1 * b, both + 2 * s2 * a
            determinant = xx * yy - xy * yx
            a, b = (
                a - (yy * error_x - xy * error_y) / determinant,
                b - (xx * error_y - yx * error_x) / determinant,
            )
        back_x, back_y = self._bend(a, b)
        found = ((back_x - x).abs() < 1e-9) & ((back_y - y).abs() < 1e-9)
        if self.fisheye:
            angle = torch.hypot(a, b)
            found &= angle < math.pi / 2
            scale = torch.where(angle > 1e-12, angle.tan() / angle, 1.0)
            a, b = a * scale, b * scale
        return torch.where(found, a, torch.nan), torch.where(found, b, torch.nan)

    def _bend(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        p1, p2 = self.tangential
        s1, s2 = self.prism
        square = a * a + b * b
        square = torch.where(square < self.limit, square, torch.nan)
        factor = self._factor(square)[0]
        both = 2 * a * b
        x = a * factor + p1 * both + p2 * (square + 2 * a * a)
        y = b * factor + p1 * (square + 2 * b * b) + p2 * both
        return (x + s1 * square, y + s2 * square) if s1 or s2 else (x, y)

    def _factor(self, square: Tensor) -> tuple[Tensor, Tensor]:
        """The radial factor, and twice its derivative by q."""
        over, over_slope = _horner(self.radial, square)
        if not self.divisor:
            return over, 2 * over_slope
        under, under_slope = _horner(self.divisor, square)
        return over / under, 2 * (over_slope * under - over * under_slope) / (under * under)


def _horner(coefficients: tuple[float, ...], at: Tensor) -> tuple[Tensor, Tensor]:
    """1 + c1 q + c2 q^2 + ..., and its derivative."""
    value, slope = torch.zeros_like(at), torch.zeros_like(at)
    for each in (*coefficients[::-1], 1.0):
        slope = value + at * slope
        value = each + at * value
    return value, slope


def _weighted(polynomial: list[float], first: int) -> list[float]:
    """Coefficients of q^n times first + 2 n."""
    return [(first + 2 * power) * each for power, each in enumerate(polynomial)]


def _product(one: list[float], other: list[float]) -> list[float]:
    found = [0.0] * (len(one) + len(other) - 1)
    for i, left in enumerate(one):
        for j, right in enumerate(other):
            found[i + j] += left * right
    return found


def _without_end_zeros(polynomial: list[float], least: int = 1) -> list[float]:
    while len(polynomial) > least and polynomial[-1] == 0:
        polynomial = polynomial[:-1]
    return polynomial


def _first_root(polynomial: list[float]) -> float:
    """The smallest positive root of c0 + c1 q + ..., infinite without one."""
    degree = len(polynomial) - 1
    if degree == 0:
        return math.inf
    companion = torch.diag(torch.ones(degree - 1, dtype=torch.float64), -1)
    companion[:, -1] = -torch.tensor(polynomial[:-1], dtype=torch.float64) / polynomial[-1]
    roots = torch.linalg.eigvals(companion)
    real = roots.real[(roots.imag.abs() < 1e-9 * (1 + roots.real.abs())) & (roots.real > 0)]
    return float(real.min()) if len(real) else math.inf
