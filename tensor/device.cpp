#include "tensor/device.h"

#include <charconv>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "tensor/config.h"
#include "tensor/device_memory.h"

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

std::vector<Device> parse_devices(std::string_view text) {
  std::vector<Device> devices{Device::parse(text)};
  for (int i = 1; text == "cuda" && i < cuda_device_count(); ++i) {
    devices.push_back({Device::Kind::cuda, i});
  }
  return devices;
}

std::string to_string(std::span<const Device> devices) {
  std::string names;
  for (std::size_t i = 0; i < devices.size(); ++i) {
    if (i == 0 || devices[i] != devices[i - 1]) {
      names += (i == 0 ? "" : ", ") + devices[i].to_string();
    }
  }
  return names;
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

Stream Stream::make(Device device) {
  Stream stream(device, nullptr);
  if constexpr (kWithCuda) {
    if (device.is_cuda()) {
      std::tie(stream.native_, stream.owner_) = cuda::take_stream(device.index);
    }
  }
  return stream;
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

StreamGuard::StreamGuard(const Stream& stream) : stream_(stream) {
  if constexpr (kWithCuda) {
    if (stream_.device().is_cuda()) {
      before_ = cuda::exchange_current_stream(stream_.device().index, stream_.native());
    }
  }
}

StreamGuard::~StreamGuard() {
  if constexpr (kWithCuda) {
    if (stream_.device().is_cuda()) {
      cuda::exchange_current_stream(stream_.device().index, before_);
    }
  }
}

Event::~Event() {
  if constexpr (kWithCuda) {
    if (native_ != nullptr) {
      cuda::destroy_event(native_);
    }
  }
}

Event::Event(Event&& other) noexcept
    : device_(other.device_), native_(std::exchange(other.native_, nullptr)) {}

Event& Event::operator=(Event&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(native_, other.native_);
  return *this;
}

void Event::record(const Stream& stream) {
  if constexpr (kWithCuda) {
    if (native_ != nullptr && stream.device() != device_) {  // an event belongs to one device
      cuda::destroy_event(std::exchange(native_, nullptr));
    }
    device_ = stream.device();
    if (device_.is_cuda()) {
      cuda::record_event(native_, stream);
    }
  }
}

void Event::make_wait(const Stream& stream) const {
  if constexpr (kWithCuda) {
    if (native_ != nullptr && stream.device().is_cuda()) {
      cuda::wait_for_event(native_, stream);
    }
  }
}

bool Event::is_done() const {
  if constexpr (kWithCuda) {
    return native_ == nullptr || cuda::is_event_done(native_, device_.index);
  }
  return true;
}

void Event::synchronize() const {
  await();
  if constexpr (kWithCuda) {
    if (native_ != nullptr) {
      cuda::throw_fault(device_.index);
    }
  }
}

void Event::await() const {
  if constexpr (kWithCuda) {
    if (!is_done()) {
      cuda::await_event(native_, device_.index);
    }
  }
}

}  // namespace millrace
