#pragma once

#include "nn/models/models.h"

/// One function a network, for `make_model`'s table; sizes were checked.
namespace millrace::nn {

std::unique_ptr<Module> make_lenet5(const ModelOptions& options);
std::unique_ptr<Module> make_resnet9(const ModelOptions& options);
std::unique_ptr<Module> make_resnet18(const ModelOptions& options);
std::unique_ptr<Module> make_resnet20(const ModelOptions& options);
std::unique_ptr<Module> make_airbench94(const ModelOptions& options);

}  // namespace millrace::nn
