#include "tensor/kernels/options.h"

#include <fmt/format.h>

namespace millrace {

std::string to_string(Size2 size) { return fmt::format("({}, {})", size.height, size.width); }

}  // namespace millrace
