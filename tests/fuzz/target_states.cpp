#include <algorithm>
#include <stdexcept>
#include <string>

#include "base/crc32c.h"
#include "base/hash.h"
#include "input_file.h"
#include "nn/state.h"
#include "pipeline/loader/state.h"
#include "pipeline/training/checkpoint_state.h"
#include "targets.h"
#include "tensor/npy.h"

namespace millrace::fuzz {
namespace {

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void add(Hash& hash, const Tensor& tensor) {
  hash.add(static_cast<std::int64_t>(tensor.dtype()));
  for (const std::int64_t size : tensor.shape()) {
    hash.add(size);
  }
  const Tensor dense = tensor.contiguous();
  hash.add(as_text({dense.raw(), dense.bytes()}));
}

std::uint64_t npy(std::span<const std::byte> bytes) {
  const InputFile file(bytes);
  Hash hash;
  add(hash, load_npy(file.path()));
  return hash.value();
}

std::uint64_t safetensors(std::span<const std::byte> bytes) {
  const InputFile file(bytes);
  const nn::SafetensorsFile loaded = nn::load_safetensors(file.path());
  Hash hash;
  for (const auto& [name, tensor] : loaded.tensors) {
    hash.add(name);
    add(hash, tensor);
  }
  for (const auto& [key, text] : loaded.metadata) {
    hash.add(key).add(text);
  }
  return hash.value();
}

std::uint64_t loader_state(std::span<const std::byte> bytes) {
  const auto again = LoaderState::from_bytes(bytes).to_bytes();
  if (!std::equal(again.begin(), again.end(), bytes.begin(), bytes.end())) {
    throw std::logic_error("a loader's state is not written as it was read");
  }
  return Hash().add(as_text(again)).value();
}

/// The checksum, a hash of the rest, comes last.
void seal_loader_state(std::vector<std::byte>& bytes) {
  bytes.resize(LoaderState::kBytes);
  const std::uint64_t hash = Hash().add(as_text(std::span(bytes).first(LoaderState::kBytes - 8))).value();
  for (std::size_t i = 0; i < 8; ++i) {
    bytes[LoaderState::kBytes - 8 + i] = static_cast<std::byte>(hash >> 8 * i);
  }
}

std::uint64_t checkpoint_state(std::span<const std::byte> bytes) {
  const CheckpointState state = CheckpointState::from_bytes(bytes);
  const std::string written = state.to_bytes();
  if (CheckpointState::from_bytes(std::as_bytes(std::span(written))).to_bytes() != written) {
    throw std::logic_error("a checkpoint's state is not written as it was read");
  }
  return Hash().add(written).value();
}

/// The last five bytes are the checksum's field.
void seal_checkpoint_state(std::vector<std::byte>& bytes) {
  if (bytes.size() < 5) {
    return;
  }
  const std::size_t end = bytes.size() - 5;
  bytes[end] = std::byte{15 << 3 | 5};
  const std::uint32_t sum = crc32c(std::span(bytes).first(end));
  for (std::size_t i = 0; i < 4; ++i) {
    bytes[end + 1 + i] = static_cast<std::byte>(sum >> 8 * i);
  }
}

constexpr Target kTargets[] = {{"checkpoint_state", checkpoint_state, true, seal_checkpoint_state},
                               {"loader_state", loader_state, true, seal_loader_state},
                               {"npy", npy},
                               {"safetensors", safetensors}};

}  // namespace

std::span<const Target> state_targets() { return kTargets; }

}  // namespace millrace::fuzz
