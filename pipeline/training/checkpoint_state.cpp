#include "pipeline/training/checkpoint_state.h"

#include <algorithm>
#include <cstring>

#include "base/crc32c.h"
#include "base/error.h"
#include "proto/checkpoint.pb.h"

namespace millrace {

namespace {

constexpr std::uint32_t kFormat = 4, kOldestFormat = 3;  // that differ in the loader's state
constexpr std::byte kChecksumTag{15 << 3 | 5};           // field 15, of 32 bits
constexpr std::size_t kChecksumBytes = 5;

std::uint32_t checksum(std::string_view bytes) { return crc32c(std::as_bytes(std::span(bytes))); }

template <typename Values>
void put(const RunDescription::Values& from, Values& to) {
  for (const auto& [name, value] : from) {
    auto& entry = *to.Add();
    entry.set_name(name);
    entry.set_value(value);
  }
}

template <typename Values>
RunDescription::Values take_values(const Values& from) {
  RunDescription::Values values;
  for (const auto& entry : from) {
    values[entry.name()] = entry.value();
  }
  return values;
}

}  // namespace

const CheckpointState::File* CheckpointState::find(std::string_view name) const {
  const auto found =
      std::find_if(files.begin(), files.end(), [&](const File& file) { return file.name == name; });
  return found == files.end() ? nullptr : &*found;
}

std::string CheckpointState::to_bytes() const {
  proto::CheckpointState state;
  state.set_version(kFormat);
  state.set_step(step);
  const auto position = loader.to_bytes();
  state.set_loader(position.data(), position.size());
  put(run.options, *state.mutable_option());
  put(run.environment, *state.mutable_environment());
  for (const File& file : files) {
    auto& entry = *state.add_file();
    entry.set_name(file.name);
    entry.set_bytes(file.bytes);
    entry.set_crc32c(file.crc32c);
  }
  state.set_engines(engines);
  std::string bytes = state.SerializeAsString();
  const std::uint32_t sum = checksum(bytes);
  bytes += static_cast<char>(kChecksumTag);
  bytes.append(reinterpret_cast<const char*>(&sum), sizeof sum);  // little-endian, as this machine is
  return bytes;
}

CheckpointState CheckpointState::from_bytes(std::span<const std::byte> bytes) {
  if (bytes.size() < kChecksumBytes || bytes.size() > kMostBytes) {
    throw InputError("it has {} bytes, expected {} to {}", bytes.size(), kChecksumBytes, kMostBytes);
  }
  const auto checked = bytes.first(bytes.size() - kChecksumBytes);
  std::uint32_t stored = 0;
  std::memcpy(&stored, bytes.data() + checked.size() + 1, sizeof stored);
  if (bytes[checked.size()] != kChecksumTag || stored != crc32c(checked)) {
    throw InputError("its checksum does not fit its bytes");
  }
  proto::CheckpointState state;
  if (!state.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    throw InputError("it is no message of proto/checkpoint.proto");
  }
  if (state.version() < kOldestFormat || state.version() > kFormat) {
    throw OtherFormat(
        "it has version {}, and this Millrace reads versions {} and {}; go on with the Millrace that wrote "
        "it, or name another folder",
        state.version(), kOldestFormat, kFormat);
  }
  CheckpointState result{.step = state.step(),
                         .loader = LoaderState::from_bytes(std::as_bytes(std::span(state.loader()))),
                         .run = {take_values(state.option()), take_values(state.environment())},
                         .engines = state.engines(),
                         .files = {}};
  if (result.step < 0) {
    throw InputError("it is of step {}, expected none below 0", result.step);
  }
  for (const auto& file : state.file()) {
    result.files.push_back({file.name(), file.bytes(), file.crc32c()});
  }
  return result;
}

}  // namespace millrace
