"""exp and the activations, of a vector: polynomials, and for tanh and the sigmoid a division.

The errors stated are the largest against float64 over the whole useful range; tests/test_cpu_kernels.py holds them.
"""

from .jit import inlined
from .packed import ACTIVATIONS
from .simd import Vector, absolute, fma, maximum, minimum, nearest, power_of_two, select_less

GELU, GELU_TANH, RELU, SILU, TANH, SIGMOID = range(len(ACTIVATIONS))


@inlined
def activate(x: Vector, activation: int) -> Vector:
    """Return the activation of each number; `activation` is its place in ACTIVATIONS.

    What has left float32 becomes NaN: GELU would make 0 of an infinity, and hide it.
    """
    x = x + (x - x)
    if activation == GELU:
        return gelu(x)
    if activation == GELU_TANH:
        return x * sigmoid(fma(x * x, 0.0713548163, 1.59576912) * x)  # (1 + tanh(u)) / 2 is the sigmoid of 2u
    if activation == RELU:
        return relu(x)
    if activation == SILU:
        return x * sigmoid(x)
    if activation == TANH:
        return tanh(x)
    return sigmoid(x)


@inlined
def exp(x: Vector) -> Vector:
    """e**x, to 1.2e-7 relative (1 ulp), for x <= 88; 0 below -87.3, where e**x leaves the normal float32 numbers.

    x = n ln 2 + r with n whole and |r| <= ln(2)/2; e**r is a polynomial (coefficients of Cephes' expf), 2**n is made
    from exponent bits. ln 2 is taken off in two parts, the first of which has few bits, so that n ln 2 is exact.
    """
    clamped = minimum(maximum(x, -87.3), 88.0)
    n = nearest(clamped * 1.44269504)
    r = fma(n, -0.693359375, clamped)
    r = fma(n, 2.12194440e-4, r)
    p = fma(r, 1.9875691500e-4, 1.3981999507e-3)
    p = fma(p, r, 8.3334519073e-3)
    p = fma(p, r, 4.1665795894e-2)
    p = fma(p, r, 1.6666665459e-1)
    p = fma(p, r, 5.0000001201e-1)
    return select_less(x, -87.3, 0.0, fma(p * r, r, r + 1.0) * power_of_two(n))


@inlined
def gelu(x: Vector) -> Vector:
    """X * Phi(x), Phi the normal distribution; to 6e-7 absolute (float32's own rounding of erf-GELU gives 2e-7).

    Phi(x) = 1/2 + x P(u) with u = 2 x^2 / 5.5^2 - 1: P is a polynomial fitted for the least absolute error of Phi on
    |x| <= 5.5. In the scaled variable u its coefficients are small, so that no digits cancel. Below -5.5 Phi is less
    than 2e-8 and taken as 0; above 5.5 the clamped polynomial gives exactly 1.
    """
    clamped = minimum(maximum(x, -5.5), 5.5)
    u = fma(clamped * clamped, 0.0661157025, -1.0)
    p = fma(u, 9.85528823e-05, -0.000275896426)
    p = fma(p, u, 0.000257133914)
    p = fma(p, u, -0.000390983507)
    p = fma(p, u, 0.0012963966)
    p = fma(p, u, -0.00261102756)
    p = fma(p, u, 0.00416135276)
    p = fma(p, u, -0.00668429444)
    p = fma(p, u, 0.0104309041)
    p = fma(p, u, -0.0150499186)
    p = fma(p, u, 0.0203161202)
    p = fma(p, u, -0.0260385573)
    p = fma(p, u, 0.032075908)
    p = fma(p, u, -0.0387935936)
    p = fma(p, u, 0.0477373786)
    p = fma(p, u, -0.0641723201)
    p = fma(p, u, 0.12855193)
    return select_less(x, -5.5, 0.0, x * fma(clamped, p, 0.5))


@inlined
def relu(x: Vector) -> Vector:
    """Keep what is positive."""
    return maximum(x, 0.0)


@inlined
def tanh(x: Vector) -> Vector:
    """Tanh x = sign(x) (1 - 2 / (e^{2|x|} + 1)), to 2e-7 absolute."""
    size = 1.0 - 2.0 / (exp(minimum(absolute(x), 10.0) * 2.0) + 1.0)
    return select_less(x, 0.0, 0.0 - size, size)


@inlined
def sigmoid(x: Vector) -> Vector:
    """1 / (1 + e^-x), to 2e-7 absolute; 0 below -88, as x * sigmoid(x) of the lowest float32 would else be -2."""
    return select_less(x, -88.0, 0.0, 1.0 / (exp(minimum(0.0 - x, 88.0)) + 1.0))
