#include "nn/layers/convolution.h"

#include "nn/init.h"

namespace millrace::nn {

Conv2d::Conv2d(std::int64_t in, std::int64_t out, const Conv2dOptions& options) : options_(options) {
  if (in < 1 || out < 1 || options.kernel.height < 1 || options.kernel.width < 1) {
    throw InputError("Conv2d: got {} to {} channels with kernel {}, expected positive numbers", in, out,
                     to_string(options.kernel));
  }
  if (options.groups < 1 || in % options.groups != 0 || out % options.groups != 0) {
    throw InputError("Conv2d: got groups = {}, which does not divide {} and {} channels", options.groups, in,
                     out);
  }
  Tensor value = empty({out, in / options.groups, options.kernel.height, options.kernel.width});
  const std::int64_t fan_in = fans_of(value.shape()).in;
  init_default(value, fan_in);
  weight = add_parameter("weight", value);
  if (options.bias) {
    Tensor offsets = empty({out});
    init_default(offsets, fan_in);
    bias = add_parameter("bias", offsets);
  }
}

Variable Conv2d::forward(const Variable& x) { return conv2d(x, weight, bias, options_); }

std::string Conv2d::describe() const {
  const Shape& shape = weight.shape();
  std::string text = fmt::format("{}({}, {}, kernel_size={}, stride={}", kind(), shape[1] * options_.groups,
                                 shape[0], to_string({shape[2], shape[3]}), to_string(options_.stride));
  if (options_.padding != Size2(0)) {
    text += fmt::format(", padding={}", to_string(options_.padding));
  }
  if (options_.dilation != Size2(1)) {
    text += fmt::format(", dilation={}", to_string(options_.dilation));
  }
  if (options_.groups != 1) {
    text += fmt::format(", groups={}", options_.groups);
  }
  if (!bias.defined()) {
    text += ", bias=False";
  }
  if (options_.max_pool) {
    text += ", max_pool=True";
  }
  return text + ")";
}

}  // namespace millrace::nn
