#include "tensor/cuda/elementwise.cuh"
#include "tensor/kernels/elementwise.h"
#include "tensor/kernels/visit_size.h"

namespace millrace::cuda {

namespace {

template <typename S>
struct Comparison {
  CompareOp op;

  __device__ std::uint8_t operator()(S a, S b) const {
    switch (op) {
      case CompareOp::equal:
        return a == b;
      case CompareOp::not_equal:
        return a != b;
      case CompareOp::less:
        return a < b;
      case CompareOp::less_equal:
        return a <= b;
      case CompareOp::greater:
        return a > b;
      default:
        return a >= b;
    }
  }
};

template <typename Bits>
struct Choice {
  __device__ Bits operator()(std::uint8_t condition, Bits a, Bits b) const { return condition != 0 ? a : b; }
};

}  // namespace

const KernelRow kCompare("compare", cuda::compare,
                         {{"a", takes::kAll, Order::any},
                          {"b", takes::kAll, Order::any, "a"},
                          {"out", takes::kU8, Order::any}});
void compare(CompareOp op, const Tensor& a, const Tensor& b, Tensor& out) {
  kCompare.check({&a, &b, &out});
  visit_types(a.dtype(), [&]<typename T>() {
    map<std::uint8_t, T, T>("compare", Comparison<Scalar<T>>{op}, out, a, b);
  });
}

const KernelRow kWhere(
    "where", cuda::where,
    {{"condition", takes::kU8, Order::any}, takes::like_out("a"), takes::like_out("b"), takes::any("out")});
void where(const Tensor& condition, const Tensor& a, const Tensor& b, Tensor& out) {
  kWhere.check({&condition, &a, &b, &out});
  visit_size(size_of(out.dtype()), [&]<typename Bits>() {
    map<Bits, std::uint8_t, Bits, Bits>("where", Choice<Bits>{}, out, condition, a, b);
  });
}

}  // namespace millrace::cuda
