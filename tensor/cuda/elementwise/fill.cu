#include "tensor/cuda/elementwise.cuh"
#include "tensor/kernels/elementwise.h"

namespace millrace::cuda {

namespace {

template <typename S>
struct Constant {
  S value;
  __device__ S operator()() const { return value; }
};

template <typename T>
__global__ void arange_kernel(double start, double step, std::int64_t count, T* out) {
  for (std::int64_t i : grid_range(count)) {
    out[i] = element<T>(start + static_cast<double>(i) * step);
  }
}

}  // namespace

const KernelRow kFill("fill", cuda::fill, {takes::any("out")});
void fill(Tensor& out, double value) {
  kFill.check({&out});
  visit_types(out.dtype(), [&]<typename T>() {
    using S = Scalar<T>;
    map<T>("fill", Constant<S>{to_float(element<T>(value))}, out);
  });
}

const KernelRow kArange("arange", cuda::arange, {{"out", takes::kAll, Order::row_major}});
void arange(double start, double step, Tensor& out) {
  kArange.check({&out});
  visit_types(out.dtype(), [&]<typename T>() {
    launch("arange", arange_kernel<T>, grid_for(out.numel()), stream_of(out), start, step, out.numel(),
           data_of<T>(out));
  });
}

}  // namespace millrace::cuda
