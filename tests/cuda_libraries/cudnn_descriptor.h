#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <cudnn.h>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "convolution.h"
#include "real_cudnn.h"

/// The graph API's objects as the fake keeps them: every attribute that was set.
namespace millrace::fake_cudnn {

/// cuDNN's answer, and why: what cudnnGetLastErrorString tells.
struct Refusal {
  cudnnStatus_t status;
  std::string reason;
};

/// What one kind of descriptor takes: data, as the documentation has it.
struct AttributeRow {
  cudnnBackendDescriptorType_t descriptor;
  cudnnBackendAttributeName_t name;
  cudnnBackendAttributeType_t type;
  std::int64_t least, most;  // values
  bool needed;               // to finalize
};
const std::vector<AttributeRow>& attribute_rows();
/// Null for what the descriptor does not have.
const AttributeRow* find_row(cudnnBackendDescriptorType_t descriptor, cudnnBackendAttributeName_t name);
/// Of one value.
std::size_t bytes_of(cudnnBackendAttributeType_t type);

class Descriptor;
using Shared = std::shared_ptr<Descriptor>;

struct Value {
  cudnnBackendAttributeType_t type;
  std::int64_t count;
  std::vector<std::byte> bytes;
  std::vector<Shared> descriptors;
};

/// Also of the real library's, where calls are passed on.
class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type) : type(type) {}

  /// All members throw Refusal.
  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t given, std::int64_t count,
           const void* values);
  void finalize();  ///< Checks; the engines' part is engines.cpp's.

  bool has(cudnnBackendAttributeName_t name) const { return values.contains(name); }
  template <typename T>
  std::vector<T> all(cudnnBackendAttributeName_t name) const {
    const Value& value = values.at(name);
    std::vector<T> made(static_cast<std::size_t>(value.count));
    std::memcpy(made.data(), value.bytes.data(), value.bytes.size());
    return made;
  }
  template <typename T>
  T one(cudnnBackendAttributeName_t name) const {
    T made{};
    std::memcpy(&made, values.at(name).bytes.data(), sizeof made);
    return made;
  }
  const Shared& child(cudnnBackendAttributeName_t name) const { return values.at(name).descriptors.at(0); }
  void put(cudnnBackendAttributeName_t name, Shared value);
  template <typename T>
  void put(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t given, const std::vector<T>& list) {
    const auto* const first = reinterpret_cast<const std::byte*>(list.data());
    values[name] = {
        given, static_cast<std::int64_t>(list.size()), {first, first + list.size() * sizeof(T)}, {}};
  }

  cudnnBackendDescriptorType_t type;
  bool finalized = false;
  std::map<cudnnBackendAttributeName_t, Value> values;
  std::shared_ptr<void> real;  ///< The real library's; null where calls are not passed on.
  Shared graph;                ///< That it is about: of heuristics, engines, their settings and plans.
};

/// The one convolution of a graph. @throws Refusal.
fakes::Convolution convolution_of(const Descriptor& graph);
/// Unique ids of x, weight and y, and the alignments promised.
struct Operand {
  std::int64_t id, alignment;
};
std::vector<Operand> operands_of(const Descriptor& graph);

}  // namespace millrace::fake_cudnn
