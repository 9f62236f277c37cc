#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "nn/module.h"

namespace millrace::nn {

/// Parameters, then buffers, by PyTorch's names, in order of registration. Views: writing into them changes
/// the module.
using StateDict = std::vector<std::pair<std::string, Tensor>>;
StateDict state_dict(const Module& module);
/// Copies values in by name. @throws InputError naming every missing, unexpected or wrongly shaped entry.
void load_state_dict(Module& module, const StateDict& state);
/// Likewise into tensors that are no module's own; `misfit` begins the message.
void copy_by_name(StateDict into, const StateDict& from, std::string_view misfit);

/// The safetensors format, as Hugging Face defines it; metadata is a map of strings.
struct SafetensorsFile {
  StateDict tensors;
  std::map<std::string, std::string> metadata;
};
/// Written beside and renamed whole; a failure leaves the old file. @throws MachineError with the path and
/// the reason.
void save_safetensors(const std::filesystem::path& path, const SafetensorsFile& file);
/// @throws InputError naming the file and what is wrong with it.
SafetensorsFile load_safetensors(const std::filesystem::path& path);

/// SHA-256 in hexadecimal over the state dictionary, sorted by name: for each entry "name f32 [64, 3, 3,
/// 3]\n", then its bytes in PyTorch's layout (row-major, little-endian).
std::string weights_hash(const Module& module);

}  // namespace millrace::nn
