#include "nn/layers/pooling.h"

namespace millrace::nn {

namespace {

std::string describe_pool(const Module& module, const Pool2dOptions& options) {
  std::string text = fmt::format("{}(kernel_size={}, stride={}", module.kind(), to_string(options.kernel),
                                 to_string(options.step()));
  if (options.padding != Size2(0)) {
    text += fmt::format(", padding={}", to_string(options.padding));
  }
  return text + ")";
}

}  // namespace

std::string MaxPool2d::describe() const { return describe_pool(*this, options_); }
std::string AvgPool2d::describe() const { return describe_pool(*this, options_); }
std::string AdaptiveMaxPool2d::describe() const { return fmt::format("{}({})", kind(), to_string(output_)); }
std::string AdaptiveAvgPool2d::describe() const { return fmt::format("{}({})", kind(), to_string(output_)); }

}  // namespace millrace::nn
