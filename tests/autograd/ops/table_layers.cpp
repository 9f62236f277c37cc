#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numbers>

#include "base/philox.h"
#include "table.h"

namespace millrace::test {

namespace {

Array convolved(const Arrays& x, const Conv2dOptions& p, bool bias) {
  const Shape &in = x[0].shape, &w = x[1].shape;
  const auto count = [](std::int64_t size, std::int64_t kernel, std::int64_t stride, std::int64_t padding,
                        std::int64_t dilation) {
    return (size + 2 * padding - (kernel - 1) * dilation - 1) / stride + 1;
  };
  const Shape out{in[0], w[0], count(in[2], w[2], p.stride.height, p.padding.height, p.dilation.height),
                  count(in[3], w[3], p.stride.width, p.padding.width, p.dilation.width)};
  const std::int64_t out_per_group = w[0] / p.groups;
  return make(out, [&](const Shape& i) {
    double sum = bias ? x[2].at({i[1]}) : 0;
    for_each_index({w[1], w[2], w[3]}, [&](const Shape& k) {
      const std::int64_t h = i[2] * p.stride.height - p.padding.height + k[1] * p.dilation.height;
      const std::int64_t v = i[3] * p.stride.width - p.padding.width + k[2] * p.dilation.width;
      if (h < 0 || h >= in[2] || v < 0 || v >= in[3]) {
        return;
      }
      const std::int64_t channel = i[1] / out_per_group * w[1] + k[0];
      sum += x[0].at({i[0], channel, h, v}) * x[1].at({i[1], k[0], k[1], k[2]});
    });
    return sum;
  });
}

void add_conv2d(Table& table, const std::string& variant, const Shape& x, const Shape& weight,
                const Conv2dOptions& params, bool bias = true) {
  std::vector<Shape> shapes = {x, weight};
  if (bias) {
    shapes.push_back({weight[0]});
  }
  table.push_back({.op = "conv2d",
                   .variant = variant,
                   .shapes = shapes,
                   .run =
                       [params, bias](Inputs in) {
                         return bias ? conv2d(in[0], in[1], in[2], params) : conv2d(in[0], in[1], params);
                       },
                   .reference = [params, bias](const Arrays& in) { return convolved(in, params, bias); },
                   .f64 = false,
                   .f32_weights = true});
}

void add_conv2d_cases(Table& table) {
  add_conv2d(table, "plain", {2, 3, 6, 5}, {4, 3, 3, 3}, {});
  add_conv2d(table, "tutorial", {2, 3, 9, 9}, {6, 3, 5, 5}, {});
  add_conv2d(table, "one_pixel", {1, 1, 1, 1}, {1, 1, 1, 1}, {});
  add_conv2d(table, "pointwise", {2, 9, 3, 2}, {5, 9, 1, 1}, {}, false);
  add_conv2d(table, "padded", {2, 3, 4, 5}, {4, 3, 3, 3}, {.padding = 1}, false);
  add_conv2d(table, "strided", {1, 2, 7, 6}, {3, 2, 3, 2}, {.stride = {2, 3}, .padding = {1, 0}});
  add_conv2d(table, "dilated", {1, 2, 7, 7}, {3, 2, 3, 3}, {.padding = 2, .dilation = 2});
  add_conv2d(table, "groups", {2, 4, 4, 4}, {6, 2, 3, 3}, {.padding = 1, .groups = 2});
  add_conv2d(table, "depthwise", {2, 3, 4, 4}, {3, 1, 3, 3}, {.padding = 1, .groups = 3});
  add_conv2d(table, "sixteen_channels", {2, 16, 3, 3}, {16, 16, 3, 3}, {.padding = 1}, false);
}

/// The reference of a pooling: `f` over the values of each window.
Array pooled(const Array& x, const Shape& out,
             const std::function<std::pair<std::int64_t, std::int64_t>(int, std::int64_t)>& window,
             const std::function<double(const std::vector<double>&, std::int64_t)>& f) {
  return make(out, [&](const Shape& i) {
    const auto [top, bottom] = window(2, i[2]);
    const auto [left, right] = window(3, i[3]);
    std::vector<double> values;
    for (std::int64_t h = std::max<std::int64_t>(top, 0); h < std::min(bottom, x.shape[2]); ++h) {
      for (std::int64_t w = std::max<std::int64_t>(left, 0); w < std::min(right, x.shape[3]); ++w) {
        values.push_back(x.at({i[0], i[1], h, w}));
      }
    }
    return f(values, (bottom - top) * (right - left));
  });
}

double largest(const std::vector<double>& values, std::int64_t) { return *std::ranges::max_element(values); }

double average(const std::vector<double>& values, std::int64_t places) {  // padding counts
  double sum = 0;
  for (double value : values) {
    sum += value;
  }
  return sum / static_cast<double>(places);
}

void add_pool(Table& table, const std::string& variant, const Shape& x, const Pool2dOptions& o) {
  const Size2 stride(o.stride.height == 0 ? o.kernel.height : o.stride.height,
                     o.stride.width == 0 ? o.kernel.width : o.stride.width);
  const Shape out{x[0], x[1], (x[2] + 2 * o.padding.height - o.kernel.height) / stride.height + 1,
                  (x[3] + 2 * o.padding.width - o.kernel.width) / stride.width + 1};
  const auto window = [o, stride](int dim, std::int64_t i) {
    const std::int64_t start =
        dim == 2 ? i * stride.height - o.padding.height : i * stride.width - o.padding.width;
    return std::pair(start, start + (dim == 2 ? o.kernel.height : o.kernel.width));
  };
  table.push_back({.op = "max_pool2d",
                   .variant = variant,
                   .shapes = {x},
                   .run = [o](Inputs in) { return max_pool2d(in[0], o); },
                   .reference = [=](const Arrays& in) { return pooled(in[0], out, window, largest); },
                   .f64 = false});
  table.push_back({.op = "avg_pool2d",
                   .variant = variant,
                   .shapes = {x},
                   .run = [o](Inputs in) { return avg_pool2d(in[0], o); },
                   .reference = [=](const Arrays& in) { return pooled(in[0], out, window, average); },
                   .f64 = false});
}

void add_adaptive_pool(Table& table, const std::string& variant, const Shape& x, Size2 output) {
  const Shape out{x[0], x[1], output.height, output.width};
  const auto window = [x, out](int dim, std::int64_t i) {
    return std::pair(i * x[dim] / out[dim], ((i + 1) * x[dim] + out[dim] - 1) / out[dim]);
  };
  table.push_back({.op = "adaptive_max_pool2d",
                   .variant = variant,
                   .shapes = {x},
                   .run = [output](Inputs in) { return adaptive_max_pool2d(in[0], output); },
                   .reference = [=](const Arrays& in) { return pooled(in[0], out, window, largest); },
                   .f64 = false});
  table.push_back({.op = "adaptive_avg_pool2d",
                   .variant = variant,
                   .shapes = {x},
                   .run = [output](Inputs in) { return adaptive_avg_pool2d(in[0], output); },
                   .reference = [=](const Arrays& in) { return pooled(in[0], out, window, average); },
                   .f64 = false});
}

void add_pool_cases(Table& table) {
  add_pool(table, "two", {2, 3, 4, 6}, {.kernel = 2});
  add_pool(table, "two_with_rest", {1, 9, 5, 3}, {.kernel = 2});
  add_pool(table, "overlapping", {2, 3, 5, 5}, {.kernel = 3, .stride = 2, .padding = 1});
  add_pool(table, "rectangle", {1, 2, 4, 7}, {.kernel = {2, 3}, .stride = {1, 2}, .padding = {0, 1}});
  add_pool(table, "one_pixel", {1, 1, 1, 1}, {.kernel = 1});
  add_pool(table, "whole_image", {1, 1, 17, 16}, {.kernel = {17, 16}});  // more places than a byte counts
  add_adaptive_pool(table, "one", {2, 3, 4, 3}, 1);
  add_adaptive_pool(table, "uneven", {1, 5, 5, 7}, {2, 3});
  add_adaptive_pool(table, "growing", {1, 2, 2, 2}, {3, 2});
}

Array normalized(const Arrays& x, const Array* mean, const Array* var, bool affine, double eps) {
  const Shape& shape = x[0].shape;
  return make(shape, [&](const Shape& i) {
    double m = 0, v = 0;
    if (mean != nullptr) {
      m = mean->at({i[1]});
      v = var->at({i[1]});
    } else {
      double count = 0;
      const auto over_channel = [&](auto&& f) {
        for_each_index(shape, [&](const Shape& j) {
          if (j[1] == i[1]) {
            f(x[0].at(j));
          }
        });
      };
      over_channel([&](double value) {
        m += value;
        ++count;
      });
      m /= count;
      over_channel([&](double value) { v += (value - m) * (value - m) / count; });
    }
    const double y = (x[0].at(i) - m) / std::sqrt(v + eps);
    return affine ? y * x[1].at({i[1]}) + x[2].at({i[1]}) : y;
  });
}

Array activated(Array z, Activation activation) {
  for (double& value : z.values) {
    value = activation == Activation::relu   ? std::max(value, 0.0)
            : activation == Activation::gelu ? 0.5 * value * std::erfc(-value / std::numbers::sqrt2)
                                             : value;
  }
  return z;
}

void add_batch_norm(Table& table, const std::string& variant, const Shape& shape, bool affine,
                    Activation activation = Activation::none) {
  std::vector<Shape> shapes = {shape};
  if (affine) {
    shapes.insert(shapes.end(), 2, Shape{shape[1]});
  }
  Array mean(Shape{shape[1]}), var(Shape{shape[1]});
  for (std::int64_t c = 0; c < shape[1]; ++c) {
    mean.at({c}) = 0.25 * static_cast<double>(c % 3);
    var.at({c}) = 0.5 + 0.25 * static_cast<double>(c % 5);
  }
  const auto run = [affine, activation](Inputs in, BatchNormOptions options) {
    options.activation = activation;
    return (affine ? batch_norm(in[0], in[1], in[2], options) : batch_norm(in[0], {}, {}, options)).out;
  };
  table.push_back({.op = "batch_norm",
                   .variant = variant,
                   .shapes = shapes,
                   .run = [run](Inputs in) { return run(in, {}); },
                   .reference =
                       [affine, activation](const Arrays& in) {
                         return activated(normalized(in, nullptr, nullptr, affine, 1e-5), activation);
                       },
                   .f64 = false,
                   .f32_weights = true});
  table.push_back(
      {.op = "batch_norm",
       .variant = variant + "_running",
       .shapes = shapes,
       .run =
           [run, mean, var](Inputs in) {
             const auto on_device = [&](const Array& array) {
               Tensor values = empty(array.shape);
               for (std::int64_t c = 0; c < array.shape[0]; ++c) {
                 values.set({c}, array.at({c}));
               }
               return values.to(in[0].device());
             };
             return run(in, {.training = false, .mean = on_device(mean), .var = on_device(var)});
           },
       .reference =
           [=](const Arrays& in) { return activated(normalized(in, &mean, &var, affine, 1e-5), activation); },
       .f64 = false,
       .f32_weights = true});
}

void add_residual(Table& table, const std::string& variant, const Shape& shape) {
  table.push_back({.op = "batch_norm",
                   .variant = variant,
                   .shapes = {shape, {shape[1]}, {shape[1]}, shape},
                   .run =
                       [](Inputs in) {
                         const BatchNormOptions options{.activation = Activation::relu};
                         return batch_norm(in[0], in[1], in[2], options, to(in[3], in[0].dtype())).out;
                       },
                   .reference =
                       [](const Arrays& in) {
                         Array sum = normalized(in, nullptr, nullptr, true, 1e-5);
                         std::ranges::transform(sum.values, in[3].values, sum.values.begin(), std::plus());
                         return activated(sum, Activation::relu);
                       },
                   .f64 = false,
                   .f32_weights = true});
}

void add_pad(Table& table, const std::string& variant, const Shape& x, const Pad2d& pad, PadMode mode) {
  const Shape out{x[0], x[1], x[2] + pad.top + pad.bottom, x[3] + pad.left + pad.right};
  const auto reflect = [](std::int64_t i, std::int64_t size) {
    return i < 0 ? -i : i >= size ? 2 * (size - 1) - i : i;
  };
  table.push_back({.op = "pad2d",
                   .variant = variant,
                   .shapes = {x},
                   .run = [pad, mode](Inputs in) { return pad2d(in[0], pad, mode); },
                   .reference =
                       [=](const Arrays& in) {
                         return make(out, [&](const Shape& i) {
                           std::int64_t h = i[2] - pad.top, w = i[3] - pad.left;
                           if (mode == PadMode::reflect) {
                             h = reflect(h, x[2]);
                             w = reflect(w, x[3]);
                           }
                           const bool inside = h >= 0 && h < x[2] && w >= 0 && w < x[3];
                           return inside ? in[0].at({i[0], i[1], h, w}) : 0.0;
                         });
                       },
                   .f64 = false});
}

void add_dropout(Table& table, const std::string& variant, const Shape& x, double p, std::uint64_t first) {
  constexpr std::uint64_t kKey = 0x1234567890abcdefu;
  table.push_back({.op = "dropout",
                   .variant = variant,
                   .shapes = {x},
                   .run = [=](Inputs in) { return dropout(in[0], p, kKey, first); },
                   .reference =
                       [=](const Arrays& in) {
                         Array out(x);
                         for (std::size_t i = 0; i < out.values.size(); ++i) {
                           const std::uint64_t place = first + i;
                           const auto words = philox(
                               {static_cast<std::uint32_t>(place / 4), 0, 0, 0},
                               {static_cast<std::uint32_t>(kKey), static_cast<std::uint32_t>(kKey >> 32)});
                           const bool keep = to_unit_float(words[place % 4]) >= static_cast<float>(p);
                           out.values[i] = keep ? in[0].values[i] / (1 - p) : 0;
                         }
                         return out;
                       }});
}

void add_product(Table& table, const std::string& variant, const Shape& a, const Shape& b, const Shape& out) {
  table.push_back({.op = "matmul",
                   .variant = variant,
                   .shapes = {a, b},
                   .run = [](Inputs in) { return matmul(in[0], in[1]); },
                   .reference =
                       [=](const Arrays& in) {
                         // Vectors as matrices of one row or column; the result's indices then miss a
                         // dimension.
                         Array left = in[0], right = in[1];
                         if (a.size() == 1) {
                           left.shape = {1, a[0]};
                         }
                         if (b.size() == 1) {
                           right.shape = {b[0], 1};
                         }
                         return make(out, [&](Shape i) {
                           if (a.size() == 1) {
                             i.insert(i.size() - (b.size() == 1 ? 0 : 1), 0);
                           }
                           if (b.size() == 1) {
                             i.push_back(0);
                           }
                           double sum = 0;
                           for (std::int64_t k = 0; k < a[-1]; ++k) {
                             sum += left.at(with(i, i.size() - 1, k)) * right.at(with(i, i.size() - 2, k));
                           }
                           return sum;
                         });
                       }});
}

void add_linear(Table& table, const std::string& variant, std::int64_t n, std::int64_t in, std::int64_t out,
                bool bias) {
  std::vector<Shape> shapes = {{n, in}, {out, in}};
  if (bias) {
    shapes.push_back({out});
  }
  table.push_back({.op = "linear",
                   .variant = variant,
                   .shapes = shapes,
                   .run = [bias](Inputs x) { return linear(x[0], x[1], bias ? x[2] : Variable()); },
                   .reference =
                       [=](const Arrays& x) {
                         return make({n, out}, [&](const Shape& i) {
                           double sum = bias ? x[2].at({i[1]}) : 0;
                           for (std::int64_t k = 0; k < in; ++k) {
                             sum += x[0].at({i[0], k}) * x[1].at({i[1], k});
                           }
                           return sum;
                         });
                       },
                   .f32_weights = true});
}

}  // namespace

void add_layer_cases(Table& table) {
  add_product(table, "matrices", {3, 5}, {5, 4}, {3, 4});
  add_product(table, "one", {1, 1}, {1, 1}, {1, 1});
  add_product(table, "batches", {2, 3, 5}, {2, 5, 4}, {2, 3, 4});
  add_product(table, "one_for_all", {2, 3, 5}, {5, 4}, {2, 3, 4});
  add_product(table, "broadcast_batches", {1, 3, 5}, {2, 5, 4}, {2, 3, 4});
  add_product(table, "vectors", {5}, {5}, {});
  add_product(table, "row", {5}, {5, 4}, {4});
  add_product(table, "column", {3, 5}, {5}, {3});
  add_product(table, "row_of_batches", {5}, {2, 5, 4}, {2, 4});
  add_product(table, "column_of_batches", {2, 3, 5}, {5}, {2, 3});
  add_linear(table, "bias", 3, 7, 5, true);
  add_linear(table, "no_bias", 3, 7, 5, false);
  add_linear(table, "one", 1, 1, 1, true);
  add_conv2d_cases(table);
  add_pool_cases(table);
  add_batch_norm(table, "image", {3, 5, 2, 3}, true);
  add_batch_norm(table, "image_gelu", {3, 21, 2, 3}, true, Activation::gelu);
  add_batch_norm(table, "wide_gelu", {2, 83, 1, 2}, false, Activation::gelu);
  add_batch_norm(table, "image_relu", {3, 19, 3, 2}, true, Activation::relu);
  add_batch_norm(table, "plain", {2, 17, 2, 2}, false);
  add_batch_norm(table, "features", {6, 3}, true);
  add_residual(table, "residual", {3, 19, 3, 2});
  add_residual(table, "residual_features", {6, 3});
  add_pad(table, "zero", {2, 3, 2, 3}, {.left = 1, .right = 2, .top = 3, .bottom = 0}, PadMode::zero);
  add_pad(table, "reflect", {1, 9, 4, 3}, {.left = 2, .right = 1, .top = 0, .bottom = 3}, PadMode::reflect);
  add_dropout(table, "image", {2, 3, 3, 5}, 0.3, 0);
  add_dropout(table, "shifted", {3, 7}, 0.5, 1000003);
}

}  // namespace millrace::test
