#include "nn/layers/linear.h"

#include "nn/init.h"

namespace millrace::nn {

Linear::Linear(std::int64_t in, std::int64_t out, const LinearOptions& options) {
  if (in < 1 || out < 1) {
    throw InputError("Linear: got {} to {} features, expected positive numbers", in, out);
  }
  Tensor value = empty({out, in});
  init_default(value, in);
  weight = add_parameter("weight", value);
  if (options.bias) {
    Tensor offsets = empty({out});
    init_default(offsets, in);
    bias = add_parameter("bias", offsets);
  }
}

std::string Linear::describe() const {
  return fmt::format("{} ({} -> {}{})", kind(), weight.size(1), weight.size(0),
                     bias.defined() ? "" : ", bias=False");
}

}  // namespace millrace::nn
