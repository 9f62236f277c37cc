// In place of cuDNN and cuBLASLt: the CPU's kernels on the emulated memory, in stream order.
#include <fmt/format.h>

#include "internal.h"
#include "tensor/cuda/runtime.h"
#include "tensor/kernels.h"

namespace millrace::cuda {
namespace {

/// What a stream needs to find the tensor again, without keeping its memory.
struct View {
  explicit View(const Tensor& tensor)
      : data(tensor.raw()),
        shape(tensor.shape()),
        strides(tensor.strides()),
        dtype(tensor.dtype()),
        defined(tensor.defined()) {}
  Tensor tensor() const { return defined ? from_blob(data, shape, strides, {.dtype = dtype}, {}) : Tensor(); }

  std::byte* data;
  Shape shape;
  Strides strides;
  DType dtype;
  bool defined;
};

/// The CPU keeps f16 but does not compute in it.
Tensor readable(const Tensor& tensor) {
  return tensor.defined() && tensor.dtype() == DType::f16 ? tensor.to(DType::f32) : tensor;
}

/// Calls `f` with CPU tensors over the memory of `inputs`, then of `outputs`, when out's stream gets there.
template <std::size_t Inputs, std::size_t Outputs, typename F>
void enqueue(const Tensor (&inputs)[Inputs], const Tensor (&outputs)[Outputs], F f) {
  std::vector<View> from(std::begin(inputs), std::end(inputs)), to(std::begin(outputs), std::end(outputs));
  stream_of(outputs[0])->push([from, to, f] {
    std::vector<Tensor> in, wanted, out;
    for (const View& view : from) {
      in.push_back(readable(view.tensor()));
    }
    for (const View& view : to) {
      wanted.push_back(view.tensor());
      out.push_back(readable(wanted.back()));
    }
    f(in, out);
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (wanted[i].defined() && wanted[i].dtype() == DType::f16) {
        wanted[i].copy_(out[i]);
      }
    }
  });
}

using Tensors = std::vector<Tensor>;

}  // namespace

std::string describe_libraries() { return "CUDA emulated on host threads"; }

void matmul(const Tensor& a, const Tensor& b, const Tensor& bias, Tensor& out) {
  enqueue({a, b, bias}, {out},
          [](const Tensors& in, Tensors& to) { cpu::matmul(in[0], in[1], in[2], to[0]); });
}

void conv2d_forward(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dParams& params,
                    Tensor& out) {
  enqueue({x, weight, bias}, {out}, [params](const Tensors& in, Tensors& to) {
    cpu::conv2d_forward(in[0], in[1], in[2], params, to[0]);
  });
}

void conv2d_backward_data(const Tensor& grad, const Tensor& weight, const Conv2dParams& params,
                          Tensor& grad_x) {
  enqueue({grad, weight}, {grad_x}, [params](const Tensors& in, Tensors& to) {
    cpu::conv2d_backward_data(in[0], in[1], params, to[0]);
  });
}

void conv2d_backward_weight(const Tensor& x, const Tensor& grad, const Conv2dParams& params,
                            Tensor& grad_weight, Tensor& grad_bias) {
  enqueue({x, grad}, {grad_weight, grad_bias}, [params, dtype = x.dtype()](const Tensors& in, Tensors& to) {
    cpu::conv2d_backward_weight(in[0], in[1], params, to[0], to[1]);
    to[0].copy_(to[0].to(dtype));  // what cuDNN writes, with f16's largest number
  });
}

}  // namespace millrace::cuda
