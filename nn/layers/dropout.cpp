#include "nn/layers/dropout.h"

#include "base/philox.h"
#include "nn/step_context.h"

namespace millrace::nn {

Dropout::Dropout(double p) : p_(p) {
  if (!(p >= 0 && p < 1)) {
    throw InputError("Dropout: got p = {}, expected a probability in [0, 1)", p);
  }
}

Variable Dropout::forward(const Variable& x) {
  if (!is_training() || p_ == 0) {
    return x;
  }
  StepContext& context = step_context();
  const std::uint64_t key = mix(mix(context.seed, context.step), context.layer++);
  const std::int64_t elements = x.size(0) > 0 ? x.data().numel() / x.size(0) : 0;
  return dropout(x, p_, key, static_cast<std::uint64_t>(context.first_sample * elements));
}

std::string Dropout::describe() const { return fmt::format("{}(p={})", kind(), p_); }

}  // namespace millrace::nn
