#pragma once

#include <dnnl.hpp>

#include "tensor/kept_weights.h"

namespace millrace {

/// The order and type in which a convolution reads its weights.
struct KeptWeights::Layout {
  dnnl::memory::desc desc;  ///< Of oneDNN; with any format, as Winograd's kernels read them.
  bool turned;              ///< In and out swapped, each kernel turned by half a circle.

  bool operator==(const Layout&) const = default;
};

}  // namespace millrace
