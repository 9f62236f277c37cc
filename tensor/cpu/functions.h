#pragma once

#include <cmath>

#include "tensor/cpu/floats.h"

/// exp, tanh, the logistic and the normal distribution on a vector of floats, to a few units in the last
/// place. The polynomials are our own minimax fits (iteratively reweighted least squares); each names its
/// error.
namespace millrace::cpu {

template <std::size_t N>
Floats polynomial(Floats x, const float (&coefficients)[N]) {
  Floats sum = splat(coefficients[N - 1]);
  for (std::size_t i = N - 1; i-- > 0;) {
    sum = sum * x + coefficients[i];
  }
  return sum;
}

inline Floats magnitude(Floats x) { return reinterpret_cast<Floats>(reinterpret_cast<Ints>(x) & 0x7fffffff); }

/// 2^n for n in [-126, 127].
inline Floats power_of_two(Ints n) { return reinterpret_cast<Floats>((n + 127) << 23); }

/// exp(x) = mantissa * 2^exponent for |x| < 2^21.
struct Exponential {
  Floats mantissa;
  Ints exponent;
};

inline Exponential split_exponential(Floats x) {
  // x = n ln 2 + r with |r| <= ln 2 / 2; adding 1.5 * 2^23 rounds to the nearest integer.
  const Floats shifted = x * 0x1.715476p+0f + 0x1.8p+23f;
  const Floats n = shifted - 0x1.8p+23f;
  const Floats r = (x - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
  // (exp(r) - 1 - r) / r^2, relative error of exp 3.4e-9.
  constexpr float kFit[] = {0x1p-1f, 0.16666512191295624f, 0.0416661873459816f, 0.008369598537683487f,
                            0.0013951717410236597f};
  return {1.0f + (r + r * r * polynomial(r, kFit)), reinterpret_cast<Ints>(shifted) - 0x4b400000};
}

/// Over the whole range of floats, subnormal results and infinities included.
inline Floats exponential(Floats x) {
  const Exponential parts = split_exponential(x < -104.0f ? splat(-104.0f) : x > 89.0f ? splat(89.0f) : x);
  const Ints half = parts.exponent >> 1;
  return parts.mantissa * power_of_two(half) * power_of_two(parts.exponent - half);
}

inline Floats logistic(Floats x) { return 1.0f / (1.0f + exponential(-x)); }

inline Floats hyperbolic_tangent(Floats x) {
  const Floats size = magnitude(x);
  // (tanh(x) - x) / x^3 in x^2 for |x| < 0.625, relative error of tanh 4.2e-9.
  constexpr float kFit[] = {-0.3333328366279602f, 0.13331490755081177f, -0.05374349653720856f,
                            0.020650578662753105f, -0.005717036779969931f};
  const Floats square = x * x;
  const Floats small = x + x * square * polynomial(square, kFit);
  const Floats large = 1.0f - 2.0f / (exponential(2.0f * size) + 1.0f);
  return size < 0.625f ? small : x < 0.0f ? -large : large;
}

/// The density of the standard normal distribution at x, and its integral up to x.
struct Normal {
  Floats density;
  Floats distribution;
};

inline Normal normal(Floats x) {
  const Floats size = magnitude(x);
  const Floats power = -0.5f * x * x;
  const Exponential parts = split_exponential(power < -87.0f ? splat(-87.0f) : power);
  const Floats bell = power < -87.0f ? splat(0.0f) : parts.mantissa * power_of_two(parts.exponent);
  // erfc(z) exp(z^2) / t in t = 1 / (1 + 0.3 z), z = |x| / sqrt(2), relative error 2e-8: the tail keeps its
  // digits.
  constexpr float kFit[] = {0.16918961703777313f, 0.17069195210933685f,  0.1484822779893875f,
                            0.21443693339824677f, -0.09363283216953278f, 0.5463973879814148f,
                            -0.5112285017967224f, 0.4850974678993225f,   -0.12943428754806519f};
  const Floats t = 1.0f / (1.0f + size * 0.21213203435596426f);
  const Floats tail = 0.5f * bell * t * polynomial(t, kFit);
  return {bell * 0.3989422804014327f, x < 0.0f ? tail : 1.0f - tail};
}

}  // namespace millrace::cpu
