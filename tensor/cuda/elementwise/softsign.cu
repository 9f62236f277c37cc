#include "tensor/cuda/elementwise.cuh"
#include "tensor/kernels/elementwise.h"

namespace millrace::cuda {

namespace {

template <typename S>
struct Softsign {
  __device__ S operator()(S x) const { return x / (S(1) + (x < S(0) ? -x : x)); }
};

template <typename S>
struct SoftsignBackward {
  __device__ S operator()(S grad, S out) const {
    const S slope = S(1) - (out < S(0) ? -out : out);
    return grad * slope * slope;
  }
};

}  // namespace

const KernelRow kSoftsign("softsign", cuda::softsign,
                          {{"x", takes::kFloat, Order::any, "out"}, {"out", takes::kFloat, Order::any}});
void softsign(const Tensor& x, Tensor& out) {
  kSoftsign.check({&x, &out});
  visit_floats(out.dtype(), "softsign",
               [&]<typename T>() { map<T, T>("softsign", Softsign<Scalar<T>>{}, out, x); });
}

const KernelRow kSoftsignBackward("softsign_backward", cuda::softsign_backward,
                                  {{"grad", takes::kFloat, Order::any, "grad_x"},
                                   {"out", takes::kFloat, Order::any, "grad_x"},
                                   {"grad_x", takes::kFloat, Order::any}});
void softsign_backward(const Tensor& grad, const Tensor& out, Tensor& grad_x) {
  kSoftsignBackward.check({&grad, &out, &grad_x});
  visit_floats(grad_x.dtype(), "softsign_backward", [&]<typename T>() {
    map<T, T, T>("softsign_backward", SoftsignBackward<Scalar<T>>{}, grad_x, grad, out);
  });
}

}  // namespace millrace::cuda
