#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tensor/kernels/options.h"
#include "tensor/shape.h"

namespace millrace::cpu {

struct Span {
  std::int64_t begin;
  std::int64_t end;
};

/// The pooling windows along one axis, seen from the outputs and from the inputs.
struct PoolAxis {
  std::vector<Span> window;          ///< Of each output: the inputs it covers, clipped to the image.
  std::vector<std::int64_t> origin;  ///< Where its window starts unclipped; places count from here.
  std::vector<std::int64_t> extent;  ///< How many places its window has, unclipped.
  std::vector<Span> readers;         ///< Of each input: the outputs whose windows hold it.

  PoolAxis(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride, std::int64_t padding,
           bool adaptive)
      : readers(static_cast<std::size_t>(in), Span{0, 0}) {
    window.reserve(static_cast<std::size_t>(out));
    for (std::int64_t o = 0; o < out; ++o) {
      const std::int64_t first = adaptive ? o * in / out : o * stride - padding;
      const std::int64_t last = adaptive ? ((o + 1) * in + out - 1) / out : first + kernel;
      const Span clipped{std::max<std::int64_t>(first, 0), std::min(last, in)};
      window.push_back(clipped);
      origin.push_back(first);
      extent.push_back(last - first);
      for (std::int64_t i = clipped.begin; i < clipped.end; ++i) {
        Span& reader = readers[static_cast<std::size_t>(i)];
        if (reader.end == 0) {
          reader.begin = o;
        }
        reader.end = o + 1;
      }
    }
  }

  /// Whether no two windows share an input.
  bool is_disjoint() const {
    return std::all_of(readers.begin(), readers.end(), [](Span span) { return span.end - span.begin <= 1; });
  }
  /// Whether each input is in some window.
  bool is_covered() const {
    return std::all_of(readers.begin(), readers.end(), [](Span span) { return span.end > span.begin; });
  }

  static PoolAxis height(const Shape& in, const Shape& out, const Pool2dOptions& p) {
    return {in[2], out[2], p.kernel.height, p.step().height, p.padding.height, p.is_adaptive()};
  }
  static PoolAxis width(const Shape& in, const Shape& out, const Pool2dOptions& p) {
    return {in[3], out[3], p.kernel.width, p.step().width, p.padding.width, p.is_adaptive()};
  }
};

}  // namespace millrace::cpu
