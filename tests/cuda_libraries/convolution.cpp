#include "convolution.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace millrace::fakes {
namespace {

/// Calls `f` with the number of each place in order n, h, w, its channel, and its place in memory.
template <typename F>
void each(const ConvolutionTensor& tensor, F&& f) {
  const auto& [count, channels, height, width] = tensor.sizes;
  std::int64_t pixel = 0;
  for (std::int64_t n = 0; n < count; ++n) {
    for (std::int64_t h = 0; h < height; ++h) {
      for (std::int64_t w = 0; w < width; ++w, ++pixel) {
        const std::int64_t first = n * tensor.strides[0] + h * tensor.strides[2] + w * tensor.strides[3];
        for (std::int64_t c = 0; c < channels; ++c) {
          f(pixel, c, first + c * tensor.strides[1]);
        }
      }
    }
  }
}

std::int64_t pixels(const ConvolutionTensor& tensor) {
  return tensor.sizes[0] * tensor.sizes[2] * tensor.sizes[3];
}

/// A line of channels for each pixel.
Rows<float> read(const ConvolutionTensor& tensor, const void* data, Kept kept) {
  Rows<float> made{pixels(tensor), tensor.sizes[1]};
  each(tensor, [&](std::int64_t pixel, std::int64_t c, std::int64_t place) {
    made.row(pixel)[c] = static_cast<float>(load(data, place, tensor.type, kept));
  });
  return made;
}

void write(const Convolution& c, const ConvolutionTensor& tensor, const Rows<double>& sums, void* data) {
  each(tensor, [&](std::int64_t pixel, std::int64_t channel, std::int64_t place) {
    double value = c.alpha * sums.row(pixel)[channel];
    if (c.beta != 0) {
      value += c.beta * load(data, place, tensor.type);
    }
    store(data, place, tensor.type, value);
  });
}

/// Numbers of pixels of x and y that one place of the window joins.
struct Joined {
  std::vector<std::int64_t> x, y;
};

Joined joined(const Convolution& c, std::int64_t r, std::int64_t s) {
  Joined made;
  const std::int64_t height = c.x.sizes[2], width = c.x.sizes[3];
  for (std::int64_t n = 0; n < c.y.sizes[0]; ++n) {
    for (std::int64_t p = 0; p < c.y.sizes[2]; ++p) {
      const std::int64_t h = p * c.strides[0] - c.padding_before[0] + r * c.dilations[0];
      for (std::int64_t q = 0; q < c.y.sizes[3]; ++q) {
        const std::int64_t w = q * c.strides[1] - c.padding_before[1] + s * c.dilations[1];
        if (h >= 0 && h < height && w >= 0 && w < width) {
          made.x.push_back((n * height + h) * width + w);
          made.y.push_back((n * c.y.sizes[2] + p) * c.y.sizes[3] + q);
        }
      }
    }
  }
  return made;
}

template <typename T>
auto lines(Rows<T>& rows, const std::vector<std::int64_t>& numbers, std::int64_t first) {
  std::vector<std::conditional_t<std::is_same_v<T, float>, const T*, T*>> made;
  for (const std::int64_t number : numbers) {
    made.push_back(rows.row(number) + first);
  }
  return made;
}

/// Lines `numbers` of a group's channels, one after the other, or each channel's numbers.
Rows<float> gathered(const Rows<float>& rows, const std::vector<std::int64_t>& numbers, std::int64_t first,
                     std::int64_t channels, bool by_channel) {
  const auto count = static_cast<std::int64_t>(numbers.size());
  Rows<float> made{by_channel ? channels : count, by_channel ? count : channels};
  for (std::int64_t i = 0; i < count; ++i) {
    const float* const from = rows.row(numbers[static_cast<std::size_t>(i)]) + first;
    for (std::int64_t k = 0; k < channels; ++k) {
      (by_channel ? made.row(k)[i] : made.row(i)[k]) = from[k];
    }
  }
  return made;
}

std::vector<std::int64_t> counted(std::int64_t first, std::int64_t count, std::int64_t step) {
  std::vector<std::int64_t> made;
  for (std::int64_t i = 0; i < count; ++i) {
    made.push_back(first + i * step);
  }
  return made;
}

}  // namespace

std::int64_t ConvolutionTensor::elements() const {
  std::int64_t last = 0;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    last += (sizes[i] - 1) * strides[i];
  }
  return last + 1;
}

bool Convolution::fits() const {
  const auto& [k, c, r, s] = weight.sizes;
  const auto size = [&](std::int64_t i, std::int64_t window) {
    const auto at = static_cast<std::size_t>(i);
    const std::int64_t room =
        x.sizes[at + 2] + padding_before[at] + padding_behind[at] - dilations[at] * (window - 1) - 1;
    return room < 0 ? 0 : room / strides[at] + 1;
  };
  return x.sizes[1] % c == 0 && k % (x.sizes[1] / c) == 0 && y.sizes[0] == x.sizes[0] && y.sizes[1] == k &&
         y.sizes[2] == size(0, r) && y.sizes[3] == size(1, s);
}

void Convolution::run(void* x_data, void* weight_data, void* y_data) const {
  const auto& [outputs, inputs, height, width] = weight.sizes;
  const std::int64_t groups = x.sizes[1] / inputs, group_outputs = outputs / groups, window = height * width;
  const auto read_unless = [&](Result which, const ConvolutionTensor& tensor, const void* data) {
    return which == result ? Rows<float>{} : read(tensor, data, kept);
  };
  Rows<float> images = read_unless(Result::x, x, x_data),
              filters = read_unless(Result::weight, weight, weight_data),
              gradients = read_unless(Result::y, y, y_data);
  const ConvolutionTensor& to = result == Result::y ? y : result == Result::x ? x : weight;
  Rows<double> sums{pixels(to), to.sizes[1]};
  for (std::int64_t place = 0; place < window; ++place) {
    const Joined pairs = joined(*this, place / width, place % width);
    const std::int64_t read_at = flips_weights ? window - 1 - place : place;
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::int64_t in = g * inputs, out = g * group_outputs;
      const std::vector<std::int64_t> own = counted(out * window + read_at, group_outputs, window);
      if (result == Result::y) {
        const Rows<float> right = gathered(filters, own, 0, inputs, true);
        add_products(lines(images, pairs.x, in), right.row(0), right.width, inputs, group_outputs,
                     lines(sums, pairs.y, out));
      } else if (result == Result::x) {
        const Rows<float> right = gathered(filters, own, 0, inputs, false);
        add_products(lines(gradients, pairs.y, out), right.row(0), right.width, group_outputs, inputs,
                     lines(sums, pairs.x, in));
      } else {
        Rows<float> left = gathered(gradients, pairs.y, out, group_outputs, true);
        const Rows<float> right = gathered(images, pairs.x, in, inputs, false);
        add_products(lines(left, counted(0, group_outputs, 1), 0), right.row(0), right.width, right.count,
                     inputs, lines(sums, own, 0));
      }
    }
  }
  void* const data = result == Result::y ? y_data : result == Result::x ? x_data : weight_data;
  write(*this, to, sums, data);
}

}  // namespace millrace::fakes
