#include <gmock/gmock.h>

#include "autograd/ops.h"

namespace millrace {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr Device kGpu{Device::Kind::cuda, 0};

Variable on(Device device, const Shape& shape) { return Variable(ones(shape, {.device = device})); }

/// Kernels and libraries get addresses alone: one of the other device would end the GPU's work.
TEST(CudaOperands, HaveToLieOnOneDevice) {
  if (cuda_device_count() == 0) {
    GTEST_SKIP() << cuda_unavailable_reason();
  }
  const auto normalize = [](Device vector, Device statistics, Device residual) {
    const BatchNormOptions options{.training = false,
                                   .activation = Activation::relu,
                                   .mean = zeros({3}, {.device = statistics}),
                                   .var = ones({3}, {.device = statistics})};
    batch_norm(on(kGpu, {2, 3, 4, 4}), on(vector, {3}), on(vector, {3}), options, on(residual, {2, 3, 4, 4}));
  };
  EXPECT_NO_THROW(normalize(kGpu, kGpu, kGpu));
  const std::pair<const char*, std::function<void()>> mixed[] = {
      {"linear",
       [] {
         linear(on(kGpu, {2, 3}), on(kCpu, {4, 3}), Variable());
       }},
      {"linear",
       [] {
         linear(on(kGpu, {2, 3}), on(kGpu, {4, 3}), on(kCpu, {4}));
       }},
      {"conv2d",
       [] {
         conv2d(on(kGpu, {1, 3, 5, 5}), on(kCpu, {4, 3, 3, 3}), Variable(), {});
       }},
      {"conv2d",
       [] {
         conv2d(on(kGpu, {1, 3, 5, 5}), on(kGpu, {4, 3, 3, 3}), on(kCpu, {4}), {});
       }},
      {"batch_norm", [&] { normalize(kCpu, kGpu, kGpu); }},
      {"batch_norm", [&] { normalize(kGpu, kCpu, kGpu); }},
      {"batch_norm", [&] { normalize(kGpu, kGpu, kCpu); }},
      {"cross_entropy",
       [] {
         cross_entropy(on(kGpu, {2, 3}), zeros({2}, {.dtype = DType::i64}));
       }},
  };
  for (const auto& [operation, run] : mixed) {
    EXPECT_THAT(run, ThrowsMessage<InputError>(HasSubstr(
                         std::string(operation) + ": got tensors on cuda:0 and cpu, expected one device")));
  }
}

}  // namespace
}  // namespace millrace
