#include "nn/models/models.h"

#include <fmt/format.h>

#include "nn/models/factories.h"

namespace millrace::nn {

namespace {

struct Model {
  const char* name;
  std::unique_ptr<Module> (*make)(const ModelOptions&);
  int smallest, largest, step;  // heights and widths of the images
  const char* takes;
};

constexpr int kNoLimit = 1 << 20;
constexpr Model kModels[] = {
    {"lenet5", make_lenet5, 28, 32, 4, "images of 32x32 or 28x28"},
    {"resnet9", make_resnet9, 8, kNoLimit, 1, "images from 8x8 up"},
    {"resnet18", make_resnet18, 8, kNoLimit, 1, "images from 8x8 up"},
    {"resnet20", make_resnet20, 8, kNoLimit, 1, "images from 8x8 up"},
    {"airbench94", make_airbench94, 25, 48, 1, "images of 25x25 to 48x48"},
};

bool takes(const Model& model, const ModelOptions& options) {
  if (model.make == make_lenet5 && options.height != options.width) {
    return false;
  }
  const auto fits = [&](int size) {
    return size >= model.smallest && size <= model.largest && (size - model.smallest) % model.step == 0;
  };
  return fits(options.height) && fits(options.width);
}

}  // namespace

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  for (const Model& model : kModels) {
    names.emplace_back(model.name);
  }
  return names;
}

std::unique_ptr<Module> make_model(std::string_view name, const ModelOptions& options) {
  for (const Model& model : kModels) {
    if (name != model.name) {
      continue;
    }
    if (options.channels < 1 || options.classes < 1) {
      throw InputError("make_model: got {} channels and {} classes, expected at least one of each",
                       options.channels, options.classes);
    }
    if (!takes(model, options)) {
      throw InputError("make_model: {} takes {}, got {}x{}; resize or crop them, or choose another model",
                       name, model.takes, options.height, options.width);
    }
    return model.make(options);
  }
  throw InputError("make_model: got \"{}\", expected one of {}", name, fmt::join(model_names(), ", "));
}

}  // namespace millrace::nn
