#pragma once

#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <string_view>
#include <vector>

#include "bounds.h"
#include "tests/tensor/sample.h"

/// Tests that run a kernel on a GPU (or an emulated one) and compare it with the CPU's.
namespace millrace::test {

inline constexpr Device kGpu{Device::Kind::cuda, 0};

/// Skips, with the reason, where there is no GPU.
class CudaTest : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) {
      GTEST_SKIP() << cuda_unavailable_reason();
    }
  }
};

/// The same view of the same memory on the GPU, gaps included.
inline Tensor moved(const Tensor& x) {
  const auto count = static_cast<std::int64_t>(x.storage()->bytes() / size_of(x.dtype()));
  const Tensor memory = from_blob(x.storage()->data(), {count}, {.dtype = x.dtype()});
  return {memory.to(kGpu).storage(), x.offset(), x.shape(), x.strides(), x.dtype()};
}

/// Elements may differ by `tolerance` of their own size plus the mean size of all; unless it is 0, a half
/// type may also round them the other way.
inline void expect_close(const Tensor& got, const Tensor& expected, double tolerance, std::string_view what) {
  ASSERT_EQ(got.shape(), expected.shape()) << what;
  const std::vector<double> found = test::values(got.to(kCpu)), wanted = test::values(expected.to(kCpu));
  double mean = 0;
  for (const double value : wanted) {
    mean += std::isfinite(value) ? std::abs(value) / static_cast<double>(wanted.size()) : 0;
  }
  const double stored =
      tolerance == 0 || got.dtype() == computed_in(got.dtype()) ? 0 : rounded(got.dtype(), 2);
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const bool same = found[i] == wanted[i] || (std::isnan(found[i]) && std::isnan(wanted[i]));
    const double size = std::isfinite(wanted[i]) ? std::abs(wanted[i]) : 0;
    ASSERT_TRUE(same || std::abs(found[i] - wanted[i]) <= stored * size + tolerance * (size + mean))
        << what << ": element " << i << " is " << found[i] << ", expected " << wanted[i] << ", seed "
        << seed();
  }
}

}  // namespace millrace::test
