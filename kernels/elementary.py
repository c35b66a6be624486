"""exp, log and their relatives for kernels: the same bits from the plain body, the CPU loop and a GPU.

Libraries round these functions differently: glibc, Apple's and CUDA's exp agree to a unit in the last place. Those here
are sums, products and quotients, which IEEE 754 rounds in one way, and shifts of the bits of a number. They have no
branch and no call, so loops over them become vector instructions.

    exp   x = k log 2 + r with |r| <= log(2) / 2; exp(r) = 1 + r + r^2 p(r), times 2^k
    log   x = 2^e m with m from sqrt(1/2) to sqrt(2); with f = m - 1, log(m) = f - f^2 / 2 + ..., plus e log 2

log 2 is the sum of a head of few bits, whose product with k or e is exact, and a tail. What the sum of the head's
product and r or f loses is kept and added to the rest.

Largest error in units in the last place (0.5 is correctly rounded): exp_32 0.92 and log_32 0.85 over all float32
numbers; exp_64 0.87, log_64 0.88, log1p_64 1.44 and expm1_64 1.59 over nine million numbers of all sizes.

Source: Cody and Waite, Software Manual for the Elementary Functions (1980); the coefficients of log_64 are those of
e_log.c in fdlibm (Sun Microsystems, 1993).
"""

from __future__ import annotations

import math

import numpy as np

from .bits import bits_32, bits_64, float_32, float_64
from .compile import inline, kernel

_ZERO_32, _HALF_32, _ONE_32 = np.float32(0.0), np.float32(0.5), np.float32(1.0)
_INFINITY_32, _NAN_32 = np.float32(np.inf), np.float32(np.nan)
# Added to a number of at most 2^21, it leaves the nearest integer in the low bits of the sum.
_ROUND_32, _ROUND_BITS_32 = np.float32(1.5 * 2**23), np.int32(0x4B400000)
_PER_LOG_2_32 = np.float32(1 / math.log(2))
_LOG_2_HEAD_32 = np.float32(22713 / 2**15)  # 15 bits
_LOG_2_TAIL_32 = np.float32(math.log(2) - 22713 / 2**15)
# exp is infinity from the first on, and 0 from the second on.
_MOST_32, _LEAST_32 = np.float32(89.0), np.float32(-105.0)
# Of p(r) = (exp(r) - 1 - r) / r^2: the largest error of exp(r) is 3.2e-9.
_E2_32, _E3_32, _E4_32 = np.float32(0.5), np.float32(0.16666518), np.float32(0.041666202)
_E5_32, _E6_32 = np.float32(0.008369025), np.float32(0.0013950724)
_BIAS_32, _MANTISSA_32, _SHIFT_1_32 = np.int32(127), np.int32(23), np.int32(1)  # of the bits of a float32
_SMALLEST_32, _UP_32, _UP_BITS_32 = np.float32(2.0**-126), np.float32(2.0**23), np.float32(23.0)
_SQRT_HALF_32 = np.int32(0x3F3504F3)
# Of (log(1 + f) - f + f^2 / 2) / f^3: the largest relative error of log(1 + f) is 7.5e-10.
_L3_32, _L4_32, _L5_32 = np.float32(0.33333313), np.float32(-0.2500001), np.float32(0.20002119)
_L6_32, _L7_32, _L8_32 = np.float32(-0.16667996), np.float32(0.14219551), np.float32(-0.124055915)
_L9_32, _L10_32, _L11_32 = np.float32(0.11888175), np.float32(-0.11675641), np.float32(0.06746601)

_ZERO_64, _HALF_64, _ONE_64 = np.float64(0.0), np.float64(0.5), np.float64(1.0)
_INFINITY_64, _NAN_64, _TWO_64 = np.float64(np.inf), np.float64(np.nan), np.float64(2.0)
_ROUND_64, _ROUND_BITS_64 = np.float64(1.5 * 2**52), np.int64(0x4338000000000000)
_PER_LOG_2_64 = np.float64(1 / math.log(2))
_LOG_2_HEAD_64, _LOG_2_TAIL_64 = np.float64(6.93147180369123816490e-01), np.float64(1.90821492927058770002e-10)
_MOST_64, _LEAST_64 = np.float64(710.0), np.float64(-746.0)
# Taylor's: the next term is below 5e-18.
(_E2_64, _E3_64, _E4_64, _E5_64, _E6_64, _E7_64, _E8_64, _E9_64, _E10_64, _E11_64, _E12_64, _E13_64) = (
    np.float64(1 / math.factorial(k)) for k in range(2, 14)
)
_BIAS_64, _MANTISSA_64, _SHIFT_1_64 = np.int64(1023), np.int64(52), np.int64(1)
_WHOLE_64 = np.int64(60)  # of 2^k and more, 1 is less than the last place
_SMALLEST_64, _UP_64, _UP_BITS_64 = np.float64(2.0**-1022), np.float64(2.0**52), np.float64(52.0)
_SQRT_HALF_64 = np.int64(0x3FE6A09E667F3BCD)
# Of (log(1 + f) - f + f^2 / 2) / s - f^2 / 2 with s = f / (2 + f), in powers of s^2.
_L1_64, _L2_64 = np.float64(0.6666666666666735130), np.float64(0.3999999999940941908)
_L3_64, _L4_64 = np.float64(0.2857142874366239149), np.float64(0.2222219843214978396)
_L5_64, _L6_64 = np.float64(0.1818357216161805012), np.float64(0.1531383769920937332)
_L7_64 = np.float64(0.1479819860511658591)


@inline
def exp_32(x):
    """exp(x) of a float32 within 0.93 units in the last place, subnormal results included; NaN for NaN."""
    x = _MOST_32 if x > _MOST_32 else x
    x = _LEAST_32 if x < _LEAST_32 else x
    rounded = x * _PER_LOG_2_32 + _ROUND_32
    k = rounded - _ROUND_32
    head, tail = x - k * _LOG_2_HEAD_32, k * _LOG_2_TAIL_32
    r = head - tail
    lost = (head - r) - tail
    p = _E6_32 * r + _E5_32
    p = p * r + _E4_32
    p = p * r + _E3_32
    p = p * r + _E2_32
    power = _ONE_32 + (r + (p * (r * r) + lost))
    # 2^k in two factors: one alone may be out of range where the product is not.
    whole = np.int32(bits_32(rounded) - _ROUND_BITS_32)
    first = np.int32(whole >> _SHIFT_1_32)
    second = np.int32(whole - first)
    power = power * float_32((first + _BIAS_32) << _MANTISSA_32)
    return power * float_32((second + _BIAS_32) << _MANTISSA_32)


@inline
def log_32(x):
    """log(x) of a float32 within 0.9 units in the last place; -infinity for 0, NaN below 0 and for NaN."""
    inside = (x > _ZERO_32) & (x < _INFINITY_32)
    known = x if inside else _ONE_32
    subnormal = known < _SMALLEST_32
    known = known * _UP_32 if subnormal else known
    bits = bits_32(known)
    whole = np.int32((bits - _SQRT_HALF_32) >> _MANTISSA_32)
    f = float_32(bits - (whole << _MANTISSA_32)) - _ONE_32
    e = np.float32(whole) - (_UP_BITS_32 if subnormal else _ZERO_32)
    p = _L11_32 * f + _L10_32
    p = p * f + _L9_32
    p = p * f + _L8_32
    p = p * f + _L7_32
    p = p * f + _L6_32
    p = p * f + _L5_32
    p = p * f + _L4_32
    p = p * f + _L3_32
    square = f * f
    rest = p * (square * f) - _HALF_32 * square
    product = e * _LOG_2_HEAD_32
    total = product + f
    lost = f - (total - product)
    result = total + (lost + (rest + e * _LOG_2_TAIL_32))
    outside = x if x > _ZERO_32 else (-_INFINITY_32 if x == _ZERO_32 else _NAN_32)
    return result if inside else outside


@inline
def _power_64(x):
    """For x from _LEAST_64 to _MOST_64: exp(r) - 1, and k as an integer."""
    rounded = x * _PER_LOG_2_64 + _ROUND_64
    k = rounded - _ROUND_64
    head, tail = x - k * _LOG_2_HEAD_64, k * _LOG_2_TAIL_64
    r = head - tail
    lost = (head - r) - tail
    p = _E13_64 * r + _E12_64
    p = p * r + _E11_64
    p = p * r + _E10_64
    p = p * r + _E9_64
    p = p * r + _E8_64
    p = p * r + _E7_64
    p = p * r + _E6_64
    p = p * r + _E5_64
    p = p * r + _E4_64
    p = p * r + _E3_64
    p = p * r + _E2_64
    return r + (p * (r * r) + lost), bits_64(rounded) - _ROUND_BITS_64


@inline
def _two_to_64(k):
    """2^k of an integer from -1022 to 1023."""
    return float_64((k + _BIAS_64) << _MANTISSA_64)


@inline
def exp_64(x):
    """exp(x) of a float64 within 0.9 units in the last place, subnormal results included; NaN for NaN."""
    x = _MOST_64 if x > _MOST_64 else x
    x = _LEAST_64 if x < _LEAST_64 else x
    above, whole = _power_64(x)
    first = whole >> _SHIFT_1_64
    return (_ONE_64 + above) * _two_to_64(first) * _two_to_64(whole - first)


@inline
def expm1_64(x):
    """exp(x) - 1 of a float64 within 1.7 units in the last place; NaN for NaN."""
    x = _MOST_64 if x > _MOST_64 else x
    x = _LEAST_64 if x < _LEAST_64 else x
    above, whole = _power_64(x)
    first = whole >> _SHIFT_1_64
    a, b = _two_to_64(first), _two_to_64(whole - first)
    return (_ONE_64 + above) * a * b - _ONE_64 if whole > _WHOLE_64 else above * a * b + (a * b - _ONE_64)


@inline
def log_64(x):
    """log(x) of a float64 within 0.9 units in the last place; -infinity for 0, NaN below 0 and for NaN."""
    inside = (x > _ZERO_64) & (x < _INFINITY_64)
    known = x if inside else _ONE_64
    subnormal = known < _SMALLEST_64
    known = known * _UP_64 if subnormal else known
    bits = bits_64(known)
    whole = (bits - _SQRT_HALF_64) >> _MANTISSA_64
    f = float_64(bits - (whole << _MANTISSA_64)) - _ONE_64
    # The integer becomes a float64 by its bits: few processors convert several at once.
    e = float_64(whole + _ROUND_BITS_64) - _ROUND_64 - (_UP_BITS_64 if subnormal else _ZERO_64)
    s = f / (_TWO_64 + f)
    z = s * s
    w = z * z
    odd = w * (_L2_64 + w * (_L4_64 + w * _L6_64))
    even = z * (_L1_64 + w * (_L3_64 + w * (_L5_64 + w * _L7_64)))
    half = _HALF_64 * f * f
    rest = s * (half + (odd + even)) - half
    product = e * _LOG_2_HEAD_64
    total = product + f
    lost = f - (total - product)
    result = total + (lost + (rest + e * _LOG_2_TAIL_64))
    outside = x if x > _ZERO_64 else (-_INFINITY_64 if x == _ZERO_64 else _NAN_64)
    return result if inside else outside


@inline
def log1p_64(x):
    """log(1 + x) of a float64 within 1.5 units in the last place; -infinity for -1, NaN below and for NaN."""
    whole = _ONE_64 + x
    inside = (whole > _ZERO_64) & (whole < _INFINITY_64)
    known = whole if inside else _ONE_64
    lost = (x - (known - _ONE_64)) / known if inside else _ZERO_64  # of x, by rounding 1 + x
    return log_64(whole) + lost


@kernel(types=("i8", "f4[:]", "f4[:]"), brief=8)
def logarithms(i, at_once, x, out):
    """Logarithms of the numbers of block i, a loop that becomes vector instructions.

    Reads:   x[i * at_once : (i + 1) * at_once].
    Inputs:  at_once int64, numbers of a block: thousands on a CPU, 1 on a GPU; x float32 (n,).
    Outputs: out float32 (n,), as `log_32`.
    NaN:     of NaN and of numbers below 0.
    """
    begin = i * at_once
    end = min(begin + at_once, x.shape[0])
    numbers, logs = x[begin:end], out[begin:end]
    for k in range(end - begin):
        logs[k] = log_32(numbers[k])


@kernel(types=("f4[:]", "f4[:]"), double_precision=True, brief=True)
def log_growth(i, change, out):
    """The logarithmic return of a relative change: log(1 + change[i]), computed in float64.

    Inputs:  change float32 (n,).
    Outputs: out float32 (n,).
    NaN:     of NaN and of changes below -1; -infinity of -1.
    """
    out[i] = np.float32(log1p_64(np.float64(change[i])))
