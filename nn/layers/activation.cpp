#include "nn/layers/activation.h"

namespace millrace::nn {

std::string Softmax::describe() const { return fmt::format("{}(dim={})", kind(), dim_); }
std::string LogSoftmax::describe() const { return fmt::format("{}(dim={})", kind(), dim_); }

}  // namespace millrace::nn
