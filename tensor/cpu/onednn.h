#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <dnnl.hpp>
#include <initializer_list>
#include <memory>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tensor/dtype.h"

/// What the kernels share of oneDNN: handles that belong to one thread, and primitives cached by shape.
/// Only .cpp files include this; each kind of primitive stands in one file, as oneDNN 3 changes how they are
/// made.
namespace millrace::cpu::onednn {

/// This thread's engine and stream. The first call gives the thread one OpenMP thread: parallelism comes from
/// replicas, and sums must not depend on how many cores there are.
const dnnl::engine& engine();
const dnnl::stream& stream();

dnnl::memory::data_type data_type(DType dtype);
/// Attributes of every primitive here: scratch memory is the thread's, not the primitive's.
const dnnl::primitive_attr& attributes();

/// A primitive and its arguments. Running it allocates nothing.
class Call {
 public:
  struct Argument {
    int name;             ///< DNNL_ARG_SRC ...
    dnnl::memory memory;  ///< Without data, it is given at each run.
  };
  Call(dnnl::primitive primitive, std::initializer_list<Argument> arguments,
       const dnnl::memory::desc& scratchpad = {});

  /// Runs with one address for each argument, in their order; null keeps the memory the argument has.
  void run(std::initializer_list<const void*> data);

 private:
  dnnl::primitive primitive_;
  std::vector<Argument> arguments_;
  std::vector<dnnl_exec_arg_t> executed_;
  std::size_t scratchpad_bytes_ = 0;
};

/// Memory whose address is given at each run.
inline dnnl::memory unbound(const dnnl::memory::desc& desc) { return {desc, engine(), nullptr}; }
/// Memory of its own.
inline dnnl::memory owned(const dnnl::memory::desc& desc) { return {desc, engine()}; }

/// Sizes, types and options that a primitive was made for; unused places are 0.
using Key = std::array<std::int64_t, 20>;
struct KeyHash {
  std::size_t operator()(const Key& key) const {
    std::uint64_t hash = 0;
    for (std::int64_t word : key) {
      hash = (hash ^ static_cast<std::uint64_t>(word)) * 0x9E3779B97F4A7C15u;
    }
    return hash ^ hash >> 32;
  }
};

/// Entries made once per shape, for one thread; starts anew when shapes keep changing.
template <typename Entry>
class Cache {
 public:
  /// @throws MachineError naming `operation` when oneDNN has no such primitive on this processor.
  template <typename Make>
  Entry& find(const Key& key, std::string_view operation, Make&& make) {
    if (const auto place = entries_.find(key); place != entries_.end()) {
      return *place->second;
    }
    if (entries_.size() == kMostEntries) {
      entries_.clear();
    }
    try {
      return *entries_.emplace(key, std::make_unique<Entry>(make())).first->second;
    } catch (const dnnl::error& error) {
      throw MachineError("{}: oneDNN cannot run it on this processor for these sizes and types ({}); try f32",
                         operation, error.what());
    }
  }

 private:
  static constexpr std::size_t kMostEntries = 512;
  std::unordered_map<Key, std::unique_ptr<Entry>, KeyHash> entries_;
};

}  // namespace millrace::cpu::onednn
