#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <iterator>
#include <vector>

#include "tensor/kernels/recording.h"
#include "tensor/ops.h"
#include "tensor/tensor.h"

namespace millrace {

namespace {

constexpr std::int64_t kMostNumbers = 1000;  ///< Of larger tensors only the edges are printed:
constexpr std::int64_t kEdge = 3;            ///< so many at each end of a dimension.
constexpr std::int64_t kLineLength = 80;

/// How all numbers of one tensor are written, so that columns line up.
struct Format {
  bool integral = true;     ///< Without a point.
  bool scientific = false;  ///< Magnitudes too far apart for four digits behind the point.
  double scale = 1;         ///< A power of ten taken out of all numbers.
  std::size_t width = 0;    ///< With a place for the sign.

  std::string operator()(double value) const {
    if (!std::isfinite(value)) {
      return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
    }
    return integral     ? fmt::format("{:.0f}", value)
           : scientific ? fmt::format("{:.4e}", value)
                        : fmt::format("{:.4f}", value / scale);
  }
};

/// The digits before the point of a positive number; below 0.1, minus the zeros behind it.
int digits(double value) { return static_cast<int>(std::floor(std::log10(value))) + 1; }

Format format_for(const double* values, std::int64_t count) {
  Format format;
  double largest = 0;
  double smallest = HUGE_VAL;  // but for zeros
  for (std::int64_t i = 0; i < count; ++i) {
    const double size = std::abs(values[i]);
    if (!std::isfinite(size)) {
      continue;
    }
    format.integral &= size == std::floor(size);
    largest = std::max(largest, size);
    if (size > 0) {
      smallest = std::min(smallest, size);
    }
  }
  format.integral &= largest < 1e15;
  if (!format.integral) {
    const int most = digits(largest);
    format.scientific = most - digits(smallest) > 4;
    if (most < 0 || most > 5) {
      format.scale = std::pow(10, most - 1);
    }
  }
  for (std::int64_t i = 0; i < count; ++i) {
    format.width = std::max(format.width, format(std::abs(values[i])).size() + 1);
  }
  return format;
}

/// What is printed of a tensor: all of it, or the edges of its long dimensions.
struct Excerpt {
  Tensor numbers;  ///< f64, row-major, of at least two dimensions.
  Shape whole;     ///< The shape it is taken from.

  std::int64_t left_out(int dim) const { return whole[dim] - numbers.shape()[dim]; }
  bool has_gap_before(int dim, std::int64_t i) const { return left_out(dim) > 0 && i == kEdge; }
};

Excerpt excerpt_of(Tensor x) {
  if (x.dim() < 2) {
    x = x.reshape({-1, 1});  // a number a row
  }
  const Shape whole = x.shape();
  for (int dim = 0; x.numel() > 0 && whole.numel() > kMostNumbers && dim < x.dim(); ++dim) {
    if (whole[dim] > 2 * kEdge) {
      x = cat({x.narrow(dim, 0, kEdge), x.narrow(dim, whole[dim] - kEdge, kEdge)}, dim);
    }
  }
  return {x.to(kCpu).to(DType::f64).contiguous(), whole};
}

/// The columns [begin, end) of one matrix.
void write_rows(std::string& text, const Excerpt& excerpt, const double* matrix, std::int64_t begin,
                std::int64_t end, const Format& format) {
  const std::int64_t rows = excerpt.numbers.shape()[-2], columns = excerpt.numbers.shape()[-1];
  for (std::int64_t i = 0; i < rows; ++i) {
    if (excerpt.has_gap_before(-2, i)) {
      text += fmt::format("{:>{}}\n", "...", format.width);
    }
    for (std::int64_t j = begin; j < end; ++j) {
      text += excerpt.has_gap_before(-1, j) ? "  ... " : j == begin ? "" : " ";
      fmt::format_to(std::back_inserter(text), "{:>{}}", format(matrix[i * columns + j]), format.width);
    }
    text += '\n';
  }
}

/// One matrix; what is wider than a line comes in groups of columns.
void write_matrix(std::string& text, const Excerpt& excerpt, const double* matrix, const Format& format) {
  const std::int64_t columns = excerpt.numbers.shape()[-1];
  const std::int64_t most =
      std::max<std::int64_t>(1, kLineLength / static_cast<std::int64_t>(format.width + 1));
  if (columns <= most || excerpt.left_out(-1) > 0) {
    write_rows(text, excerpt, matrix, 0, columns, format);
    return;
  }
  for (std::int64_t begin = 0; begin < columns; begin += most) {
    const std::int64_t end = std::min(begin + most, columns);
    text += fmt::format("{}Columns {} to {}\n", begin > 0 ? "\n" : "", begin, end - 1);
    write_rows(text, excerpt, matrix, begin, end, format);
  }
}

/// The last two dimensions as rows; each step of the outer ones under a heading, as "(0,1,.,.)".
void write_matrices(std::string& text, const Excerpt& excerpt, const Format& format) {
  const Shape& shape = excerpt.numbers.shape();
  const double* const values = excerpt.numbers.data<double>();
  std::vector<std::int64_t> index(static_cast<std::size_t>(shape.size() - 2), 0);
  for (std::int64_t start = 0; start < shape.numel(); start += shape[-2] * shape[-1]) {
    std::vector<std::int64_t> place = index;
    for (int d = 0; d < shape.size() - 2; ++d) {
      place[static_cast<std::size_t>(d)] +=
          index[static_cast<std::size_t>(d)] < kEdge ? 0 : excerpt.left_out(d);
    }
    if (!place.empty()) {
      text += fmt::format("{}({},.,.) = \n", start > 0 ? "\n" : "", fmt::join(place, ","));
    }
    write_matrix(text, excerpt, values + start, format);
    for (std::size_t d = index.size(); d-- > 0;) {
      if (++index[d] < shape[static_cast<int>(d)]) {
        break;
      }
      index[d] = 0;
    }
  }
}

}  // namespace

std::string Tensor::to_string() const {
  if (!defined()) {
    return "[undefined tensor]";
  }
  refuse_recording("it prints a tensor");
  std::string text;
  if (numel_ > 0) {
    const Excerpt excerpt = excerpt_of(*this);
    const Format format = format_for(excerpt.numbers.data<double>(), excerpt.numbers.numel());
    if (format.scale != 1 && !format.scientific) {
      text = fmt::format("{:.5e} *\n", format.scale);
    }
    write_matrices(text, excerpt, format);
  }
  const std::string place = device().is_cpu() ? "" : " on " + device().to_string();
  if (dim() == 0) {
    return text + fmt::format("[{} scalar{}]", dtype_, place);
  }
  return text + fmt::format("[{} tensor of size {}{}]", dtype_, fmt::join(shape_, "x"), place);
}

std::ostream& operator<<(std::ostream& out, const Tensor& tensor) { return out << tensor.to_string(); }

std::ostream& operator<<(std::ostream& out, const Shape& shape) { return out << shape.to_string(); }

}  // namespace millrace
