#pragma once

#include <filesystem>
#include <memory>

#include "pipeline/image/loader.h"
#include "pipeline/training/model_file.h"

namespace millrace::app {

/// Draws the same 32 samples of `data` each time, with true and predicted labels, into a PNG file: green
/// where right.
/// @throws MachineError when the file cannot be written.
void draw_grid(const std::filesystem::path& path, nn::Module& net, const ModelDescription& model,
               std::shared_ptr<const Dataset> data);

}  // namespace millrace::app
