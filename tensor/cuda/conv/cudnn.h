#pragma once

#include <cstdint>
#include <cudnn.h>
#include <initializer_list>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensor/dtype.h"

/// What the convolutions share of cuDNN: its graph API's descriptors and its handles.
namespace millrace::cuda::cudnn {

/// cuDNN said no: the status and its own text. Who knows the operation turns it into a MachineError.
class Failure : public std::runtime_error {
 public:
  explicit Failure(cudnnStatus_t status);
};

inline void check(cudnnStatus_t status) {
  if (status != CUDNN_STATUS_SUCCESS) {
    throw Failure(status);
  }
}

/// This thread's handle for the device, which must be the current one.
cudnnHandle_t handle(int device);

cudnnDataType_t data_type(DType dtype);

template <typename T>
inline constexpr cudnnBackendAttributeType_t kAttributeType = [] {
  static_assert(sizeof(T) == 0, "name the type's CUDNN_TYPE_ here");
  return CUDNN_TYPE_INT64;
}();
template <>
inline constexpr cudnnBackendAttributeType_t kAttributeType<std::int64_t> = CUDNN_TYPE_INT64;
template <>
inline constexpr cudnnBackendAttributeType_t kAttributeType<float> = CUDNN_TYPE_FLOAT;
template <>
inline constexpr cudnnBackendAttributeType_t kAttributeType<char> = CUDNN_TYPE_CHAR;
template <>
inline constexpr cudnnBackendAttributeType_t kAttributeType<void*> = CUDNN_TYPE_VOID_PTR;
template <>
inline constexpr cudnnBackendAttributeType_t kAttributeType<cudnnHandle_t> = CUDNN_TYPE_HANDLE;
template <>
inline constexpr cudnnBackendAttributeType_t kAttributeType<cudnnDataType_t> = CUDNN_TYPE_DATA_TYPE;
template <>
inline constexpr cudnnBackendAttributeType_t kAttributeType<cudnnConvolutionMode_t> =
    CUDNN_TYPE_CONVOLUTION_MODE;
template <>
inline constexpr cudnnBackendAttributeType_t kAttributeType<cudnnBackendHeurMode_t> = CUDNN_TYPE_HEUR_MODE;
template <>
inline constexpr cudnnBackendAttributeType_t kAttributeType<cudnnBackendKnobType_t> = CUDNN_TYPE_KNOB_TYPE;
template <>
inline constexpr cudnnBackendAttributeType_t kAttributeType<cudnnBackendNumericalNote_t> =
    CUDNN_TYPE_NUMERICAL_NOTE;
template <>
inline constexpr cudnnBackendAttributeType_t kAttributeType<cudnnBackendBehaviorNote_t> =
    CUDNN_TYPE_BEHAVIOR_NOTE;

/// One of the graph API's objects. All members throw Failure.
class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type) {
    check(cudnnBackendCreateDescriptor(type, &descriptor_));
  }
  ~Descriptor() {
    if (descriptor_ != nullptr) {
      cudnnBackendDestroyDescriptor(descriptor_);
    }
  }
  Descriptor(Descriptor&& other) noexcept : descriptor_(std::exchange(other.descriptor_, nullptr)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }

  cudnnBackendDescriptor_t get() const { return descriptor_; }

  template <typename T>
  void set(cudnnBackendAttributeName_t name, std::span<const T> values) {
    check(cudnnBackendSetAttribute(descriptor_, name, kAttributeType<T>,
                                   static_cast<std::int64_t>(values.size()), values.data()));
  }
  template <typename T>
  void set(cudnnBackendAttributeName_t name, std::initializer_list<T> values) {
    set(name, std::span<const T>(values.begin(), values.size()));
  }
  void set(cudnnBackendAttributeName_t name, const Descriptor& value) {
    check(cudnnBackendSetAttribute(descriptor_, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value.descriptor_));
  }
  void set(cudnnBackendAttributeName_t name, std::span<const Descriptor> values);
  void finalize() { check(cudnnBackendFinalize(descriptor_)); }

  template <typename T>
  T get(cudnnBackendAttributeName_t name) const {
    std::int64_t count = 0;
    T value{};
    check(cudnnBackendGetAttribute(descriptor_, name, kAttributeType<T>, 1, &count, &value));
    return value;
  }
  /// As many values as there are, up to `most`.
  template <typename T>
  std::vector<T> get_all(cudnnBackendAttributeName_t name, std::int64_t most) const {
    std::int64_t count = 0;
    std::vector<T> values(static_cast<std::size_t>(most));
    check(cudnnBackendGetAttribute(descriptor_, name, kAttributeType<T>, most, &count, values.data()));
    values.resize(static_cast<std::size_t>(count));
    return values;
  }
  /// Descriptors of one type, up to `most`.
  std::vector<Descriptor> get_all(cudnnBackendAttributeName_t name, cudnnBackendDescriptorType_t type,
                                  std::int64_t most) const;

 private:
  cudnnBackendDescriptor_t descriptor_ = nullptr;
};

/// What cuDNN knows of a device: of the handle's, or of one that need not be here, as JSON in cuDNN's own
/// words.
Descriptor device_properties(cudnnHandle_t handle);
Descriptor device_properties(std::string_view json);

}  // namespace millrace::cuda::cudnn
