#include "pipeline/training/model_file.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "nn/state.h"
#include "pipeline/image/transform_words.h"
#include "tensor/config.h"
#include "tensor/ops.h"

namespace millrace {

namespace {

using nlohmann::json;

std::string need(const nn::SafetensorsFile& file, const std::filesystem::path& path, const char* key) {
  const auto found = file.metadata.find(key);
  if (found == file.metadata.end()) {
    throw InputError(
        "load_model: {} has no '{}' in its metadata; expected a file written by millrace train --save",
        path.string(), key);
  }
  return found->second;
}

void check_finite(const nn::StateDict& state, const std::filesystem::path& path) {
  for (const auto& [name, tensor] : state) {
    if (is_floating(tensor.dtype()) && sum(tensor * 0).item() != 0) {  // 0 times infinity is not a number
      throw InputError(
          "{}: {} holds values that are not finite; the training went astray, train again with a smaller "
          "--lr",
          path.string(), name);
    }
  }
}

}  // namespace

std::string evaluation_transforms(std::string_view training) {
  constexpr std::string_view kResizedCrop = "random_resized_crop:", kGrayscale = "grayscale:";
  std::string result;
  while (!training.empty()) {
    const std::string_view step = take(training, ',');
    const bool is_resized_crop = step.starts_with(kResizedCrop);
    if (is_resized_crop || step.starts_with("resize:") || step.starts_with("center_crop:") ||
        step == "normalize" ||
        (step.starts_with(kGrayscale) && parse_decimal(step.substr(kGrayscale.size()), step, 0, 1) == 1)) {
      result += result.empty() ? "" : ",";
      result += is_resized_crop ? "resize:" : "";
      result += step.substr(is_resized_crop ? kResizedCrop.size() : 0);
    }
  }
  return result;
}

std::map<std::string, std::string> to_metadata(const ModelDescription& description) {
  return {{"format", "pt"},
          {"millrace", kVersion},
          {"model", description.model},
          {"classes", json(description.classes).dump()},
          {"input", json({description.channels, description.height, description.width}).dump()},
          {"mean", json(description.mean).dump()},
          {"std", json(description.std).dump()},
          {"transforms", description.transforms}};
}

void save_model(const std::filesystem::path& path, const nn::Module& net,
                const ModelDescription& description) {
  nn::SafetensorsFile file;
  file.tensors = nn::state_dict(net);
  check_finite(file.tensors, path);
  file.metadata = to_metadata(description);
  nn::save_safetensors(path, file);
}

LoadedModel load_model(const std::filesystem::path& path) {
  const nn::SafetensorsFile file = nn::load_safetensors(path);
  check_finite(file.tensors, path);
  LoadedModel loaded;
  ModelDescription& description = loaded.description;
  description.model = need(file, path, "model");
  description.transforms = need(file, path, "transforms");
  try {
    description.classes = json::parse(need(file, path, "classes")).get<std::vector<std::string>>();
    const auto input = json::parse(need(file, path, "input")).get<std::array<int, 3>>();
    description.channels = input[0];
    description.height = input[1];
    description.width = input[2];
    description.mean = json::parse(need(file, path, "mean")).get<std::vector<float>>();
    description.std = json::parse(need(file, path, "std")).get<std::vector<float>>();
  } catch (const json::exception& error) {
    throw InputError("load_model: {} has damaged metadata ({}); save the model again", path.string(),
                     error.what());
  }
  try {
    parse_transforms(description.transforms);
    loaded.net = nn::make_model(description.model, description.options());
    nn::load_state_dict(*loaded.net, file.tensors);
  } catch (const InputError& error) {
    throw InputError("load_model: {}: {}", path.string(), error.what());
  }
  return loaded;
}

void check_can_write(const std::filesystem::path& path, bool or_stream) {
  std::error_code error;
  const std::filesystem::file_status there = std::filesystem::status(path, error);
  if (path.empty() || is_directory(there)) {
    throw InputError("cannot write {}: expected the name of a file, got {}",
                     path.empty() ? "''" : path.string(), path.empty() ? "nothing" : "a folder");
  }
  if (exists(there) && !is_regular_file(there)) {
    if (or_stream && ::access(path.c_str(), W_OK) == 0) {
      return;
    }
    throw InputError("cannot write {}: {}", path.string(),
                     or_stream ? std::strerror(errno) : "it is no regular file; name one");
  }
  const std::string trial = fmt::format("{}.{}.tmp", path.string(), ::getpid());
  const int file = ::open(trial.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0 && errno == ENOSPC) {
    throw MachineError("cannot write {}: {}", path.string(), std::strerror(ENOSPC));
  }
  if (file < 0) {
    throw InputError("cannot write {}: {}; name a file in a folder that exists and may be written",
                     path.string(), std::strerror(errno));
  }
  ::close(file);
  ::unlink(trial.c_str());
}

}  // namespace millrace
