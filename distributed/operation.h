#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "tensor/tensor.h"

namespace millrace {

/// What the members of a group do together.
enum class Operation : std::uint8_t {
  none,
  all_reduce,
  reduce_scatter,
  all_gather,
  broadcast,
  barrier,
  join,
  allocate,
  leave
};

constexpr std::string_view name_of(Operation operation) {
  constexpr std::array<std::string_view, 9> kNames{"nothing",    "all_reduce", "reduce_scatter",
                                                   "all_gather", "broadcast",  "barrier",
                                                   "join",       "allocate",   "leave"};
  return kNames[static_cast<std::size_t>(operation)];
}

// What operations take; `kind` is where the communicator's tensors live.
// @throws InputError naming the operation.

void check_dense(const Tensor& tensor, Device::Kind kind, Operation operation);
/// Dense, f32 or f64.
void check_addends(const Tensor& tensor, Device::Kind kind, Operation operation);
/// `part` is one of `size` equal parts of `whole`.
void check_parts(const Tensor& whole, const Tensor& part, int size, Device::Kind kind, Operation operation);
void check_root(int root, int size);

}  // namespace millrace
