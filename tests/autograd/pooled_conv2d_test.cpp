// A convolution that knows of the pooling behind it computes less, and what the pooling gives is the same.
#include <gtest/gtest.h>

#include "autograd/ops.h"
#include "tensor/random.h"

namespace millrace {
namespace {

struct Layer {
  Shape x, weight;
  Conv2dParams params;
  Shape out;  ///< What is computed of the convolution.
};

std::vector<Layer> layers() {
  return {
      {{2, 24, 31, 31}, {64, 24, 3, 3}, {.padding = 1, .pooled_by = 2}, {2, 64, 30, 30}},
      {{3, 64, 15, 15}, {64, 64, 3, 3}, {.padding = 1, .pooled_by = 2}, {3, 64, 14, 14}},
      {{2, 64, 7, 7}, {96, 64, 3, 3}, {.padding = 1, .pooled_by = 2}, {2, 96, 6, 6}},
      {{2, 3, 8, 7}, {5, 3, 3, 3}, {.padding = 1, .pooled_by = 2}, {2, 5, 8, 6}},
      {{1, 2, 11, 11}, {3, 2, 3, 3}, {.padding = 2, .pooled_by = 3}, {1, 3, 12, 12}},   // one of 13
      {{1, 2, 9, 9}, {3, 2, 3, 3}, {.padding = 1, .pooled_by = {3, 4}}, {1, 3, 9, 8}},  // one axis
      {{1, 2, 8, 8}, {3, 2, 3, 3}, {.padding = 1, .pooled_by = 3}, {1, 3, 8, 8}},  // two: more than padding
      {{2, 3, 9, 9}, {5, 3, 3, 3}, {.pooled_by = 2}, {2, 5, 7, 7}},                // no padding
      {{2, 3, 9, 9}, {5, 3, 3, 3}, {.stride = 2, .padding = 1, .pooled_by = 2}, {2, 5, 5, 5}},
  };
}

/// The convolution and the pooling behind it, and their gradients, with and without knowing.
struct Results {
  Shape computed;
  Tensor out, grad_x, grad_weight;
  Results(const Layer& layer, const Tensor& x_data, const Tensor& weight_data, const Conv2dParams& params) {
    const Variable x(x_data.clone(), true), weight(weight_data.clone(), true);
    const Variable convolved = conv2d(x, weight, params);
    const Variable pooled = max_pool2d(convolved, {.kernel = layer.params.pooled_by});
    sum(pooled * pooled).backward();
    computed = convolved.shape();
    out = pooled.data(), grad_x = x.grad(), grad_weight = weight.grad();
  }
};

void expect_close(const Tensor& got, const Tensor& expected, const char* what) {
  ASSERT_EQ(got.shape(), expected.shape()) << what;
  const double largest = max(abs(expected)).item();
  EXPECT_GT(largest, 0) << what;
  EXPECT_LE(max(abs(got - expected)).item(), 1e-5 * largest) << what;
}

TEST(PooledConv2d, GivesWhatTheWholeOneGives) {
  Generator generator(11);
  for (const Layer& layer : layers()) {
    SCOPED_TRACE(fmt::format("input {}, weight {}", layer.x, layer.weight));
    const Tensor x = randn(layer.x, generator), weight = randn(layer.weight, generator);
    Conv2dParams whole = layer.params;
    whole.pooled_by = 1;
    const Results got(layer, x, weight, layer.params), expected(layer, x, weight, whole);
    EXPECT_EQ(got.computed, layer.out);
    expect_close(got.out, expected.out, "out");
    expect_close(got.grad_x, expected.grad_x, "grad_x");
    expect_close(got.grad_weight, expected.grad_weight, "grad_weight");
  }
}

}  // namespace
}  // namespace millrace
