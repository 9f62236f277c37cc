#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <iterator>
#include <vector>

#include "tensor/tensor.h"

namespace millrace {

namespace {

/// How all numbers of one tensor are written, so that columns line up.
struct Format {
  bool integral = true;     ///< Without a point.
  bool scientific = false;  ///< Magnitudes too far apart for four digits behind the point.
  std::size_t width = 0;    ///< With a place for the sign.

  std::string operator()(double value) const {
    if (!std::isfinite(value)) {
      return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
    }
    return integral     ? fmt::format("{:.0f}", value)
           : scientific ? fmt::format("{:.4e}", value)
                        : fmt::format("{:.4f}", value);
  }
};

Format format_for(const double* values, std::int64_t count) {
  Format format;
  double largest = 0;
  double smallest = HUGE_VAL;
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
  format.scientific = format.integral ? false : largest >= 1e5 || smallest < 1e-4;
  if (format.integral && largest >= 1e15) {
    format = {.integral = false, .scientific = true};
  }
  for (std::int64_t i = 0; i < count; ++i) {
    format.width = std::max(format.width, format(std::abs(values[i])).size() + 1);
  }
  return format;
}

void write_row(std::string& text, const double* row, std::int64_t columns, const Format& format) {
  for (std::int64_t j = 0; j < columns; ++j) {
    fmt::format_to(std::back_inserter(text), "{}{:>{}}", j == 0 ? "" : " ", format(row[j]), format.width);
  }
  text += '\n';
}

/// The last two dimensions as rows; each step of the outer ones under a heading, as "(0,1,.,.)".
void write_matrices(std::string& text, const double* values, const Shape& shape, const Format& format) {
  const std::int64_t rows = shape[-2], columns = shape[-1];
  std::vector<std::int64_t> index(static_cast<std::size_t>(shape.size() - 2), 0);
  for (std::int64_t start = 0; start < shape.numel(); start += rows * columns) {
    if (!index.empty()) {
      if (start > 0) {
        text += '\n';
      }
      text += fmt::format("({},.,.) = \n", fmt::join(index, ","));
    }
    for (std::int64_t i = 0; i < rows; ++i) {
      write_row(text, values + start + i * columns, columns, format);
    }
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
  const Tensor numbers = to(kCpu).to(DType::f64).contiguous();
  const double* const values = numbers.data<double>();
  const Format format = format_for(values, numel_);
  std::string text;
  if (numel_ > 0 && dim() >= 2) {
    write_matrices(text, values, shape_, format);
  }
  if (numel_ > 0 && dim() < 2) {
    for (std::int64_t i = 0; i < numel_; ++i) {
      write_row(text, values + i, 1, format);
    }
  }
  const std::string place = device().is_cpu() ? "" : " on " + device().to_string();
  if (dim() == 0) {
    return text + fmt::format("[{} scalar{}]", dtype_, place);
  }
  return text + fmt::format("[{} tensor of size {}{}]", dtype_, fmt::join(shape_, "x"), place);
}

std::ostream& operator<<(std::ostream& out, const Tensor& tensor) { return out << tensor.to_string(); }

}  // namespace millrace
