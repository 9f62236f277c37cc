#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nn/module.h"

namespace millrace::nn {

struct ModelOptions {
  int channels = 3;
  int classes = 10;
  int height = 32;  ///< Of the images; lenet5 pads 28 to 32.
  int width = 32;
};

/// "lenet5", "resnet9", "resnet18", "resnet20" or "airbench94", with weights from `default_generator`.
/// @throws InputError that lists the names, or when the network does not take images of this size.
std::unique_ptr<Module> make_model(std::string_view name, const ModelOptions& options = {});
std::vector<std::string> model_names();

}  // namespace millrace::nn
