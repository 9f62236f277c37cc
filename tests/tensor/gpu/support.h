#pragma once

#include <cstring>
#include <functional>
#include <utility>

#include "on_cuda.h"
#include "tests/tensor/kernels/support.h"

/// Each kernel on the GPU against the CPU: the same call on both, twice on the GPU for the same bits.
namespace millrace {

using test::kGpu;
using CudaNetworkKernels = test::CudaTest;

inline constexpr DType kActivations[] = {DType::f32, DType::bf16, DType::f16};

using Tensors = std::vector<Tensor>;
/// Launches on `device`, from and into tensors that lie there.
using Launch = std::function<void(Device device, const Tensors& in, Tensors& out)>;

/// The CPU computes f16 in f32.
inline Tensor for_cpu(const Tensor& x) {
  return x.defined() && x.dtype() == DType::f16 ? x.to(DType::f32) : x;
}

inline Tensors on_gpu(const Tensors& tensors) {
  Tensors moved;
  for (const Tensor& tensor : tensors) {
    moved.push_back(tensor.defined() ? tensor.to(kGpu) : tensor);
  }
  return moved;
}

inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.strides() == b.strides() && a.dtype() == b.dtype() &&
         (a.numel() == 0 || std::memcmp(a.raw(), b.raw(), a.bytes()) == 0);
}

/// `out` says shapes and types, and holds what `launch` adds to, if it does; undefined tensors stay so. After
/// no `roundings` the values are the same.
inline void expect_like_cpu(const std::string& what, const Launch& launch, const Tensors& in,
                            const Tensors& out, double roundings = test::kPointwise) {
  Tensors cpu_in, expected;
  for (const Tensor& tensor : in) {
    cpu_in.push_back(for_cpu(tensor));
  }
  for (const Tensor& tensor : out) {
    expected.push_back(tensor.defined() ? for_cpu(tensor).clone() : tensor);
  }
  launch(kCpu, cpu_in, expected);
  const Tensors gpu_in = on_gpu(in);
  Tensors first = on_gpu(out), second = on_gpu(out);
  launch(kGpu, gpu_in, first);
  launch(kGpu, gpu_in, second);
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (!out[i].defined()) {
      continue;
    }
    const std::string name = what + " output " + std::to_string(i);
    const Tensor got = first[i].to(kCpu);
    test::expect_close(got, expected[i].to(got.dtype()),
                       test::rounded(test::computed_in(got.dtype()), roundings), name);
    EXPECT_TRUE(same_bits(got, second[i].to(kCpu))) << name << ": two runs differ";
  }
}

}  // namespace millrace
