#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nn/models/models.h"

namespace millrace {

/// What it takes, besides weights, to use a trained network: kept in the safetensors file's metadata.
struct ModelDescription {
  std::string model;                 ///< A name that nn::make_model knows.
  std::vector<std::string> classes;  ///< In the order of the outputs.
  int channels = 3, height = 32, width = 32;
  std::vector<float> mean = {0.5f}, std = {0.5f};
  std::string transforms = "normalize";  ///< For evaluation; see parse_transforms.

  nn::ModelOptions options() const { return {channels, static_cast<int>(classes.size()), height, width}; }
};

/// The part of a training's transforms that evaluation repeats: sizes, `grayscale:1` and `normalize`. A
/// random resized crop becomes a plain resize to its size; all else is random and left out.
std::string evaluation_transforms(std::string_view training);

/// As it stands in a safetensors file.
std::map<std::string, std::string> to_metadata(const ModelDescription& description);

/// Writes weights and description as one safetensors file that PyTorch reads too.
/// @throws MachineError when it cannot be written; an older file of that name is then as it was.
void save_model(const std::filesystem::path& path, const nn::Module& net,
                const ModelDescription& description);

struct LoadedModel {
  ModelDescription description;
  std::unique_ptr<nn::Module> net;
};
/// @throws InputError naming the file when it was not written by `save_model`.
LoadedModel load_model(const std::filesystem::path& path);

/// Tries out whether a file can be written at `path`, leaving nothing behind; `or_stream`: a pipe or a device
/// will do.
/// @throws InputError naming the path and the reason; MachineError when the disk is full.
void check_can_write(const std::filesystem::path& path, bool or_stream = false);

}  // namespace millrace
