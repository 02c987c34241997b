"""Squared distances from matrix products, with a bound on their error: they tell which exact distances are needed."""

import torch


def product_dtype(device: torch.device) -> torch.dtype:
    """Type for products: bfloat16 on a CPU that multiplies it (AMX, AVX-512: 2 to 7 times as fast), else float32."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    fast = capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")
    return torch.bfloat16 if device.type == "cpu" and fast else torch.float32


def sources(points: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Points (m, d), float32, made ready for `Targets.partial`."""
    if dtype == torch.float32:
        return points
    ready = points.new_ones(len(points), points.shape[1] + 3, dtype=dtype)
    ready[:, :-3] = points  # rounds row by row: a whole second copy would be the peak of a fit's memory
    return ready


class Targets:
    """Points t that distances are measured to from points x, by |t|^2 - 2 x.t: the squared distance less |x|^2.

    Args:
        points: float32 (n, d), best with a mean near 0, since errors grow with the distance from the origin.
        dtype: type for the products, bfloat16 or float32.
    """

    def __init__(self, points: torch.Tensor, dtype: torch.dtype) -> None:
        self._norms = points.square().sum(dim=1)
        self._longest = float(self._norms.max().sqrt())
        self._columns = (points * -2).T.to(dtype)
        if dtype == torch.bfloat16:
            # The product adds |t|^2 itself, from three summands of 8 bits each, which 3 ones in the sources meet.
            high = self._norms.to(dtype)
            middle = (self._norms - high).to(dtype)
            low = (self._norms - high.float() - middle).to(dtype)
            self._columns = torch.cat([self._columns, torch.stack([high, middle, low])])
        self._columns = self._columns.contiguous()

    def partial(self, points: torch.Tensor) -> torch.Tensor:
        """|t|^2 - 2 x.t for `sources` x (m, d) and all targets, (m, n), of the type for products."""
        if points.dtype == torch.float32:
            return torch.addmm(self._norms, points, self._columns)
        return torch.mm(points, self._columns)

    def error(self, norms: torch.Tensor) -> torch.Tensor:
        """Bound on the error of `partial` for points of the norms |x|, float32 (m,).

        For bfloat16, of unit roundoff u = 2^-8: 4 u |x| |t| from rounding x and t and u (2 |x| |t| + |t|^2) from
        rounding the result, and a little for the sum, which runs in float32.
        """
        if self._columns.dtype == torch.float32:
            return (norms + self._longest) * (2e-6 * self._longest)
        return norms * (6.1 * 2**-8 * self._longest) + 1.1 * 2**-8 * self._longest**2
