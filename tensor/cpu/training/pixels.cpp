#include "tensor/kernels/pixels.h"

#include <algorithm>

namespace millrace::cpu {

void normalize_pixels(const Tensor& pixels, const Tensor& scale, const Tensor& bias, Tensor& out) {
  const std::int64_t channels = pixels.size(1), places = pixels.numel() / std::max<std::int64_t>(channels, 1);
  const float *factor = scale.data<float>(), *offset = bias.data<float>();
  const auto* from = pixels.data<std::uint8_t>();
  visit(out.dtype(), [&]<typename T>() {
    auto* to = out.data<T>();
    for (std::int64_t i = 0; i < places; ++i) {
      for (std::int64_t c = 0; c < channels; ++c) {
        const float value = static_cast<float>(from[i * channels + c]) * factor[c] + offset[c];
        to[i * channels + c] = static_cast<T>(value);
      }
    }
  });
}

}  // namespace millrace::cpu
