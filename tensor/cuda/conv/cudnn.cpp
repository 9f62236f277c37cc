#include "tensor/cuda/conv/cudnn.h"

#include <array>
#include <fmt/format.h>
#include <map>
#include <memory>

namespace millrace::cuda::cudnn {

namespace {

std::string text_of(cudnnStatus_t status) {
  std::array<char, 1024> detail{};
  cudnnGetLastErrorString(detail.data(), detail.size());
  return fmt::format("cuDNN {} says {}{}{}", cudnnGetVersion(), cudnnGetErrorString(status),
                     detail[0] == '\0' ? "" : ": ", detail.data());
}

}  // namespace

Failure::Failure(cudnnStatus_t status) : std::runtime_error(text_of(status)) {}

cudnnHandle_t handle(int device) {
  struct Destroy {
    void operator()(cudnnHandle_t handle) const { cudnnDestroy(handle); }
  };
  using Handle = std::unique_ptr<cudnnContext, Destroy>;
  thread_local std::map<int, Handle> handles;
  Handle& place = handles[device];
  if (place == nullptr) {
    cudnnHandle_t made = nullptr;
    check(cudnnCreate(&made));
    place.reset(made);
  }
  return place.get();
}

cudnnDataType_t data_type(DType dtype) {
  switch (dtype) {
    case DType::bf16:
      return CUDNN_DATA_BFLOAT16;
    case DType::f16:
      return CUDNN_DATA_HALF;
    case DType::f32:
      return CUDNN_DATA_FLOAT;
    default:
      throw InputError("conv2d: got type {}, expected f32, bf16 or f16", dtype);
  }
}

void Descriptor::set(cudnnBackendAttributeName_t name, std::span<const Descriptor> values) {
  std::vector<cudnnBackendDescriptor_t> raw;
  for (const Descriptor& value : values) {
    raw.push_back(value.get());
  }
  check(cudnnBackendSetAttribute(descriptor_, name, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                 static_cast<std::int64_t>(raw.size()), raw.data()));
}

std::vector<Descriptor> Descriptor::get_all(cudnnBackendAttributeName_t name,
                                            cudnnBackendDescriptorType_t type, std::int64_t most) const {
  std::vector<Descriptor> values;
  std::vector<cudnnBackendDescriptor_t> raw;
  for (std::int64_t i = 0; i < most; ++i) {
    raw.push_back(values.emplace_back(type).get());
  }
  std::int64_t count = 0;
  check(cudnnBackendGetAttribute(descriptor_, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, most, &count, raw.data()));
  while (static_cast<std::int64_t>(values.size()) > count) {
    values.pop_back();
  }
  return values;
}

Descriptor device_properties(cudnnHandle_t handle) {
  Descriptor properties(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  properties.set(CUDNN_ATTR_DEVICEPROP_HANDLE, {handle});
  properties.finalize();
  return properties;
}

Descriptor device_properties(std::string_view json) {
  Descriptor properties(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  properties.set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, std::span(json.data(), json.size()));
  properties.finalize();
  return properties;
}

}  // namespace millrace::cuda::cudnn
