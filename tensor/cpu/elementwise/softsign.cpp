#include "tensor/cpu/elementwise/map.h"
#include "tensor/kernels/elementwise.h"

namespace millrace::cpu {

void softsign(const Tensor& x, Tensor& out) {
  visit(out.dtype(), [&]<typename T>() {
    map<T>(
        [one = lane<T>(1)](auto v) {
          const decltype(v) size = v < 0 ? -v : v;
          return static_cast<decltype(v)>(v / (one + size));
        },
        out, x);
  });
}

void softsign_backward(const Tensor& grad, const Tensor& out, Tensor& grad_x) {
  visit(grad_x.dtype(), [&]<typename T>() {
    map<T>(
        [one = lane<T>(1)](auto g, auto y) {
          const decltype(y) slope = one - (y < 0 ? -y : y);
          return static_cast<decltype(g)>(g * slope * slope);
        },
        grad_x, grad, out);
  });
}

}  // namespace millrace::cpu
