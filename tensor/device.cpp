#include "tensor/device.h"

#include <charconv>

#include "tensor/device_memory.h"
#include "tensor/error.h"

namespace millrace {

std::string Device::to_string() const { return is_cpu() ? "cpu" : fmt::format("cuda:{}", index); }

Device Device::parse(std::string_view text) {
  if (text == "cpu") {
    return kCpu;
  }
  int index = 0;
  if (text != "cuda") {
    const bool has_index = text.starts_with("cuda:") && text.size() > 5;
    const auto [end, error] = has_index ? std::from_chars(text.data() + 5, text.data() + text.size(), index)
                                        : std::from_chars_result{text.data(), std::errc::invalid_argument};
    if (error != std::errc{} || end != text.data() + text.size() || index < 0) {
      throw InputError("device: got '{}', expected cpu, cuda or cuda:N", text);
    }
  }
  const int count = cuda_device_count();
  if (count == 0) {
    throw InputError("device: cannot use '{}': {}", text, cuda_unavailable_reason());
  }
  if (index >= count) {
    throw InputError("device: got '{}', but there are {} GPUs here (cuda:0 to cuda:{})", text, count,
                     count - 1);
  }
  return {Kind::cuda, index};
}

int cuda_device_count() {
  if constexpr (kWithCuda) {
    return cuda::device_count();
  }
  return 0;
}

std::string cuda_unavailable_reason() {
  if constexpr (kWithCuda) {
    return cuda::device_count() > 0 ? std::string() : cuda::unavailable_reason();
  }
  return "this build has no CUDA side (configure with -DMILLRACE_CUDA=ON)";
}

void Stream::synchronize() const {
  if constexpr (kWithCuda) {
    if (device_.is_cuda()) {
      cuda::synchronize(*this);
    }
  }
}

Stream current_stream(Device device) {
  if constexpr (kWithCuda) {
    if (device.is_cuda()) {
      return cuda::current_stream(device.index);
    }
  }
  return {device, nullptr};
}

}  // namespace millrace
